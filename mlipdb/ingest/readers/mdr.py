"""MDR phonons: a ``.yaml.bz2`` a material with displacements, forces and force constants; and phonondb tarballs."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import ConfigError, IngestError
from mlipdb.ingest.declared import refuse_units
from mlipdb.ingest.phonons.calculation import (
    MATERIAL,
    PhononError,
    Phonons,
    displaced_supercells,
    full_hessian,
    load_yaml,
    phonopy_of,
    plain_bytes,
    taken_or_rejected,
    unit_factors,
    with_tags,
)
from mlipdb.ingest.phonons.tar import is_phonon_tar, tar_phonons
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.labels import Method

_SECTION = re.compile(rb"^([A-Za-z_]+):", re.MULTILINE)
_NEEDED = (b"displacements", b"supercell", b"supercell_matrix", b"unit_cell")
_TAKEN = (*_NEEDED, b"phonopy", b"energy", b"primitive_matrix", b"space_group", b"nsites", b"volume")


class MdrReader:
    """A material a file, in eV, Å, eV/Å, eV/Å²: the perfect supercell with its Hessian, then the displaced ones.

    The file's energy is per unit cell; the supercell's is that times the determinant of supercell_matrix. Tarballs of
    phonondb are read too, their Hessians made by phonopy from the forces, under PBEsol.
    """

    name: ClassVar[str] = "mdr"
    suffixes: ClassVar[tuple[str, ...]] = (".yaml.bz2", ".yaml", ".tar", ".tar.lzma")
    default_method: ClassVar[Method] = Method(kind="dft", name="MDR PBE/VASP", code="VASP", functional="PBE")

    def claims(self, path: Path, head: bytes) -> str | None:
        """YAML that begins with displacements and their forces, or a tar of phonondb."""
        if path.is_dir():
            return None
        if head.startswith(b"displacements:") and b"forces:" in head:
            return "YAML that begins with displacements and forces, as MDR's phonons do"
        packed = ".lzma" in path.suffixes and path.name.startswith("materials-id-")
        return "a tar of phonondb calculations" if packed or is_phonon_tar(head) else None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the frames of one file.

        options: ``keys``: ``split``, the path of a JSON {split: [mp-ids]} whose names become the tag split, and
        ``hessian=no``. ``file`` is the file's name in its source.
        """
        refuse_units(options.get("units", {}), "MDR's phonons")
        keys = _checked_keys(options.get("keys", {}))
        splits = _splits(keys["split"]) if "split" in keys else {}
        hessian = keys.get("hessian") != "no"
        for found in _calculations(path, options, hessian=hessian):
            if isinstance(found, Rejected):
                yield found
                continue
            split = splits.get(found.material)
            yield from (with_tags(found, split=split) if split else found).frames()


def _checked_keys(keys: Mapping[str, str]) -> dict[str, str]:
    wrong = next((name for name in keys if name not in ("split", "hessian")), None)
    if wrong is not None or keys.get("hessian", "all") not in ("all", "no"):
        raise ConfigError(
            "mdr knows --key split=PATH (a JSON of mp-ids by split) and --key hessian=no, not "
            + ", ".join(f"{name}={value}" for name, value in keys.items())
        )
    return dict(keys)


@lru_cache(maxsize=4)
def _splits(path: str) -> dict[str, str]:
    """The split of each material, from {split: [material, …]}; ConfigError where the file is another one."""
    try:
        found = json.loads(Path(path).read_bytes())
        return {str(material): str(split) for split, materials in found.items() for material in materials}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"--key split={path}: cannot be read as {{split: [mp-id, …]}} ({error}); give the path of such a JSON file"
        ) from error


def _calculations(path: Path, options: Mapping[str, Any], *, hessian: bool) -> Iterator[Phonons | Rejected]:
    if _is_tar(path):
        yield from tar_phonons(path, hessian=hessian)
        return
    name = _name(str(options.get("file") or path.name))
    text = plain_bytes(path, options.get("digest"))
    take = partial(_read, text, str(path), name, hessian=hessian)
    wrong = "the file does not have MDR's layout"
    yield taken_or_rejected(take, name=name, location="the whole file", wrong=wrong)


def _is_tar(path: Path) -> bool:
    return ".tar" in path.suffixes or path.name.endswith((".tgz", ".txz"))


def _name(file: str) -> str:
    match = MATERIAL.search(Path(file).name)
    return match[0] if match else Path(file).name.split(".")[0]


def _read(text: bytes, where: str, name: str, *, hessian: bool) -> Phonons:
    from phonopy.interface.phonopy_yaml import load_phonopy_yaml

    sections = _sections(text)
    missing = [section.decode() for section in _NEEDED if section not in sections]
    if missing:
        raise IngestError(f"{where}: there is no {', '.join(missing)}; the file was cut: fetch the whole file again")
    raw = load_yaml(b"".join(sections[name] for name in _TAKEN if name in sections), where)
    data = load_phonopy_yaml(raw)
    phonon = phonopy_of(data)
    supercell = data.supercell
    if supercell is None or len(supercell) != len(phonon.supercell):
        raise PhononError(f"the supercell is not that of supercell_matrix, which has {len(phonon.supercell)} atoms")
    constants = None
    if hessian and b"force_constants" in sections:
        constants = full_hessian(phonon, _force_constants(sections[b"force_constants"], where))
    units = unit_factors(data.calculator)
    energy = raw.get("energy")
    cells = abs(round(float(np.linalg.det(np.asarray(raw["supercell_matrix"], dtype=np.float64)))))
    known = isinstance(energy, int | float) and math.isfinite(energy)
    return Phonons(
        name=name,
        material=name if MATERIAL.fullmatch(name) else f"mdr/{name}",
        location="the file",
        atomic_numbers=np.asarray(supercell.numbers, dtype=np.int64),
        positions=np.asarray(supercell.positions),
        cell=np.asarray(supercell.cell),
        displaced=displaced_supercells(data.dataset or {}, units=units),
        hessian=constants,
        energy=float(energy) * cells if known and energy is not None else None,
    )


def _sections(text: bytes) -> dict[bytes, bytes]:
    """The top-level sections of a YAML file; most of it is results that are not needed and slow to parse."""
    starts = [(match[1], match.start()) for match in _SECTION.finditer(text)]
    ends = [*(start for _, start in starts[1:]), len(text)]
    return {name: text[start:end] for (name, start), end in zip(starts, ends, strict=True)}


def _force_constants(section: bytes, where: str) -> Float64[np.ndarray, "first atoms 3 3"]:
    """The numbers of ``force_constants: {elements, format, shape}`` without a YAML parser: ten times faster."""
    shape_at = section.find(b"shape:")
    head, tail = section[:shape_at], section[shape_at + len(b"shape:") :]
    try:
        if shape_at < 0:
            raise ValueError("no shape")
        shape = [int(word) for word in re.findall(rb"\d+", tail.split(b"elements:")[0])]
        body = tail.split(b"elements:")[1] if b"elements:" in tail else head.split(b"elements:")[1].split(b"format:")[0]
        words = [word for word in re.split(rb"[\s,\[\]]+", re.sub(rb"#.*", b"", body)) if word not in (b"", b"-")]
        return np.array(words, dtype=np.float64).reshape(shape[0], shape[1], 3, 3)
    except (IndexError, ValueError) as error:
        raise IngestError(
            f"{where}: force_constants are not elements of a shape ({error}); the file was cut: fetch it again"
        ) from error
