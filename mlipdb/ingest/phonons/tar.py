"""Kyoto phonondb: one tarball a material (POSCAR-unitcell, phonopy.conf, disp.yaml, FORCE_SETS), or a tar of them."""

import io
import lzma
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlipdb.errors import IngestError, MlipdbError
from mlipdb.ingest.phonons.calculation import (
    MATERIAL,
    PHONOPY_ERRORS,
    PhononError,
    Phonons,
    displaced_supercells,
    in_words,
    make_phonopy,
    produced_hessian,
    unit_factors,
)
from mlipdb.ingest.phonons.text import parse_force_sets
from mlipdb.ingest.reader import Rejected
from mlipdb.labels import Method

PACKED = re.compile(r".*\.tar(\.(lzma|xz|gz|bz2))?")
FILES = ("POSCAR-unitcell", "phonopy.conf", "FORCE_SETS")
METHOD = Method(kind="dft", name="phonondb PBEsol/VASP", code="VASP", functional="PBEsol")


def is_phonon_tar(head: bytes) -> bool:
    """Whether the first plain bytes are a tar that begins with a phonondb tarball, or with the folder of one."""
    if head[257:262] != b"ustar":
        return False
    name = head[:100].split(b"\0", 1)[0]
    inside = any(file.encode() in head for file in FILES)
    return bool(re.match(rb"(.*/)?materials-id-.*\.tar", name)) or (inside and bool(re.match(rb"mp-\d+-\d{8}/", name)))


def tar_phonons(path: Path, *, hessian: bool) -> Iterator[Phonons | Rejected]:
    """The calculations of a tar in its order, one material in memory at a time.

    A member that cannot be read is Rejected; IngestError where the outer file ends early.
    """
    count = 0
    try:
        with tarfile.open(path, "r:*") as outer:
            loose: dict[str, bytes] = {}
            for member in outer:
                count += 1
                stream = outer.extractfile(member) if member.isfile() else None
                if stream is None:
                    continue
                if PACKED.fullmatch(member.name):
                    yield _inner(member.name, stream.read(), hessian=hessian)
                elif Path(member.name).name in FILES:
                    loose[Path(member.name).name] = stream.read()
                    name = member.name.split("/")[0]
            if loose:
                yield _safe(name, loose, hessian=hessian)
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise IngestError(
            f"{path}: the tar cannot be read on after {count} members ({error}); it was cut: fetch the whole file again"
        ) from error


def _inner(name: str, data: bytes, *, hessian: bool) -> Phonons | Rejected:
    try:
        # Only a stream is unpacked: nothing is written to disk, whatever the names inside say.
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as inner:
            files = {}
            for member in inner:
                stream = inner.extractfile(member) if member.isfile() else None
                if stream is not None and Path(member.name).name in FILES:
                    files[Path(member.name).name] = stream.read()
                    name_inside = member.name.split("/")[0]
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        return Rejected(key=name, location=name, reason=f"the tarball is damaged ({error}); fetch it again")
    return _safe(name_inside if files else name, files, hessian=hessian)


def _safe(name: str, files: dict[str, bytes], *, hessian: bool) -> Phonons | Rejected:
    try:
        return _phonons(name, files, hessian=hessian)
    except MlipdbError as error:
        return Rejected(key=name, location=name, reason=str(error))
    except PHONOPY_ERRORS as error:
        reason = f"not phonondb's layout ({in_words(error)})"
        return Rejected(key=name, location=name, reason=reason)


def _phonons(name: str, files: dict[str, bytes], *, hessian: bool) -> Phonons:
    missing = [file for file in FILES if file not in files]
    if missing:
        raise PhononError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in the tarball")
    from phonopy.interface.vasp import read_vasp_from_strings

    unitcell = read_vasp_from_strings(files["POSCAR-unitcell"].decode())
    phonon = make_phonopy(unitcell, _matrix(files["phonopy.conf"]))
    supercell = phonon.supercell
    dataset = parse_force_sets(files["FORCE_SETS"], f"{name}/FORCE_SETS", atoms=len(supercell))
    match = MATERIAL.search(name)
    material = match[0] if match else name
    return Phonons(
        name=material,
        material=material,
        location=name,
        atomic_numbers=np.asarray(supercell.numbers, dtype=np.int64),
        positions=np.asarray(supercell.positions),
        cell=np.asarray(supercell.cell),
        displaced=displaced_supercells(dataset, units=unit_factors(None)),
        hessian=produced_hessian(phonon, dataset) if hessian else None,
        method=METHOD,
    )


def _matrix(conf: bytes) -> np.ndarray:
    """The supercell matrix of phonopy.conf: DIM with three or nine numbers."""
    match = re.search(rb"^\s*DIM\s*=\s*([-\d ]+)", conf, re.MULTILINE)
    numbers = [int(word) for word in match[1].split()] if match else []
    if len(numbers) not in (3, 9):
        raise PhononError(f"phonopy.conf has no DIM of three or nine numbers: {conf.decode(errors='replace')[:80]!r}")
    return np.diag(numbers) if len(numbers) == 3 else np.array(numbers).reshape(3, 3)
