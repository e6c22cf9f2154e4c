"""Errors of predictions: of all together, by element, by space group, and the structures that are worst."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mlipdb.structures import SYMBOLS
from mlipdb.trainers.metrics import MILLI
from mlipdb.trainers.report.predictions import Predictions

WORST = 10  # structures that are named


@dataclass(frozen=True, kw_only=True)
class Catalogued:
    """What the catalog says of a structure. The space group is None where none was found or searched."""

    external_id: str
    formula: str
    space_group: int | None
    space_group_symbol: str | None


@dataclass(frozen=True, kw_only=True)
class GroupError:
    """Errors of what belongs together: energies (meV/atom) of its structures, force components (meV/Å) of its atoms."""

    name: str
    structures: int
    atoms: int
    energy_mae: float | None
    forces_mae: float | None


@dataclass(frozen=True, kw_only=True)
class WorstStructure:
    """A structure and its errors: energy meV/atom, with its sign; largest of an atom's force meV/Å; stress meV/Å³."""

    id: int
    external_id: str
    formula: str
    space_group: str
    atoms: int
    energy_error: float | None
    largest_force_error: float | None
    stress_mae: float | None


def total_errors(found: Predictions) -> dict[str, float | None]:
    """MAE and RMSE of energies in meV/atom, of force components in meV/Å and of stress components in meV/Å³."""
    energies = _energy_errors(found)
    errors = {
        "energy": energies[np.isfinite(energies)],
        "forces": _differences(found.forces).ravel(),
        "stress": _differences(found.stresses).ravel(),
    }
    numbers: dict[str, float | None] = {}
    for name, each in errors.items():
        numbers[f"{name}_mae"] = float(np.abs(each).mean()) if len(each) else None
        numbers[f"{name}_rmse"] = float(np.sqrt(np.square(each).mean())) if len(each) else None
    return numbers


def element_errors(found: Predictions) -> list[GroupError]:
    """By element, ascending: energies are of structures that hold it, atoms and forces its own."""
    energies, forces = _energy_errors(found), np.abs(_differences(found.forces))
    groups = []
    for number in sorted({number for composition in found.compositions for number in composition}):
        holds = np.array([number in composition for composition in found.compositions], dtype=np.bool_)
        groups.append(
            GroupError(
                name=SYMBOLS[number],
                structures=int(holds.sum()),
                atoms=sum(composition.get(number, 0) for composition in found.compositions),
                energy_mae=_mean(np.abs(energies[holds])),
                forces_mae=_mean(forces[found.force_elements == number].ravel()),
            )
        )
    return groups


def space_group_errors(found: Predictions, catalogued: Sequence[Catalogued]) -> list[GroupError]:
    """By space group, the commonest first; structures without one are together, under "none"."""
    names = np.array([group_name(each) for each in catalogued], dtype=object)
    energies, forces = _energy_errors(found), np.abs(_differences(found.forces))
    groups = []
    for name in sorted(set(names.tolist())):
        within = names == name
        groups.append(
            GroupError(
                name=name,
                structures=int(within.sum()),
                atoms=int(found.atoms[within].sum()),
                energy_mae=_mean(np.abs(energies[within])),
                forces_mae=_mean(forces[within[found.force_places]].ravel()),
            )
        )
    return sorted(groups, key=lambda group: -group.structures)


def group_name(structure: Catalogued) -> str:
    """A space group for people, such as Fm-3m (225)."""
    if structure.space_group is None:
        return "none"
    return f"{structure.space_group_symbol or ''} ({structure.space_group})".strip()


def worst_structures(found: Predictions, catalogued: Sequence[Catalogued], *, by: str) -> list[WorstStructure]:
    """Those with the largest errors by ``energy`` (per atom) or ``forces`` (of one atom), the largest first."""
    energies, forces, stresses = _energy_errors(found), _largest_force_errors(found), _stress_errors(found)
    ranked = np.abs(energies) if by == "energy" else forces
    order = np.argsort(-np.nan_to_num(ranked, nan=-1.0), kind="stable")[:WORST]
    return [
        WorstStructure(
            id=int(found.ids[place]),
            external_id=catalogued[place].external_id,
            formula=catalogued[place].formula,
            space_group=group_name(catalogued[place]),
            atoms=int(found.atoms[place]),
            energy_error=_known(energies[place]),
            largest_force_error=_known(forces[place]),
            stress_mae=_known(stresses[place]),
        )
        for place in order.tolist()
        if np.isfinite(ranked[place])
    ]


def _energy_errors(found: Predictions) -> Float64[np.ndarray, " structures"]:
    """Prediction minus label in meV/atom, NaN where there is no label."""
    errors: Float64[np.ndarray, " structures"] = MILLI * (found.energies[:, 1] - found.energies[:, 0]) / found.atoms
    return np.where(found.has_energy, errors, np.nan)


def _largest_force_errors(found: Predictions) -> Float64[np.ndarray, " structures"]:
    """The longest of the differences between an atom's forces in meV/Å, NaN without labelled forces."""
    largest = np.full(len(found), -1.0)
    np.maximum.at(largest, found.force_places, np.linalg.norm(_differences(found.forces), axis=1))
    return np.where(largest < 0, np.nan, largest)


def _stress_errors(found: Predictions) -> Float64[np.ndarray, " structures"]:
    """MAE of the nine components in meV/Å³, NaN where label or prediction is missing."""
    errors = np.full(len(found), np.nan)
    errors[found.stress_places] = np.abs(_differences(found.stresses)).mean(axis=(1, 2))
    return errors


def _differences(pairs: Float64[np.ndarray, "*shape 2"]) -> Float64[np.ndarray, "*shape"]:
    """Prediction minus label, in thousandths of the unit."""
    differences: Float64[np.ndarray, "*shape"] = MILLI * (pairs[..., 1] - pairs[..., 0])
    return differences


def _mean(values: Float64[np.ndarray, " values"]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
