"""phonopy: a phonopy_params file for each structure whose Hessian is whole, as phonopy.load opens it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import orjson
from jaxtyping import Float64

from mlipdb.export.exporter import ExportItem, ExportOptions, ExportReport, Tally
from mlipdb.labels import Label
from mlipdb.structures import SYMBOLS

HELD = frozenset(("hessian_rows",))
WHY = "phonopy's file holds force constants alone"
AXES = (("a", 0), ("b", 1), ("c", 2))


class PhonopyExporter:
    """A folder with one YAML file a structure. The structure is the supercell and the unit cell in one.

    Force constants are +d²E/dx dx in eV/Å², all of them, with the digits that read back to the last bit; positions
    become fractional coordinates. ``phonopy.load(FILE, primitive_matrix="auto")`` finds the primitive cell.
    """

    name: ClassVar[str] = "phonopy"
    suffixes: ClassVar[tuple[str, ...]] = ("",)
    in_file: ClassVar[bool] = False

    def write(self, path: Path, items: Iterator[ExportItem], options: ExportOptions) -> ExportReport:
        """Write the files one after another; what has no whole Hessian is skipped with the reason."""
        tally = Tally()
        path.mkdir()
        for item in items:
            reason = _reason(item)
            if reason is not None:
                tally.skip(item, reason)
                continue
            (path / f"{_file_name(path, item)}.yaml").write_text(_text(item, item.labels[0], options))
            tally.without(item, HELD, why=WHY, first_only=True)
            tally.lose("positions", "as fractional coordinates they come back to rounding, about 1e-15 of the cell")
            tally.written += 1
        return tally.report()


def _reason(item: ExportItem) -> str | None:
    """Why there is nothing for phonopy, None where there is."""
    label = item.labels[0]
    if label is None or label.hessian_row_numbers is None:
        return "it has no Hessian by this method; label with --hessian-rows all"
    if not all(item.structure.pbc):
        return "it is not periodic in three directions, which phonopy needs"
    rows = len(np.unique(label.hessian_row_numbers))
    if rows < 3 * len(item.structure):
        return "its Hessian is not whole: phonopy needs every row; label with --hessian-rows all"
    return None


def _file_name(folder: Path, item: ExportItem) -> str:
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", item.external_id).strip("._") or "structure"
    name = name[:120]
    return name if not (folder / f"{name}.yaml").exists() else f"{name}-{item.id}"


def _constants(label: Label, natoms: int) -> Float64[np.ndarray, "atoms atoms 3 3"]:
    """constants[i, j, a, b] is d²E/dx_ia dx_jb: row 3·i + a of the Hessian at [j, b]."""
    assert label.hessian_rows is not None  # the caller has looked
    assert label.hessian_row_numbers is not None  # as above
    rows = np.empty((3 * natoms, natoms, 3))
    rows[label.hessian_row_numbers] = label.hessian_rows
    return np.ascontiguousarray(rows.reshape(natoms, 3, natoms, 3).transpose(0, 2, 1, 3))


def _text(item: ExportItem, label: Label | None, options: ExportOptions) -> str:
    assert label is not None  # the caller has looked
    method = options.methods[0].method
    about = {
        "external_id": item.external_id,
        "source": item.source,
        "material": item.material,
        "method": method.name if method is not None else None,
        "database": options.about["database"],
    }
    cell = _cell(item)
    lines = [
        "phonopy:",
        '  version: "2.20"',
        '  calculator: "vasp"',  # whose units are eV and Å
        "  symmetry_tolerance: 1.0e-05",
        "supercell_matrix:",
        *("- [ 1, 0, 0 ]", "- [ 0, 1, 0 ]", "- [ 0, 0, 1 ]"),
        "primitive_matrix:",
        *("- [ 1.0, 0.0, 0.0 ]", "- [ 0.0, 1.0, 0.0 ]", "- [ 0.0, 0.0, 1.0 ]"),
        "physical_unit:",
        *('  atomic_mass: "AMU"', '  length: "angstrom"', '  force_constants: "eV/angstrom^2"'),
        f"mlipdb: {orjson.dumps(about).decode()}",
        *("unit_cell:", *cell, "supercell:", *cell),
        "force_constants:",
        *('  format: "full"', f"  shape: [ {len(item.structure)}, {len(item.structure)} ]", "  elements:"),
        *_elements(_constants(label, len(item.structure))),
    ]
    return "\n".join(lines) + "\n"


def _cell(item: ExportItem) -> list[str]:
    structure = item.structure
    fractional = np.linalg.solve(structure.cell.T, structure.positions.T).T
    lines = ["  lattice:"]
    lines += [f"  - {_vector(structure.cell[place])} # {name}" for name, place in AXES]
    lines.append("  points:")
    for number, place in zip(structure.atomic_numbers.tolist(), fractional, strict=True):
        lines += [f"  - symbol: {SYMBOLS[number]}", f"    coordinates: {_vector(place)}"]
    return lines


def _elements(constants: Float64[np.ndarray, "atoms atoms 3 3"]) -> Iterator[str]:
    for first, blocks in enumerate(constants, start=1):
        for second, block in enumerate(blocks, start=1):
            yield f"  - # ({first}, {second})"
            for row in block:
                yield f"    - {_vector(row)}"


def _vector(values: Float64[np.ndarray, " 3"]) -> str:
    """Three numbers in 17 digits. YAML takes 1e-05 for a word: it wants a point and a sign of the exponent."""
    x, y, z = values.tolist()
    return f"[ {x:.16e}, {y:.16e}, {z:.16e} ]"
