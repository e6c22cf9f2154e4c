"""What VASP runs have in common: elements by their pseudopotentials, and what a run and its material are called."""

import re
from collections.abc import Mapping, Sequence

from mlipdb.errors import ConfigError, MlipdbError
from mlipdb.structures import ATOMIC_NUMBERS, reduced_formula

# Steps of one workflow on one material: they are dropped from a material's name.
_STEP_WORD = re.compile(
    r"(relax|relaxation|opt|geo_?opt|static|scf|scan|md|aimd|nvt|npt|disp|displacement|phonon|run|step|calc|vasp|"
    r"double_relax|isif\d)[-_.]?\d*",
    re.IGNORECASE,
)
_PACKED = re.compile(r"\.(gz|bz2|xz|zst)$")


class RunError(MlipdbError):
    """A step of a run that cannot be taken; it goes to quarantine."""


def element_of(symbol: str, title: str = "") -> int:
    """Atomic number of an atom by its symbol, checked against the POTCAR's title (``PAW_PBE Zr_sv 04Jan2005``).

    Raises RunError where they name two elements or none.
    """
    words = title.split()
    stated = next((w.partition("_")[0].partition(".")[0] for w in words if _is_element(w)), "")
    symbol = symbol.strip()
    if symbol in ATOMIC_NUMBERS and stated in ("", symbol):
        return ATOMIC_NUMBERS[symbol]
    if stated and symbol not in ATOMIC_NUMBERS:  # VASP 4 and 5 cut some symbols: "r" for Zr
        return ATOMIC_NUMBERS[stated]
    raise RunError(f"an atom is called {symbol!r} but its pseudopotential {title.strip()!r}; the order of ions is lost")


def _is_element(word: str) -> bool:
    return word.partition("_")[0].partition(".")[0] in ATOMIC_NUMBERS


def run_name(file: str, kind: str) -> str:
    """What a run is called: its folder, and what the file's name holds beyond its kind (vasprun.xml or OUTCAR).

    ``a/b/vasprun.xml.gz`` is ``a/b``, ``a/vasprun.relax2.xml`` is ``a/relax2``, ``OUTCAR_7`` is ``7``.
    """
    folder, _, name = _PACKED.sub("", file).rpartition("/")
    rest = re.sub(rf"{kind}|\.xml", "", name, flags=re.IGNORECASE).strip("._- ")
    return "/".join(part for part in (folder, rest) if part) or kind


def material_of(run: str, atomic_numbers: Sequence[int], *, source: str, rule: str) -> str:
    """The material of a run: its folder without words such as relax2, and its formula; by rule one of the two.

    The steps of a workflow on one structure thus are one material.
    """
    if rule == "folder":
        return f"{source}/{run}"
    counts: dict[int, int] = {}
    for number in atomic_numbers:
        counts[number] = counts.get(number, 0) + 1
    formula = reduced_formula(dict(sorted(counts.items())))
    parts = [part for part in run.split("/") if not _STEP_WORD.fullmatch(part) and part not in ("vasprun", "OUTCAR")]
    return "/".join([source, *([] if rule == "formula" else parts), formula])


def material_rule(keys: Mapping[str, str]) -> str:
    """--key material=formula, folder or both; ConfigError for anything else."""
    for name, value in keys.items():
        if name != "material" or value not in ("both", "formula", "folder"):
            raise ConfigError(
                f"--key {name}={value}: VASP files name their quantities themselves; the only key is material=folder, "
                "material=formula or material=both (frames of which belong together when data are split)"
            )
    return keys.get("material", "both")
