"""ColabFit's Parquet: one row a property of a configuration, in the columns that ColabFit publishes."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import orjson

from mlipdb.export.exporter import ExportItem, ExportMethod, ExportOptions, ExportReport, Tally
from mlipdb.labels import ENERGY_KINDS, Label
from mlipdb.structures import SYMBOLS, reduced_formula

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 1024
HELD = frozenset((*ENERGY_KINDS, "band_gap", "forces", "stress", "magmoms", "atomic_energies", "properties"))
WHY = "ColabFit's schema has no place for it"
# Properties that have a column; other quantities stand as JSON in property_metadata.
NAMED = ("formation_energy", "adsorption_energy", "atomization_energy", "energy_above_hull")
TEXTS = (
    "property_id", "property_hash", "dataset_id", "software", "method", "electronic_band_gap_type", "configuration_id",
    "configuration_hash", "structure_hash", "chemical_formula_hill", "chemical_formula_reduced",
    "chemical_formula_anonymous", "property_metadata_path", "configuration_metadata_path", "configuration_metadata",
    "property_metadata", "material",
)  # fmt: skip
NUMBERS = ("energy", "electronic_band_gap", *NAMED, "max_force_norm", "mean_force_norm")
INTEGERS = ("multiplicity", "nsites", "nelements", "nperiodic_dimensions")
VECTORS = ("atomic_forces", "cauchy_stress", "cell", "positions")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class ColabfitExporter:
    """eV, Å, eV/Å, eV/Å³, stress positive under tension and not multiplied by the volume. Each method has its rows.

    names holds the structure's own id and its material, configuration_metadata and property_metadata hold as JSON what
    has no column. The ids and hashes are mlipdb's, not those that ColabFit's own tools would give. What describes the
    whole file is in the schema's metadata.
    """

    name: ClassVar[str] = "colabfit"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    in_file: ClassVar[bool] = True

    def write(self, path: Path, items: Iterator[ExportItem], options: ExportOptions) -> ExportReport:
        """Write the rows in groups of about a thousand."""
        import pyarrow.parquet as pq

        tally = Tally()
        about = orjson.dumps(options.about, option=orjson.OPT_SORT_KEYS)
        layout = _schema().with_metadata({b"mlipdb": about})
        dataset = f"DS_{_number(options.about['database'], options.about['filter'])}"
        with pq.ParquetWriter(path, layout, compression="zstd") as writer:
            while batch := list(islice(items, BATCH)):
                rows = [row for item in batch for row in _rows(item, options, dataset=dataset)]
                for item in batch:
                    tally.without(item, HELD, why=WHY)
                tally.written += len(batch)
                writer.write_batch(_record_batch(rows, layout))
        return tally.report()


def _rows(item: ExportItem, options: ExportOptions, *, dataset: str) -> Iterator[dict[str, Any]]:
    """A row for each label; one without a label for a structure that has none."""
    base = _configuration(item) | {"dataset_id": dataset, "multiplicity": 1}
    found = [pair for pair in zip(options.methods, item.labels, strict=True) if pair[1] is not None]
    if not found:
        yield {**base, "property_id": f"PO_{_number(item.source, item.external_id)}"}
    for method, label in found:
        yield {**base, **_property(item, method, label)}  # type: ignore[arg-type]  # no label that is None is left


def _configuration(item: ExportItem) -> dict[str, Any]:
    structure = item.structure
    composition, content = structure.composition, str(int.from_bytes(structure.content_hash))
    symbols = sorted(SYMBOLS[number] for number in composition)
    counts = {SYMBOLS[number]: count for number, count in composition.items()}
    metadata = {
        "external_id": item.external_id,
        "material": item.material,
        "source": item.source,
        "split": item.part,
        "tags": dict(item.tags),
        "row": item.row,
        "charge": structure.charge,
        "spin_multiplicity": structure.spin_multiplicity,
    }
    return {
        "configuration_id": f"CO_{content}",
        "configuration_hash": content,
        "structure_hash": content,
        "cell": structure.cell,
        "positions": structure.positions,
        "pbc": list(structure.pbc),
        "atomic_numbers": structure.atomic_numbers.tolist(),
        "chemical_formula_hill": _hill(counts),
        "chemical_formula_reduced": reduced_formula(composition),
        "chemical_formula_anonymous": _anonymous(list(counts.values())),
        "elements": symbols,
        "elements_ratios": [counts[symbol] / len(structure) for symbol in symbols],
        "nsites": len(structure),
        "nelements": len(composition),
        "nperiodic_dimensions": sum(structure.pbc),
        "dimension_types": [int(periodic) for periodic in structure.pbc],
        "names": [item.external_id, item.material],
        "labels": [f"{name}={value}" for name, value in item.tags.items()] or None,
        "configuration_metadata": _json({key: value for key, value in metadata.items() if value not in (None, {})}),
        "material": item.material,
    }


def _property(item: ExportItem, method: ExportMethod, label: Label) -> dict[str, Any]:
    about = method.method
    level = None if about is None else (f"DFT-{about.functional}" if about.functional else about.name)
    norms = None if label.forces is None else np.linalg.norm(label.forces, axis=1)
    more = {kind: getattr(label, kind) for kind in ENERGY_KINDS if kind != method.energy}
    more |= {"magmoms": label.magmoms, "atomic_energies": label.atomic_energies}
    more["atomic_energies_include_e0"] = label.atomic_energies_include_e0
    more |= {name: value for name, value in label.properties.items() if name not in NAMED}
    return {
        "property_id": f"PO_{_number(item.source, item.external_id, method.key)}",
        "property_hash": str(int.from_bytes(label.content_hash)),
        "software": about.code if about is not None else None,
        "method": level,
        "energy": None if method.energy is None else getattr(label, method.energy),
        "atomic_forces": label.forces,
        "cauchy_stress": label.stress,
        "cauchy_stress_volume_normalized": False if label.stress is not None else None,
        "electronic_band_gap": label.band_gap,
        **{name: label.properties.get(name) for name in NAMED},
        "max_force_norm": None if norms is None else float(norms.max()),
        "mean_force_norm": None if norms is None else float(norms.mean()),
        "property_metadata": _json({"energy_kind": method.energy} | {k: v for k, v in more.items() if v is not None}),
    }


def _schema() -> "pa.Schema":
    """ColabFit's columns, and the material beside them."""
    import pyarrow as pa

    vectors = pa.list_(pa.list_(pa.float64()))
    types = {
        **dict.fromkeys(TEXTS, pa.string()),
        **dict.fromkeys(NUMBERS, pa.float64()),
        **dict.fromkeys(INTEGERS, pa.int32()),
        **dict.fromkeys(VECTORS, vectors),
        "last_modified": pa.timestamp("us"),
        "cauchy_stress_volume_normalized": pa.bool_(),
        "pbc": pa.list_(pa.bool_()),
        "elements": pa.list_(pa.string()),
        "elements_ratios": pa.list_(pa.float64()),
        "atomic_numbers": pa.list_(pa.int32()),
        "dimension_types": pa.list_(pa.int32()),
        "names": pa.list_(pa.string()),
        "labels": pa.list_(pa.string()),
    }
    return pa.schema([(name, types[name]) for name in ORDER])


ORDER = (
    "property_id", "property_hash", "last_modified", "dataset_id", "multiplicity", "software", "method", "energy",
    "atomic_forces", "cauchy_stress", "cauchy_stress_volume_normalized", "electronic_band_gap",
    "electronic_band_gap_type", *NAMED[:3], "max_force_norm", "mean_force_norm", "energy_above_hull",
    "configuration_id", "configuration_hash", "structure_hash", "cell", "positions", "pbc", "chemical_formula_hill",
    "chemical_formula_reduced", "chemical_formula_anonymous", "elements", "elements_ratios", "atomic_numbers", "nsites",
    "nelements", "nperiodic_dimensions", "dimension_types", "names", "labels", "property_metadata_path",
    "configuration_metadata_path", "configuration_metadata", "property_metadata", "material",
)  # fmt: skip


def _record_batch(rows: Sequence[dict[str, Any]], schema: "pa.Schema") -> "pa.RecordBatch":
    import pyarrow as pa

    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        columns.append(_vectors(values) if field.name in VECTORS else pa.array(values, type=field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _vectors(values: Sequence[np.ndarray | None]) -> "pa.ListArray":
    """Lists of vectors straight from the arrays' memory."""
    import pyarrow as pa

    present = [np.zeros((0, 3)) if value is None else value for value in values]
    flat = np.ascontiguousarray(np.concatenate(present), dtype=np.float64).reshape(-1)
    inner = pa.ListArray.from_arrays(pa.array(np.arange(0, len(flat) + 1, 3, dtype=np.int32)), pa.array(flat))
    ends = np.concatenate([[0], np.cumsum([len(value) for value in present])]).astype(np.int32)
    missing = pa.array([value is None for value in values])
    return pa.ListArray.from_arrays(pa.array(ends), inner, mask=missing)


def _hill(counts: dict[str, int]) -> str:
    """Carbon, hydrogen, then the rest by name; without carbon all by name."""
    first = [symbol for symbol in ("C", "H") if symbol in counts] if "C" in counts else []
    order = first + sorted(symbol for symbol in counts if symbol not in first)
    return "".join(f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in order)


def _anonymous(counts: list[int]) -> str:
    """A3BC and the like: the most frequent first, counts divided by their common divisor."""
    divisor = math.gcd(*counts)
    ordered = sorted((count // divisor for count in counts), reverse=True)
    names = [
        LETTERS[place % 26] + (LETTERS[place // 26 - 1].lower() if place > 25 else "") for place in range(len(counts))
    ]
    return "".join(f"{name}{count if count > 1 else ''}" for name, count in zip(names, ordered, strict=True))


def _number(*words: str) -> str:
    """A number of up to 19 digits that words decide."""
    return str(int.from_bytes(hashlib.blake2b("\0".join(words).encode(), digest_size=8).digest()))


def _json(values: dict[str, Any]) -> str:
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS).decode()
