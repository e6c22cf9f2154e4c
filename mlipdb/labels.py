"""A label: the quantities of one structure by one method, with the method that made them."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32

from mlipdb.errors import LabelError
from mlipdb.finite import all_finite

ENERGY_KINDS = ("energy_uncorrected", "energy_corrected", "free_energy", "energy_zero")


@dataclass(frozen=True, kw_only=True)
class Method:
    """Who made a label: a level of theory or a teacher. Equal settings are one method; its hash is its identity.

    kind is ``dft`` or ``teacher``; e0_convention says what a teacher's atomic energies contain (``e0 included`` or
    ``e0 excluded``) and which E0s; settings holds whatever else distinguishes two methods (functional, cutoffs).
    """

    kind: str
    name: str
    code: str | None = None
    functional: str | None = None
    weights_sha256: str | None = None
    package: str | None = None
    package_version: str | None = None
    dtype: str | None = None
    e0_convention: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def energy_kind(self) -> str | None:
        """The kind of energy that a teacher gives; None for DFT, which may give several."""
        return str(self.settings.get("energy_kind", ENERGY_KINDS[0])) if self.kind == "teacher" else None


@dataclass(frozen=True, eq=False, kw_only=True)
class Label:
    """Quantities of one structure by one method. None means that the method did not give it.

    Energies are totals in eV, one field a meaning: energy_uncorrected as the code or teacher gave it, energy_corrected
    after a scheme such as MP2020, free_energy F with the electronic entropy, energy_zero extrapolated to zero smearing.
    band_gap eV; forces eV/Å; stress eV/Å³, positive under tension, only for three periodic directions; magmoms µB;
    atomic_energies eV, with or without E0 as atomic_energies_include_e0 says. hessian_rows[k] is
    +d²E/dx_r dx in eV/Å² for r = hessian_row_numbers[k] = 3·atom + axis. properties holds scalars that have no field.
    """

    energy_uncorrected: float | None = None
    energy_corrected: float | None = None
    free_energy: float | None = None
    energy_zero: float | None = None
    band_gap: float | None = None
    forces: Float64[np.ndarray, "atoms 3"] | None = None
    stress: Float64[np.ndarray, "3 3"] | None = None
    magmoms: Float64[np.ndarray, " atoms"] | None = None
    atomic_energies: Float64[np.ndarray, " atoms"] | None = None
    atomic_energies_include_e0: bool | None = None
    hessian_row_numbers: Int32[np.ndarray, " rows"] | None = None
    hessian_rows: Float64[np.ndarray, "rows atoms 3"] | None = None
    properties: Mapping[str, float] = field(default_factory=dict)
    method: Method | None = None
    method_id: int | None = None

    @property
    def max_force(self) -> float | None:
        """Largest force length in eV/Å."""
        if self.forces is None:
            return None
        x, y, z = np.square(self.forces).T  # for so few numbers quicker than a sum over an axis
        return math.sqrt(np.maximum.reduce(x + y + z))

    @property
    def first_energy(self) -> tuple[str, float] | None:
        """The kind and the value in eV of its energy, the first of ENERGY_KINDS where there are several."""
        found = ((kind, getattr(self, kind)) for kind in ENERGY_KINDS)
        return next(((kind, value) for kind, value in found if value is not None), None)

    @cached_property
    def content_hash(self) -> bytes:
        """16 bytes of BLAKE2b over everything but the method."""
        parts: list[bytes] = []
        for name, value in zip(_CONTENT_NAMES, _content(self), strict=True):
            if value is None:
                continue
            parts += (name, value.tobytes() if isinstance(value, np.ndarray) else repr(_plain(value)).encode())
        return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


FIELDS = tuple(item.name for item in fields(Label))
CONTENT = tuple(name for name in FIELDS if name not in ("method", "method_id"))
_CONTENT_NAMES = tuple(map(str.encode, CONTENT))
_content = attrgetter(*CONTENT)

_NO_QUANTITIES = ("properties", "method", "method_id", "atomic_energies_include_e0")
ARRAYS = ("forces", "stress", "magmoms", "atomic_energies", "hessian_rows")


def present_arrays(label: Label) -> tuple[str, ...]:
    """Names of the arrays that the label has."""
    return tuple(name for name in ARRAYS if getattr(label, name) is not None)


def says_nothing(label: Label) -> bool:
    """Whether the label has no quantity at all: then there is nothing to store."""
    if label.forces is not None or label.energy_uncorrected is not None:
        return False
    known = (getattr(label, name) for name in FIELDS if name not in _NO_QUANTITIES)
    return not label.properties and all(value is None for value in known)


def check_label(label: Label, *, natoms: int, pbc: tuple[bool, bool, bool]) -> None:
    """Raise LabelError when an array does not fit the structure, a number is not finite, or a stress has no volume."""
    shapes = {"forces": (natoms, 3), "stress": (3, 3), "magmoms": (natoms,), "atomic_energies": (natoms,)}
    rows = label.hessian_row_numbers
    if rows is not None:
        shapes["hessian_rows"] = (len(rows), natoms, 3)
        if len(rows) and not (rows.min() >= 0 and rows.max() < 3 * natoms):
            raise LabelError(f"hessian_row_numbers {rows.tolist()} do not fit {natoms} atoms (0 to {3 * natoms - 1})")
    for name, shape in shapes.items():
        value = getattr(label, name)
        if value is not None and value.shape != shape:
            raise LabelError(f"{name} has shape {value.shape}; expected {shape} for {natoms} atoms")
    if label.stress is not None and not all(pbc):
        raise LabelError(f"a stress needs three periodic directions; pbc is {pbc}")
    _check_finite(label)


def _check_finite(label: Label) -> None:
    for name, value in zip(CONTENT, _content(label), strict=True):
        if isinstance(value, np.ndarray):
            finite = all_finite(value)
        else:
            finite = not isinstance(value, float) or math.isfinite(value)
        if not finite:
            raise LabelError(f"{name} holds a value that is not finite")
    for name, scalar in label.properties.items():
        if not math.isfinite(scalar):
            raise LabelError(f"property {name!r} is {scalar}, which is not finite")


def label_hash(label: Label) -> bytes:
    """16 bytes of BLAKE2b over every quantity of a label; equal exactly when the quantities are."""
    return label.content_hash


def _plain(value: object) -> object:
    """Mappings in one order, so that equal labels have equal bytes."""
    return sorted(value.items()) if isinstance(value, Mapping) else value
