"""The level of theory that the settings of a VASP run name."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlipdb.labels import Method
from mlipdb.units import convert

# INCAR's GGA, and LEXCH of the POTCAR where INCAR has none (https://www.vasp.at/wiki/index.php/GGA).
GGA_NAMES = {
    "PE": "PBE", "PS": "PBEsol", "RP": "RPBE", "RE": "revPBE", "AM": "AM05", "91": "PW91", "CA": "LDA", "PZ": "LDA",
    "PB": "PB", "B3": "B3LYP", "B5": "B3LYP", "BF": "BEEF", "OR": "optPBE", "BO": "optB88", "MK": "optB86b",
    "ML": "rPW86", "CX": "cx13",
}  # fmt: skip
VDW_DF_NAMES = {
    "RE": "vdW-DF", "OR": "optPBE-vdW", "BO": "optB88-vdW", "MK": "optB86b-vdW", "ML": "vdW-DF2", "BF": "BEEF-vdW",
    "CX": "vdW-DF-cx",
}  # fmt: skip
METAGGA_NAMES = {
    "SCAN": "SCAN", "R2SCAN": "r2SCAN", "RSCAN": "rSCAN", "TPSS": "TPSS", "RTPSS": "revTPSS", "M06L": "M06-L",
    "MBJ": "MBJ", "MS0": "MS0", "MS1": "MS1", "MS2": "MS2", "SCANL": "SCAN-L", "R2SCANL": "r2SCAN-L", "OFR2": "OFR2",
}  # fmt: skip
# https://www.vasp.at/wiki/index.php/IVDW
IVDW_NAMES = {
    1: "D2", 10: "D2", 11: "D3", 12: "D3(BJ)", 13: "D4", 15: "sDFT-D3", 2: "TS", 20: "TS", 21: "TS/HI", 202: "MBD",
    263: "MBD/FI", 3: "ULG", 4: "dDsC",
}  # fmt: skip
POTCAR_FAMILIES = {"PAW_PBE": "PE", "PAW_GGA": "91", "PAW_LDA": "CA", "PAW": "CA"}
UNEXPLAINED = 1e-4  # eV an atom between the last electronic step and the ionic step: a dispersion correction
UNKNOWN = ("", "--", "F", "NONE")


def functional(settings: Mapping[str, Any]) -> str | None:
    """``PBE``, ``PBE+U``, ``r2SCAN``, ``PBE+D3(BJ)``, ``HSE06``, …; None where the settings do not say.

    settings are INCAR tags with VASP's defaults; LEXCH is the POTCAR's functional (``PE``), which GGA replaces.
    """
    code = _word(settings.get("GGA"))
    code = code if code not in UNKNOWN else _word(settings.get("LEXCH"))
    meta = _word(settings.get("METAGGA"))
    nonlocal_vdw = flag(settings.get("LUSE_VDW"))
    if meta in UNKNOWN:
        base = (VDW_DF_NAMES if nonlocal_vdw else GGA_NAMES).get(code)
        base = base or (GGA_NAMES.get(code) and f"{GGA_NAMES[code]}+vdW-DF")
    else:
        base = METAGGA_NAMES.get(meta, meta) + ("+rVV10" if nonlocal_vdw else "")
    if base is None:
        return None
    if flag(settings.get("LHFCALC")):
        base = _hybrid(base, settings)
    return base + _dispersion(settings) + ("+U" if has_hubbard(settings) else "") + _spins(settings)


def vasp_method(settings: Mapping[str, Any]) -> Method | None:
    """The method of a run; None where its functional is not known, so that the source's own method stands."""
    name = functional(settings)
    return None if name is None else Method(kind="dft", name=f"{name}/VASP", code="VASP", functional=name)


def run_method(settings: Mapping[str, Any], titles: Sequence[str], *, beyond: float) -> Method | None:
    """The method of a run whose POTCARs have these titles (``PAW_PBE Zr_sv 04Jan2005``).

    beyond is what the energy holds beyond the electronic one, in eV an atom: a dispersion correction that no setting
    names (VASP does not write all of them) is said so.
    """
    family = next((title.split()[0] for title in titles if title.split()), "")
    method = vasp_method({"LEXCH": POTCAR_FAMILIES.get(family), **settings})
    if method is None or has_dispersion(settings) or abs(beyond) <= UNEXPLAINED:
        return method
    name = f"{method.functional}+dispersion"
    return Method(kind="dft", name=f"{name}/VASP", code="VASP", functional=name)


def without_pv(free: float, *, electronic: float, settings: Mapping[str, Any], volume: float) -> float:
    """F of an ionic step in eV without the PV of PSTRESS, which vasprun.xml adds and OUTCAR does not.

    electronic is F of the last electronic step, which never holds PV; volume is in Å³.
    """
    pressure = (numbers(settings.get("PSTRESS")) or [0.0])[0]
    work = convert(pressure, "kbar") * volume
    holds_it = abs(free - work - electronic) <= abs(free - electronic)
    return free - work if holds_it or has_dispersion(settings) else free


def has_dispersion(settings: Mapping[str, Any]) -> bool:
    """Whether a setting names a dispersion correction that is added behind the electronic steps."""
    return (numbers(settings.get("IVDW")) or [0.0])[0] != 0 or flag(settings.get("LVDW"))


def not_a_ground_state(settings: Mapping[str, Any]) -> str | None:
    """Why a run's energies and forces are not those of its structures; None where they are."""
    icharg, ibrion = ((numbers(settings.get(name)) or [-1.0])[0] for name in ("ICHARG", "IBRION"))
    if icharg >= 10:
        return f"ICHARG = {icharg:g}: the run was not self-consistent"
    if flag(settings.get("LEPSILON")) or ibrion in (7, 8):
        return "a linear-response run (LEPSILON, or IBRION 7 or 8) gives no plain energy and forces"
    return None


def has_hubbard(settings: Mapping[str, Any]) -> bool:
    """Whether +U is switched on with a U or J that is not zero."""
    if not flag(settings.get("LDAU")):
        return False
    values = [*numbers(settings.get("LDAUU")), *numbers(settings.get("LDAUJ"))]
    return not values or any(value != 0 for value in values)


def is_noncollinear(settings: Mapping[str, Any]) -> bool:
    """Whether moments are vectors, of which a label has no place."""
    return flag(settings.get("LNONCOLLINEAR")) or flag(settings.get("LSORBIT"))


def _spins(settings: Mapping[str, Any]) -> str:
    if flag(settings.get("LSORBIT")):
        return "+SOC"
    return "+noncollinear" if is_noncollinear(settings) else ""


def _hybrid(base: str, settings: Mapping[str, Any]) -> str:
    if base == "B3LYP":
        return base
    exact = (numbers(settings.get("AEXX")) or [0.25])[0]
    screening = (numbers(settings.get("HFSCREEN")) or [0.0])[0]
    known = {(0.25, 0.2): "HSE06", (0.25, 0.3): "HSE03", (0.25, 0.0): "PBE0"}
    if base == "PBE" and (exact, round(screening, 1)) in known:
        return known[exact, round(screening, 1)]
    if base == "PBEsol" and (exact, round(screening, 1)) == (0.25, 0.2):
        return "HSEsol"
    return f"{base} hybrid (AEXX {exact:g}, HFSCREEN {screening:g})"


def _dispersion(settings: Mapping[str, Any]) -> str:
    kind = int((numbers(settings.get("IVDW")) or [0])[0])
    if kind:
        return "+" + IVDW_NAMES.get(kind, f"IVDW{kind}")
    return "+D2" if flag(settings.get("LVDW")) else ""


def _word(value: Any) -> str:
    return str(value if value is not None else "").strip().upper()


def flag(value: Any) -> bool:
    """A logical as INCAR, vasprun.xml and JSON write it."""
    return value is True or _word(value).strip(".")[:1] == "T"


def numbers(value: Any) -> list[float]:
    """The finite numbers of a setting, whether text, number or list; those before the first word that is none."""
    words = value if isinstance(value, list | tuple) else str(value if value is not None else "").split()
    found = []
    for word in words:
        try:
            number = float(word)
        except (OverflowError, TypeError, ValueError):
            break
        if not math.isfinite(number):
            break
        found.append(number)
    return found
