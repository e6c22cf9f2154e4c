"""MACE HDF5: what mace-torch's HDF5Dataset reads, as its preprocessing writes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import orjson

from mlipdb.export.exporter import ExportItem, ExportOptions, ExportReport, Tally

if TYPE_CHECKING:
    import h5py

HELD = frozenset(("forces", "stress"))
WHY = "MACE's HDF5 has no place for it"
FURTHER = "a MACE HDF5 file holds one method; write one file each and train with several heads"
PROPERTIES = ("energy", "forces", "stress", "virials", "dipole", "charges")


class MaceHdf5Exporter:
    """All structures in one batch group, config_batch_0, one group each; missing values say None and weigh nothing.

    The loader multiplies the number of batches by the size of the first, so that only equal batches are counted right;
    one batch always is. Without a weight of zero it would train on a missing energy as if it were 0 eV. A group's
    attributes name its structure, the file's describe the whole.
    """

    name: ClassVar[str] = "mace-hdf5"
    suffixes: ClassVar[tuple[str, ...]] = (".h5", ".hdf5")
    in_file: ClassVar[bool] = True

    def write(self, path: Path, items: Iterator[ExportItem], options: ExportOptions) -> ExportReport:
        """Write the groups one after another."""
        import h5py

        tally = Tally()
        with h5py.File(path, "w", libver=("v108", "v108")) as file:  # its attributes may be longer than 64 kB
            file.attrs["mlipdb"] = orjson.dumps(options.about, option=orjson.OPT_SORT_KEYS).decode()
            batch = file.create_group("config_batch_0")
            for item in items:
                _write(batch.create_group(f"config_{tally.written}"), item, options, tally)
                tally.written += 1
        return tally.report()


def _write(group: "h5py.Group", item: ExportItem, options: ExportOptions, tally: Tally) -> None:
    structure, label = item.structure, item.labels[0]
    values: dict[str, Any] = dict.fromkeys(PROPERTIES)
    values["energy"] = options.energy(item)
    if label is not None:
        values |= {"forces": label.forces, "stress": label.stress}
    weights = {name: float(value is not None) for name, value in values.items()}
    if structure.charge is not None:
        values["total_charge"] = structure.charge
    if structure.spin_multiplicity is not None:
        values["total_spin"] = float(structure.spin_multiplicity)
    group["atomic_numbers"] = structure.atomic_numbers.astype(np.int64)
    group["positions"] = structure.positions
    group["cell"] = structure.cell
    group["pbc"] = np.array(structure.pbc)
    group["weight"] = 1.0
    group["config_type"] = "Default"
    for name, found in (("properties", values), ("property_weights", weights)):
        inner = group.create_group(name)
        for key, value in found.items():
            inner[key] = "None" if value is None else value
    for key in ("external_id", "material", "source"):
        group.attrs[key] = getattr(item, key)
    kind = options.methods[0].energy
    tally.without(item, HELD | {kind or ""}, why=WHY if len(item.labels) == 1 else FURTHER, first_only=True)
    if item.tags or item.row is not None:
        tally.lose("tags and source rows", WHY)
