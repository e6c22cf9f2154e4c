"""phonopy: phonopy_disp.yaml, phonopy.yaml or phonopy_params.yaml with FORCE_SETS or force constants beside it."""

from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import ConfigError, IngestError
from mlipdb.ingest.declared import refuse_units
from mlipdb.ingest.notes import note
from mlipdb.ingest.phonons.calculation import (
    MATERIAL,
    PHONOPY_ERRORS,
    PhononError,
    Phonons,
    displaced_supercells,
    full_hessian,
    in_words,
    load_yaml,
    phonopy_of,
    plain_bytes,
    produced_hessian,
    taken_or_rejected,
    unit_factors,
)
from mlipdb.ingest.phonons.text import parse_force_constants, parse_force_sets
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.labels import Method

if TYPE_CHECKING:
    from phonopy import Phonopy
    from phonopy.interface.phonopy_yaml import PhonopyYamlData

_PACKED = ("", ".gz", ".bz2", ".xz", ".lzma")
_NAMES = ("phonopy_params.yaml", "phonopy_disp.yaml", "phonopy.yaml")  # the first in a folder is the one to read


class PhonopyReader:
    """One calculation a folder: displaced supercells with forces, and the perfect one with its whole Hessian.

    Units are those of the calculator that the file names (VASP's without one). Force constants are taken where there
    are some, else made by phonopy from the forces; ``--key hessian=no`` leaves them out, ``hessian=given`` makes none.
    """

    name: ClassVar[str] = "phonopy"
    suffixes: ClassVar[tuple[str, ...]] = tuple(f".yaml{packed}" for packed in _PACKED)

    def claims(self, path: Path, head: bytes) -> str | None:
        """A YAML file that begins as phonopy's do, and is the one to read of its folder."""
        if path.is_dir() or not head.lstrip().startswith(b"phonopy:"):
            return None
        if b"unit_cell:" not in head and b"supercell_matrix:" not in head:
            return None
        first = _first_of(path.parent)
        if first is not None and _plain(path.name) in _NAMES and first.name != path.name:
            return None
        return "a YAML file that begins with phonopy's header and has a supercell matrix"

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the frames of one calculation; path is its YAML file or its folder.

        options: ``keys`` (hessian: all, given or no; material), ``file``, ``source``, ``notes``.
        """
        refuse_units(options.get("units", {}), "phonopy, which its calculator sets,")
        keys = _checked_keys(options.get("keys", {}))
        file = _first_of(path) if path.is_dir() else path
        if file is None:
            raise IngestError(f"{path}: none of {', '.join(_NAMES)} is in this folder; name the YAML file itself")
        name, material = _names(file, keys, options)
        take = partial(_read, file, keys.get("hessian", "all"), options, name=name, material=material)
        wrong = "phonopy cannot work with the file"
        found = taken_or_rejected(take, name=name, location="the calculation", wrong=wrong)
        yield from [found] if isinstance(found, Rejected) else found.frames()


def _checked_keys(keys: Mapping[str, str]) -> dict[str, str]:
    wrong = next((name for name in keys if name not in ("hessian", "material")), None)
    if wrong is not None or keys.get("hessian", "all") not in ("all", "given", "no"):
        raise ConfigError(
            "phonopy knows --key hessian=all (the default), hessian=given, hessian=no and material=NAME, not "
            + ", ".join(f"{name}={value}" for name, value in keys.items())
        )
    return dict(keys)


def _names(file: Path, keys: Mapping[str, str], options: Mapping[str, Any]) -> tuple[str, str]:
    """A name for the frames' ids and the material, from the path inside the source: ids of it, else the folder."""
    inside = Path(str(options.get("file") or file.name))
    folder = inside.parent.as_posix()
    name = folder if folder not in (".", "") else file.resolve().parent.name
    if _plain(inside.name) not in _NAMES:
        own = _plain(inside.name).removesuffix(".yaml")
        name = own if folder in (".", "") else f"{folder}/{own}"
    match = MATERIAL.search(inside.as_posix()) or MATERIAL.search(name)
    source = str(options.get("source") or "phonopy")
    return name, keys.get("material") or (match[0] if match else f"{source}/{name}")


def _read(file: Path, hessian: str, options: Mapping[str, Any], *, name: str, material: str) -> Phonons:
    from phonopy.interface.phonopy_yaml import load_phonopy_yaml

    raw = load_yaml(plain_bytes(file, options.get("digest")), str(file))
    try:
        data = load_phonopy_yaml(raw)
        phonon = phonopy_of(data)
    except PHONOPY_ERRORS as error:
        raise IngestError(
            f"{file}: phonopy does not understand it ({in_words(error)}); it was cut or edited: fetch or "
            "make the whole file again"
        ) from error
    _check_supercell(file, phonon, data)
    units = unit_factors(data.calculator)
    dataset = _dataset(file, data, atoms=len(phonon.supercell))
    displaced = displaced_supercells(dataset or {}, units=units)
    found = None if hessian == "no" else _given_constants(file, data, phonon)
    if found is None and hessian == "all" and displaced and dataset is not None:
        found = _made_constants(file, phonon, dataset, options)
    if found is None and not displaced:
        raise PhononError(
            f"neither forces nor force constants: {file.name} has none and no FORCE_SETS, FORCE_CONSTANTS or "
            "force_constants.hdf5 lies beside it; make FORCE_SETS with `phonopy -f` from the calculator's output"
        )
    if _beside(file, "BORN") is not None or data.nac_params is not None:
        note(options, "Born charges and dielectric constants (BORN, nac) were not taken: mlipdb has no place for them")
    return Phonons(
        name=name,
        material=material,
        location="the calculation",
        atomic_numbers=np.asarray(phonon.supercell.numbers, dtype=np.int64),
        positions=np.asarray(phonon.supercell.positions) * units["length"],
        cell=np.asarray(phonon.supercell.cell) * units["length"],
        displaced=displaced,
        hessian=None if found is None else found * units["hessian"],
        method=_method(data.calculator),
    )


def _made_constants(
    file: Path, phonon: "Phonopy", dataset: Mapping[str, Any], options: Mapping[str, Any]
) -> Float64[np.ndarray, "atoms atoms 3 3"] | None:
    """Force constants by phonopy; None with a note where it needs more than it has, as for random displacements."""
    try:
        return produced_hessian(phonon, dataset)
    except RuntimeError as error:  # ForceCalculatorRequiredError of phonopy 3
        note(
            options,
            f"{options.get('file') or file.name}: phonopy made no force constants ({in_words(error)}); the displaced "
            "supercells were taken without a Hessian",
        )
        return None


def _check_supercell(file: Path, phonon: "Phonopy", data: "PhonopyYamlData") -> None:
    """The supercell of the file must be the one that phonopy makes, atom by atom: forces are in its order."""
    stored = data.supercell
    if stored is None:
        return
    made = phonon.supercell
    if len(stored) != len(made):
        raise IngestError(
            f"{file}: its supercell has {len(stored)} atoms, its matrix makes {len(made)}; it was cut or edited: fetch "
            "or make the whole file again"
        )
    apart = stored.scaled_positions - made.scaled_positions
    same = np.array_equal(stored.numbers, made.numbers) and np.allclose(apart, np.round(apart), atol=1e-5)
    if not same:
        raise PhononError(
            "the file's supercell has its atoms in another order than phonopy's; forces would be mixed up"
        )


def _dataset(file: Path, data: "PhonopyYamlData", *, atoms: int) -> dict[str, Any] | None:
    """Displacements with forces: those in the YAML, else FORCE_SETS, which must be of the same displacements."""
    stored: Mapping[str, Any] = data.dataset or {}
    if not stored and _plain(file.name).endswith("phonopy_disp.yaml"):
        raise IngestError(f"{file}: there are no displacements; the file was cut: fetch or make it again")
    if any("forces" in first for first in stored.get("first_atoms", ())) or "forces" in stored:
        return dict(stored)
    beside = _beside(file, "FORCE_SETS")
    if beside is None:
        return None
    found = parse_force_sets(plain_bytes(beside), str(beside), atoms=atoms)
    planned, done = stored.get("first_atoms"), found.get("first_atoms")
    if planned and done:
        if len(planned) != len(done):
            raise IngestError(
                f"{beside}: {len(done)} sets of forces for {len(planned)} displacements of {file.name}; one of "
                "them was cut or is of another run: make it again"
            )
        for number, (plan, one) in enumerate(zip(planned, done, strict=True), start=1):
            near = np.allclose(plan["displacement"], one["displacement"], atol=1e-4)
            if plan["number"] != one["number"] or not near:
                raise PhononError(f"displacement {number} of FORCE_SETS is not that of {file.name}")
    return found


def _given_constants(
    file: Path, data: "PhonopyYamlData", phonon: "Phonopy"
) -> Float64[np.ndarray, "atoms atoms 3 3"] | None:
    """Force constants of the YAML, of FORCE_CONSTANTS or of force_constants.hdf5, in the calculator's unit."""
    if data.force_constants is not None:
        return full_hessian(phonon, np.asarray(data.force_constants))
    text = _beside(file, "FORCE_CONSTANTS")
    if text is not None:
        return full_hessian(phonon, parse_force_constants(plain_bytes(text), str(text)))
    stored = file.parent / "force_constants.hdf5"
    return full_hessian(phonon, _hdf5_constants(stored)) if stored.is_file() else None


def _hdf5_constants(path: Path) -> Float64[np.ndarray, "first atoms 3 3"]:
    import h5py

    try:
        with h5py.File(path, "r") as stored:
            name = next((name for name in ("force_constants", "fc2") if name in stored), None)
            if name is None:
                raise PhononError(f"{path.name} holds {', '.join(stored)}; expected force_constants")
            return np.asarray(stored[name][()], dtype=np.float64)
    except OSError as error:
        raise IngestError(f"{path}: HDF5 cannot read it ({error}); it was cut: fetch or make it again") from error


def _first_of(folder: Path) -> Path | None:
    """The YAML file to read of a folder."""
    files = (folder / f"{name}{packed}" for name in _NAMES for packed in _PACKED)
    return next((file for file in files if file.is_file()), None)


def _beside(file: Path, name: str) -> Path | None:
    files = (file.parent / f"{name}{packed}" for packed in _PACKED)
    return next((found for found in files if found.is_file()), None)


def _plain(name: str) -> str:
    """A file's name without the suffix of its packing."""
    for packed in _PACKED[1:]:
        name = name.removesuffix(packed)
    return name


@lru_cache(maxsize=16)
def _method(calculator: str | None) -> Method | None:
    """The code that phonopy names; it does not know the functional."""
    return None if calculator is None else Method(kind="dft", name=f"phonopy {calculator}", code=calculator)
