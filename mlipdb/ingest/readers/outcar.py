"""VASP's OUTCAR, one frame per ionic step. It holds the POTCARs' heads, of which nothing is kept."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import IngestError, MlipdbError
from mlipdb.ingest.declared import refuse_units
from mlipdb.ingest.notes import note
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.stream import ByteStream
from mlipdb.ingest.text_lines import line_reader
from mlipdb.ingest.vasp.methods import is_noncollinear
from mlipdb.ingest.vasp.outcar_head import OutcarHead
from mlipdb.ingest.vasp.runs import RunError, material_of, material_rule, run_name
from mlipdb.labels import Label
from mlipdb.structures import make_structure
from mlipdb.units import convert

_HEAD = re.compile(rb"\s*vasp\.\d[^\n]*\n")
_NUMBER = re.compile(r"[-+]?\d+\.\d+|NaN|\*+")  # columns of fixed width may touch
_EVENT = re.compile(
    rb"\s*(?:-+ *(?:Iteration\s*(?P<iteration>[\d*]+)\(|(?P<converged>aborting loop because EDIFF is reached))|"
    rb"(?P<ml_stress>ML FORCE on cell)|(?P<stress_head>FORCE on cell)|(?P<stress>in kB)|"
    rb"(?P<cell>direct lattice vectors +reciprocal)|(?P<forces>POSITION +TOTAL-FORCE \(eV/Angst\)(?! *\(ML\)))|"
    rb"(?P<electronic>free energy    TOTEN  =)|(?P<free>free  energy   TOTEN  =)|(?P<zero>energy  without entropy=)|"
    rb"(?P<magmoms>magnetization \(x\))|(?P<ml_energy>ML FREE ENERGIE)|(?P<loop>LOOP\+:)|"
    rb"(?P<end>General timing and accounting)|(?P<ivdw>IVDW +=))"
)
_VOIGT = ((0, 3, 5), (3, 1, 4), (5, 4, 2))  # VASP prints XX YY ZZ XY YZ ZX


class OutcarReader:
    """OUTCAR, plain or packed. eV, Å (five decimals), eV/Å; stress kbar with VASP's sign; TOTEN is the free energy."""

    name: ClassVar[str] = "outcar"
    suffixes: ClassVar[tuple[str, ...]] = (".OUTCAR", ".OUTCAR.gz")

    def claims(self, path: Path, head: bytes) -> str | None:
        """A first line with VASP's version, and what only OUTCAR prints below it."""
        if _HEAD.match(head) and (b"POTCAR:" in head or b"INCAR:" in head or b"executed on" in head[:400]):
            return f"it starts as an OUTCAR does: {head.split(maxsplit=1)[0].decode(errors='replace')[:40]}"
        return None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the ionic steps in order; external_id is the run and the step's number from 0.

        options: ``keys`` (``material``: both, folder or formula), ``source``, ``file``, ``digest``. Raises IngestError
        with the line at the end of a file that VASP did not finish, after every whole step.
        """
        refuse_units(options.get("units", {}), "OUTCAR")
        run = _Run(run_name(str(options.get("file") or path.name), "OUTCAR"), str(options.get("source") or "outcar"))
        run.rule = material_rule(options.get("keys", {}))
        run.options = options
        with ByteStream(path, options.get("digest")) as stream:
            yield from _steps(_Lines(stream), run)


class _Lines:
    """Lines with their count; a line without its end is not given out."""

    def __init__(self, stream: ByteStream) -> None:
        self._file = line_reader(stream)
        self.path = stream.path
        self.count = 0

    def next(self) -> bytes:
        """The next whole line, empty at the end."""
        line = self._file.readline()
        if not line.endswith(b"\n"):
            return b""
        self.count += 1
        return line

    def take(self, number: int) -> list[str]:
        """The next lines as text; RunError at the end."""
        lines: list[str] = []
        while len(lines) < number:  # the number is the file's own and may be anything
            line = self.next()
            if not line:
                raise RunError("the file ends inside a table")
            lines.append(line.decode(errors="replace"))
        return lines


@dataclass
class _Step:
    """What was seen of one ionic step so far."""

    electronic: float | None = None
    converged: bool = False
    machine_learned: bool = False
    iterations: int = 0
    problem: str | None = None
    stress: Float64[np.ndarray, "3 3"] | None = None
    cell: Float64[np.ndarray, "3 3"] | None = None
    table: Float64[np.ndarray, "atoms 6"] | None = None
    magmoms: Float64[np.ndarray, " atoms"] | None = None
    free: float | None = None
    zero: float | None = None


@dataclass
class _Run:
    """What the head of the file says of all its steps."""

    name: str
    source: str
    rule: str = "both"
    head: OutcarHead = field(default_factory=OutcarHead)
    options: Mapping[str, Any] = field(default_factory=dict)

    def item(self, step: _Step, index: int, line: int) -> Frame | Rejected:
        """The frame of one ionic step, or why it cannot be taken."""
        key, location = f"{self.name}-{index}", f"ionic step {index}, before line {line}"
        try:
            return self._frame(step, key, location)
        except MlipdbError as error:
            return Rejected(key=key, location=location, reason=str(error))

    def _frame(self, step: _Step, key: str, location: str) -> Frame:
        numbers = self.head.atomic_numbers()
        if step.problem:
            raise RunError(step.problem)
        if not step.converged or step.iterations >= self.head.most_iterations():
            made, allowed = step.iterations, self.head.most_iterations()
            raise RunError(f"the electrons are not converged: {made} electronic steps of NELM = {allowed} were made")
        if step.table is None or step.cell is None:
            raise RunError("the step prints no positions and forces (NWRITE = 0); vasprun.xml has them")
        if step.free is None or step.zero is None:
            raise RunError("the step has no energy")
        structure = make_structure(
            numbers, step.table[:, :3], cell=step.cell, pbc=(True, True, True), charge=self.head.charge()
        )
        label = Label(
            energy_uncorrected=step.free,  # as MPtrj's; the forces are the gradient of this one
            free_energy=step.free,
            energy_zero=step.zero,
            forces=step.table[:, 3:],
            stress=None if step.stress is None else convert(step.stress, "kbar(VASP)"),
            magmoms=self._moments(step),
            method=self.head.method(beyond=(step.free - (step.electronic or step.free)) / len(numbers)),
        )
        material = material_of(self.name, numbers, source=self.source, rule=self.rule)
        return Frame(structure=structure, label=label, external_id=key, material=material, location=location)

    def _moments(self, step: _Step) -> Float64[np.ndarray, " atoms"] | None:
        """The moments of the atoms; None in a non-collinear run, where the table that was read is their x alone."""
        if step.magmoms is None or not is_noncollinear(self.head.settings):
            return step.magmoms
        note(self.options, "moments of non-collinear runs are vectors and were not taken: mlipdb has no place for them")
        return None


def _steps(lines: _Lines, run: _Run) -> Iterator[Frame | Rejected]:
    """Walk through the file; a step is whole with the line that ends its energies."""
    step, index, done, ended = _Step(), 0, False, False
    while line := lines.next():
        event = _EVENT.match(line)
        if event is None:
            if not step.iterations and index == 0:
                run.head.learn(line)
            continue
        kind = event.lastgroup or ""
        if kind == "iteration" and not step.iterations:
            step, done = _Step(iterations=1, cell=step.cell if index == 0 else None), False
            continue
        _note(step, kind, line, lines, run)
        if kind == "zero" and not done:
            yield run.item(step, index, lines.count)
            index, done = index + 1, True
        elif kind == "loop":
            if not done and (step.iterations or step.machine_learned):
                step.problem = step.problem or _unfinished(step)
                yield run.item(step, index, lines.count)
                index += 1
            step, done = _Step(), False
        ended = ended or kind == "end"
    if not ended:
        raise IngestError(
            f"{lines.path}: line {lines.count}: VASP's closing account is missing: the run was stopped or the file is "
            "cut; the whole ionic steps before this line are kept: let the run end or fetch the file again and repeat "
            "the command, which skips what it has"
        )


def _unfinished(step: _Step) -> str:
    if step.machine_learned and not step.iterations:
        return "a prediction of VASP's machine-learned force field, not a DFT calculation"
    return "the step ends without its energies"


def _note(step: _Step, kind: str, line: bytes, lines: _Lines, run: _Run) -> None:
    """Take one line, and the table below it, into the step."""
    text = line.decode(errors="replace")
    handler: Callable[[], None] | None = {
        "converged": lambda: setattr(step, "converged", True),
        "iteration": lambda: setattr(step, "iterations", step.iterations + 1),
        "ml_stress": lambda: setattr(step, "machine_learned", True),
        "ml_energy": lambda: setattr(step, "machine_learned", True),
        "stress_head": lambda: setattr(step, "machine_learned", False),
        "stress": lambda: _stress(step, text),
        "cell": lambda: _cell(step, lines),
        "forces": lambda: _forces(step, lines, run),
        "electronic": lambda: setattr(step, "electronic", _after(text, "TOTEN")),
        "free": lambda: setattr(step, "free", _after(text, "TOTEN")),
        "zero": lambda: setattr(step, "zero", _after(text, "energy(sigma->0)")),
        "magmoms": lambda: _magmoms(step, lines, run),
        "ivdw": lambda: run.head.learn(line),
    }.get(kind)
    try:
        if handler is not None:
            handler()
    except MlipdbError as error:
        step.problem = step.problem or str(error)


def _stress(step: _Step, text: str) -> None:
    if not step.machine_learned:
        step.stress = _row(text, 6)[np.array(_VOIGT)]


def _cell(step: _Step, lines: _Lines) -> None:
    step.cell = np.stack([_row(text, 6)[:3] for text in lines.take(3)])


def _forces(step: _Step, lines: _Lines, run: _Run) -> None:
    count = run.head.natoms
    if count < 1:
        raise RunError("the head does not say how many ions there are (NIONS)")
    lines.take(1)
    # Columns behind the sixth (forces without dispersion) are passed over: VASP prints NaN there.
    step.table = np.stack([_row(text, 6) for text in lines.take(count)])


def _magmoms(step: _Step, lines: _Lines, run: _Run) -> None:
    """The last column of the table; of several tables in a step the last one counts."""
    rows = lines.take(run.head.natoms + 3)[3:]
    behind = ("".join(text.split(maxsplit=1)[1:]) for text in rows)  # the ion's number
    step.magmoms = np.array([_row(text, 1, last=True)[0] for text in behind], dtype=np.float64)


def _row(text: str, count: int, *, last: bool = False) -> Float64[np.ndarray, " numbers"]:
    words = _NUMBER.findall(text)
    words = words[-count:] if last else words[:count]
    if len(words) < count or any(word[0] in "N*" for word in words):
        raise RunError(f"expected {count} numbers, found {text.strip()[:80]!r}; VASP prints stars for too large ones")
    return np.array([float(word) for word in words], dtype=np.float64)


def _after(text: str, name: str) -> float:
    """The number behind ``name =``; dispersion runs print a second one behind it, without dispersion."""
    return float(_row(text.partition(name)[2].partition("=")[2], 1)[0])
