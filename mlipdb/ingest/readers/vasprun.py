"""VASP's vasprun.xml, one frame per ionic step."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import MlipdbError
from mlipdb.ingest.declared import refuse_units
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.stream import ByteStream
from mlipdb.ingest.vasp.methods import not_a_ground_state, numbers, run_method, without_pv
from mlipdb.ingest.vasp.runs import RunError, element_of, material_of, material_rule, run_name
from mlipdb.ingest.vasp.vasprun_xml import elements
from mlipdb.labels import Label
from mlipdb.structures import Structure, make_structure
from mlipdb.units import convert

_HEAD = re.compile(rb"<modeling>\s*<generator>.{0,200}vasp", re.DOTALL)
OCCUPIED = 1e-8  # electrons: a state with more is occupied


class VasprunReader:
    """vasprun.xml, plain or packed. eV, Å, eV/Å; stress kbar with VASP's sign; forces belong to the free energy."""

    name: ClassVar[str] = "vasprun"
    suffixes: ClassVar[tuple[str, ...]] = (".xml", ".xml.gz", ".xml.bz2", ".xml.xz")

    def claims(self, path: Path, head: bytes) -> str | None:
        """XML whose root is <modeling> and whose generator is vasp."""
        return "it is XML of <modeling> by the generator vasp" if _HEAD.search(head[:2000]) else None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the ionic steps in order; external_id is the run and the step's number from 0.

        options: ``keys`` (``material``: both, folder or formula), ``source``, ``file``, ``digest``.
        """
        refuse_units(options.get("units", {}), "vasprun.xml")
        name = str(options.get("file") or path.name)
        run = _Run(run_name(name, "vasprun"), str(options.get("source") or "vasprun"))
        run.rule = material_rule(options.get("keys", {}))
        step = 0
        with ByteStream(path, options.get("digest")) as stream:
            for element in elements(stream):
                if element.tag == "calculation":
                    yield run.frame(element, step)
                    step += 1
                else:
                    run.learn(element)


@dataclass
class _Run:
    """What the head of the file says of all its steps."""

    name: str
    source: str
    rule: str = "both"
    settings: dict[str, Any] = field(default_factory=dict)
    atomic_numbers: list[int] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    valence: float | None = None
    problem: str | None = None

    def learn(self, element: ET.Element) -> None:
        """Take in <incar>, <parameters> or <atominfo>."""
        if element.tag in ("incar", "parameters"):
            for item in element.iter():
                if item.tag in ("i", "v") and "name" in item.attrib:
                    self.settings.setdefault(item.attrib["name"], (item.text or "").strip())
        elif element.tag == "atominfo":
            try:
                self._learn_atoms(element)
            except MlipdbError as error:
                self.problem = str(error)
            except (IndexError, OverflowError, ValueError) as error:
                self.problem = f"<atominfo> makes no sense ({error}), so the elements are not known"

    def _learn_atoms(self, element: ET.Element) -> None:
        types = _rows(element, "atomtypes")
        self.titles = [row[4] for row in types if len(row) > 4]
        atoms = _rows(element, "atoms")
        titles = [self.titles[int(row[1]) - 1] if 0 < int(row[1]) <= len(self.titles) else "" for row in atoms]
        self.atomic_numbers = [element_of(row[0], title) for row, title in zip(atoms, titles, strict=True)]
        if self.titles:
            self.valence = sum(int(row[0]) * float(row[3]) for row in types)

    def frame(self, step: ET.Element, index: int) -> Frame | Rejected:
        """The frame of one ionic step, or why it cannot be taken."""
        key, location = f"{self.name}-{index}", f"ionic step {index}"
        try:
            self._check(step)
            structure = self._structure(step)
            label = self._label(step, structure)
            material = material_of(self.name, self.atomic_numbers, source=self.source, rule=self.rule)
        except MlipdbError as error:
            return Rejected(key=key, location=location, reason=str(error))
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            reason = f"the step does not have vasprun.xml's layout ({type(error).__name__}: {error})"
            return Rejected(key=key, location=location, reason=reason)
        return Frame(structure=structure, label=label, external_id=key, material=material, location=location)

    def _check(self, step: ET.Element) -> None:
        """Raise RunError for a step that no self-consistent field stands behind."""
        if self.problem or not self.atomic_numbers:
            raise RunError(self.problem or "the file has no <atominfo> before its steps, so the elements are not known")
        if (reason := not_a_ground_state(self.settings)) is not None:
            raise RunError(reason)
        made, allowed = len(step.findall("scstep")), self._number("NELM", 60.0)
        if not made:
            raise RunError("the step has no electronic steps: a prediction of VASP's machine-learned force field?")
        if made >= allowed:
            raise RunError(f"the electrons are not converged: {made} electronic steps of NELM = {allowed:g} were made")

    def _structure(self, step: ET.Element) -> Structure:
        cell = _vectors(step.find("structure/crystal"), "basis")
        fractional = _vectors(step.find("structure"), "positions")
        if cell is None or fractional is None:
            raise RunError("the step has no structure")
        charge = None
        if self.valence is not None and "NELECT" in self.settings:
            charge = round(self.valence - self._number("NELECT", 0.0), 6) + 0.0
        return make_structure(self.atomic_numbers, fractional @ cell, cell=cell, pbc=(True, True, True), charge=charge)

    def _label(self, step: ET.Element, structure: Structure) -> Label:
        forces, stress = _vectors(step, "forces"), _vectors(step, "stress")
        if forces is None:
            raise RunError("the step has no forces")
        if len(forces) != len(structure):
            raise RunError(f"forces has {len(forces)} rows for {len(structure)} atoms")
        free, zero, beyond = self._energies(step, structure)
        return Label(
            # MPtrj's uncorrected energy is e_fr_energy, too; it is the one that the forces are the gradient of.
            energy_uncorrected=free,
            free_energy=free,
            energy_zero=zero,
            band_gap=_band_gap(step),
            forces=forces,
            stress=None if stress is None else convert(stress, "kbar(VASP)"),
            method=run_method(self.settings, self.titles, beyond=beyond / len(structure)),
        )

    def _energies(self, step: ET.Element, structure: Structure) -> tuple[float, float, float]:
        """F, E0 and what F holds beyond the last electronic step and PV, in eV.

        e_0_energy of the ionic step is wrong in VASP 5 (it is the entropy term), so E0 - F is that of the last
        electronic step. F of the ionic step holds dispersion corrections, and the PV of PSTRESS, which is no energy.
        """
        last = [energies for item in step.findall("scstep") if "e_0_energy" in (energies := _energies_of(item))]
        free = _energies_of(step).get("e_fr_energy")
        if free is None or not last:
            raise RunError("the step has no energy")
        electronic = last[-1]["e_fr_energy"]
        free = without_pv(free, electronic=electronic, settings=self.settings, volume=structure.volume or 0.0)
        return free, free + last[-1]["e_0_energy"] - electronic, free - electronic

    def _number(self, name: str, default: float) -> float:
        found = numbers(self.settings.get(name))
        return found[0] if found else default


def _rows(atominfo: ET.Element, name: str) -> list[list[str]]:
    return [[(c.text or "").strip() for c in row] for row in atominfo.findall(f"array[@name='{name}']/set/rc")]


def _vectors(parent: ET.Element | None, name: str) -> Float64[np.ndarray, "rows 3"] | None:
    """A <varray> of that name directly below an element."""
    found = None if parent is None else parent.find(f"varray[@name='{name}']")
    if found is None:
        return None
    text = [(row.text or "").split() for row in found]
    if any(len(row) != 3 for row in text):
        raise RunError(f"{name} holds a row that is not three numbers: {next(r for r in text if len(r) != 3)}")
    try:
        values = np.array([[float(word) for word in row] for row in text], dtype=np.float64).reshape(-1, 3)
    except ValueError as error:
        raise RunError(f"{name}: {error}; VASP prints stars where a number is too large") from error
    if not np.isfinite(values).all():
        raise RunError(f"{name} holds a value that is not finite")
    return values


def _energies_of(element: ET.Element) -> dict[str, float]:
    """The named numbers of the <energy> directly below an ionic or electronic step."""
    found = element.find("energy")
    return {} if found is None else {item.attrib.get("name", ""): float(item.text or "nan") for item in found}


def _band_gap(step: ET.Element) -> float | None:
    """Lowest empty minus highest occupied state over k-points and spins in eV, at least 0; None where not given."""
    rows = step.findall("eigenvalues/array/set/set/set/r")
    if not rows:
        return None
    states = np.array([[float(word) for word in (row.text or "").split()[:2]] for row in rows])
    full = states[:, 1] > OCCUPIED
    if full.all() or not full.any():
        return None
    return max(float(states[~full, 0].min() - states[full, 0].max()), 0.0)
