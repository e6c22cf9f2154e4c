"""SPICE HDF5: a group a molecule with its conformations, in bohr and hartree, with gradients instead of forces."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from mlipdb.errors import ConfigError, IngestError, MlipdbError, did_you_mean
from mlipdb.ingest.notes import note
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.smiles import formal_charge, numbered_elements
from mlipdb.ingest.units_of import DIMENSIONS, canonical, checked_units, to_internal
from mlipdb.labels import Label, Method
from mlipdb.structures import make_structure

MAGIC = b"\x89HDF\r\n\x1a\n"
BLOCK = 256  # conformations in memory together
_ENERGIES = ("dft_total_energy", "formation_energy")
_DIMENSION = {
    "conformations": "positions", "dft_total_energy": "energy", "formation_energy": "energy",
    "dft_total_gradient": "forces",
}  # fmt: skip
THEORY = {"code": "Psi4", "functional": "ωB97M-D3(BJ)"}
BASIS = "def2-TZVPPD"


class GroupError(MlipdbError):
    """A group that does not make sense; it goes to quarantine."""


class SpiceReader:
    """Molecules without a cell: forces are minus the gradient, there is no stress, charges come from the SMILES.

    The units attributes of the file are trusted; --unit is for a data set that has none. dft_total_energy is the
    energy, formation_energy a property, unless ``--key energy=formation_energy`` says otherwise.
    """

    name: ClassVar[str] = "spice"
    suffixes: ClassVar[tuple[str, ...]] = (".hdf5", ".h5")
    default_method: ClassVar[Method] = Method(
        kind="dft", name=f"SPICE ωB97M-D3(BJ)/{BASIS}", settings={"basis": BASIS}, **THEORY
    )

    def claims(self, path: Path, head: bytes) -> str | None:
        """An HDF5 file whose first group has conformations."""
        if not head.startswith(MAGIC) or path.is_dir():
            return None
        import h5py

        try:
            with h5py.File(path, "r") as file:
                first = next(iter(file), None)
                found = first is not None and isinstance(file[first], h5py.Group) and "conformations" in file[first]
        except (OSError, RuntimeError, KeyError, ValueError):
            return None
        return f"an HDF5 file whose first group {first!r} has conformations, as SPICE's have" if found else None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the conformations, group by group in the order of their names.

        options: ``keys`` (energy), ``units`` (energy, forces, positions), ``notes``. Ids are ``group-index``, the
        material is the molecule, ``spice/group``.
        """
        import h5py

        meaning = _Meaning(path, options)
        done = "its start"
        try:
            with h5py.File(path, "r") as file:
                for name in file:
                    yield from _group(name, file, meaning)
                    done = f"the group {name!r}"
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise IngestError(
                f"{path}: HDF5 cannot read on after {done} ({error}); the file is cut or damaged: fetch it again and "
                "repeat the command, which skips what it has"
            ) from error


class _Meaning:
    """What holds for the whole file: units, and which energy is the energy."""

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        keys = dict(options.get("keys", {}))
        for quantity, name in keys.items():
            if quantity != "energy" or name not in _ENERGIES:
                raise ConfigError(
                    f"--key {quantity}={name}: spice knows --key energy={_ENERGIES[0]} or energy={_ENERGIES[1]}."
                    f"{did_you_mean(name, _ENERGIES)}"
                )
        self.path = path
        self.options = options
        self.energy: str = keys.get("energy", _ENERGIES[0])
        self.declared = checked_units(options.get("units", {}))
        self.method = _formation_method() if self.energy == "formation_energy" else None

    def unit(self, data: Any, name: str) -> str:
        """The unit of a data set; IngestError where it is unknown, missing and not declared, or declared another."""
        dimension = _DIMENSION[name]
        stated, declared = data.attrs.get("units"), self.declared.get(dimension)
        if stated is None and declared is not None:
            return declared
        word = stated.decode() if isinstance(stated, bytes) else stated
        unit = canonical(word) if isinstance(word, str) else None
        if unit is None or unit not in DIMENSIONS[dimension]:
            said = (
                "has no attribute units" if stated is None else f"is in {word!r}, which is no known unit of {dimension}"
            )
            raise IngestError(
                f"{self.path}: {data.name} {said}; correct the attribute, or where it is missing pass "
                f"--unit {dimension}=… ({', '.join(DIMENSIONS[dimension])})"
            )
        if declared not in (None, unit):
            raise IngestError(
                f"{self.path}: {data.name} says that it is in {word!r} and --unit {dimension}={declared} says "
                "otherwise; the file is trusted: leave the option out, or correct the attribute"
            )
        return unit


@dataclass(frozen=True, eq=False)
class _Molecule:
    """What the conformations of a group share."""

    name: str
    numbers: Int64[np.ndarray, " atoms"]
    charge: float | None
    tags: dict[str, str]


def _group(name: str, file: Any, meaning: _Meaning) -> Iterator[Frame | Rejected]:
    location = f"group {name}"
    try:
        group = file[name]
        molecule = _molecule(name, group)
        count = group["conformations"].shape[0]
        for start in range(0, count, BLOCK):
            yield from _block(molecule, group, start, meaning)
    except GroupError as error:
        yield Rejected(key=name, location=location, reason=str(error))
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = f"the group does not have SPICE's layout ({type(error).__name__}: {error})"
        yield Rejected(key=name, location=location, reason=reason)


def _molecule(name: str, group: Any) -> _Molecule:
    present = set(group)
    if "conformations" not in present or group["conformations"].ndim != 3:
        raise GroupError(f"there are no conformations (count, atoms, 3); the group has {', '.join(sorted(present))}")
    smiles, subset = _text(group, "smiles"), _text(group, "subset")
    listed = numbered_elements(smiles) if smiles else None
    if "atomic_numbers" in present:
        numbers = np.asarray(group["atomic_numbers"][()], dtype=np.int64)
        if listed is not None and sorted(listed) != sorted(numbers.tolist()):
            raise GroupError(f"atomic_numbers do not have the elements of the SMILES {smiles!r}")
    elif listed is not None:
        numbers = np.array(listed, dtype=np.int64)
    else:
        raise GroupError(f"there are no atomic_numbers, and the SMILES {smiles!r} does not number every atom")
    atoms = group["conformations"].shape[1]
    if len(numbers) != atoms:
        raise GroupError(f"the conformations have {atoms} atoms, the elements are {len(numbers)}")
    tags = {key: value for key, value in (("subset", subset), ("smiles", smiles)) if value}
    return _Molecule(name, numbers, float(formal_charge(smiles)) if smiles else None, tags)


def _block(molecule: _Molecule, group: Any, start: int, meaning: _Meaning) -> Iterator[Frame | Rejected]:
    """Some conformations of a group, read together."""
    places = _read(group, "conformations", start, meaning)
    if places is None:
        return
    energies = {name: _read(group, name, start, meaning) for name in _ENERGIES}
    if energies["formation_energy"] is not None and energies[meaning.energy] is None:
        note(
            meaning.options,
            "there is no dft_total_energy; the formation_energy is kept as a property. --key energy=formation_energy "
            "takes it as the energy, under a method of its own",
        )
    gradient = _read(group, "dft_total_gradient", start, meaning)
    for offset, positions in enumerate(places):
        index = start + offset
        key = f"{molecule.name}-{index}"
        location = f"group {molecule.name}, conformation {index}"
        try:
            structure = make_structure(molecule.numbers, positions, charge=molecule.charge)
        except MlipdbError as error:
            yield Rejected(key=key, location=location, reason=str(error))
            continue
        label = _label(
            {name: float(values[offset]) for name, values in energies.items() if values is not None},
            None if gradient is None else gradient[offset],
            meaning,
        )
        yield Frame(
            structure=structure,
            label=label,
            external_id=key,
            material=f"spice/{molecule.name}",
            location=location,
            tags=molecule.tags,
        )


def _label(
    energies: Mapping[str, float], gradient: Float64[np.ndarray, "atoms 3"] | None, meaning: _Meaning
) -> Label | None:
    if not energies and gradient is None:
        return None
    return Label(
        energy_uncorrected=energies.get(meaning.energy),
        forces=None if gradient is None else -gradient,
        properties={name: value for name, value in energies.items() if name != meaning.energy},
        method=meaning.method,
    )


def _read(group: Any, name: str, start: int, meaning: _Meaning) -> Float64[np.ndarray, "..."] | None:
    """Part of a data set in mlipdb's units, None where the group has none of that name."""
    if name not in group:
        return None
    data = group[name]
    if data.shape[0] != group["conformations"].shape[0]:
        raise GroupError(f"{name} has {data.shape[0]} entries for {group['conformations'].shape[0]} conformations")
    if name == "dft_total_gradient" and data.shape != group["conformations"].shape:
        raise GroupError(f"{name} has the shape {data.shape}, the conformations {group['conformations'].shape}")
    return to_internal(np.asarray(data[start : start + BLOCK], dtype=np.float64), meaning.unit(data, name))


def _text(group: Any, name: str) -> str | None:
    if name not in group:
        return None
    value = np.asarray(group[name][()]).ravel()
    if not value.size:
        return None
    first = value[0]
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)


@lru_cache(maxsize=1)
def _formation_method() -> Method:
    """The same theory, with the energies of isolated atoms taken off."""
    settings = {"basis": BASIS, "energy": "formation energy: isolated atoms subtracted"}
    return Method(kind="dft", name=f"SPICE ωB97M-D3(BJ)/{BASIS}, formation energies", settings=settings, **THEORY)
