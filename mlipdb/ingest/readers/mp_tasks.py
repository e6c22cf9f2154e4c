"""Materials Project task documents, the raw material of MPtrj: one frame per ionic step of each calculation."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import MlipdbError
from mlipdb.ingest.declared import refuse_keys, refuse_units
from mlipdb.ingest.json_items import json_documents
from mlipdb.ingest.pymatgen_json import RecordError, array, number, optional, read_structure, rows_of
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.stream import ByteStream
from mlipdb.ingest.vasp.methods import flag, not_a_ground_state, numbers, run_method, without_pv
from mlipdb.labels import Label, Method
from mlipdb.structures import Structure
from mlipdb.units import convert

_ALPHABETIC = re.compile(r"([a-z]+)-([a-z]+)")
# The functional by run_type, where the calculation's own settings do not name it.
RUN_TYPES = {
    "GGA": "PBE", "GGA+U": "PBE+U", "PBE": "PBE", "PBE+U": "PBE+U", "PBESOL": "PBEsol", "PBESOL+U": "PBEsol+U",
    "SCAN": "SCAN", "SCAN+U": "SCAN+U", "R2SCAN": "r2SCAN", "R2SCAN+U": "r2SCAN+U", "HSE06": "HSE06", "LDA": "LDA",
    "LDA+U": "LDA+U",
}  # fmt: skip


class MpTasksReader:
    """Task documents as JSON: a list, one a file, or one a line. eV, Å, eV/Å; stress kbar with VASP's sign."""

    name: ClassVar[str] = "mp-tasks"
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".json.gz", ".jsonl.gz")

    def claims(self, path: Path, head: bytes) -> str | None:
        """JSON with calcs_reversed near its start, which only task documents have."""
        if head.lstrip()[:1] in (b"[", b"{") and b'"calcs_reversed"' in head:
            return "it is JSON with calcs_reversed, as task documents of the Materials Project"
        return None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the ionic steps in the order of the file; external_id is task_id-calc_id-ionic_step as in MPtrj.

        The material is the document's material_id, else its task_id: MPtrj's mp_id groups several tasks.
        """
        refuse_keys(options.get("keys", {}), "task documents")
        refuse_units(options.get("units", {}), "task documents")
        with ByteStream(path, options.get("digest")) as stream:
            for item in json_documents(stream):
                yield from _document(item.value, location=f"byte {item.offset}")


def _document(document: Any, *, location: str) -> Iterator[Frame | Rejected]:
    calculations = document.get("calcs_reversed") if isinstance(document, dict) else None
    if not isinstance(calculations, list) or document.get("task_id") is None:
        yield Rejected(key="", location=location, reason="not a task document: it lacks task_id or calcs_reversed")
        return
    task = plain_task_id(str(document["task_id"]))
    for place, calculation in enumerate(calculations):
        here = f"{location}, calcs_reversed[{place}]"
        try:
            reason = _unusable(calculation)
            steps = [] if reason else list(calculation["output"].get("ionic_steps") or [])
        except (AttributeError, KeyError, OverflowError, TypeError) as error:
            reason, steps = f"the calculation does not have emmet's layout ({type(error).__name__}: {error})", []
        if reason or not steps:
            yield Rejected(key=f"{task}-{place}", location=here, reason=reason or "the calculation has no ionic steps")
        for index in range(len(steps)):
            yield _step(document, calculation, f"{task}-{place}", index=index, location=here)


def plain_task_id(task_id: str) -> str:
    """``mp-149`` for both ``mp-149`` and ``mp-ft``: newer ids are numbers to base 26 (a = 0), MPtrj has the numbers."""
    match = _ALPHABETIC.fullmatch(task_id)
    if match is None:
        return task_id
    value = 0
    for letter in match[2]:
        value = value * 26 + ord(letter) - ord("a")
    return f"{match[1]}-{value}"


def _unusable(calculation: dict[str, Any]) -> str | None:
    kind = str(calculation.get("task_type") or calculation.get("calc_type") or "")
    for word in ("NSCF", "DFPT"):
        if word in kind.upper():
            return f"the calculation is of type {kind!r}: no plain energy and forces"
    return not_a_ground_state(_settings(calculation))


def _settings(calculation: dict[str, Any]) -> dict[str, Any]:
    """INCAR over VASP's own list of parameters; a tag that only one of them has counts."""
    source = calculation.get("input") or {}
    merged = dict(source.get("parameters") or {})
    merged.update({name: value for name, value in (source.get("incar") or {}).items() if value not in (None, "--")})
    if source.get("is_hubbard") or flag(merged.get("LDAU")):
        merged.setdefault("LDAUU", list((source.get("hubbards") or calculation.get("hubbards") or {}).values()))
    return merged


def _step(
    document: dict[str, Any], calculation: dict[str, Any], name: str, *, index: int, location: str
) -> Frame | Rejected:
    key, location = f"{name}-{index}", f"{location}.output.ionic_steps[{index}]"
    steps = calculation["output"]["ionic_steps"]
    try:
        structure = read_structure(steps[index].get("structure"))
        label = _label(steps[index], calculation, structure, last=index == len(steps) - 1)
    except MlipdbError as error:
        return Rejected(key=key, location=location, reason=str(error))
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = f"the step does not have emmet's layout ({type(error).__name__}: {error})"
        return Rejected(key=key, location=location, reason=reason)
    task = str(document["task_id"])
    material = plain_task_id(str(document.get("material_id") or task))
    tags = {} if plain_task_id(task) == task else {"task_id": task}
    return Frame(structure=structure, label=label, external_id=key, material=material, location=location, tags=tags)


def _label(step: dict[str, Any], calculation: dict[str, Any], structure: Structure, *, last: bool) -> Label:
    """Band gap and moments are those of the calculation's end, so only its last step has them."""
    settings, output = _settings(calculation), calculation["output"]
    electronic = _check_converged(step, settings)
    if step.get("forces") is None:
        raise RecordError("forces is missing")
    free, stress = number(step["e_fr_energy"], "e_fr_energy"), step.get("stress")
    inner = number(electronic["e_fr_energy"], "electronic e_fr_energy") if electronic else free
    free = without_pv(free, electronic=inner, settings=settings, volume=structure.volume or 0.0)
    return Label(
        energy_uncorrected=free,
        free_energy=free,
        # e_0_energy of an ionic step is the entropy term in old documents; that of the last electronic step is right.
        energy_zero=None if not electronic else free + number(electronic["e_0_energy"], "e_0_energy") - inner,
        band_gap=optional(output, "bandgap") if last else None,
        forces=rows_of(step["forces"], "forces", len(structure)),
        stress=None if stress is None else convert(array(stress, "stress"), "kbar(VASP)"),
        magmoms=_magmoms(output, len(structure)) if last else None,
        method=_method(calculation, settings, beyond=(free - inner) / len(structure)),
    )


def _check_converged(step: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any] | None:
    """The last electronic step, None where only their number is known; RecordError where NELM was reached."""
    listed = step.get("electronic_steps")
    made = step.get("num_electronic_steps") if not listed else len(listed)
    if made is None:
        raise RecordError("the step does not say how many electronic steps it took, so it may be unconverged")
    allowed = (numbers(settings.get("NELM")) or [60.0])[0]
    if made >= allowed:
        raise RecordError(f"the electrons are not converged: {made} electronic steps of NELM = {allowed:g} were made")
    energies = [one for one in listed or [] if one.get("e_0_energy") is not None and one.get("e_fr_energy") is not None]
    return energies[-1] if energies else None


def _magmoms(output: dict[str, Any], natoms: int) -> Float64[np.ndarray, " atoms"] | None:
    """Total moments of the atoms in µB from the OUTCAR's table; None for a run without spin."""
    rows = (output.get("outcar") or {}).get("magnetization") or []
    if len(rows) != natoms or not all(
        isinstance(row, dict) and isinstance(row.get("tot"), int | float) for row in rows
    ):
        return None
    return np.array([row["tot"] for row in rows], dtype=np.float64)


def _method(calculation: dict[str, Any], settings: dict[str, Any], *, beyond: float) -> Method | None:
    """The functional by the settings, else by run_type; MP's pseudopotentials are PBE's."""
    source = calculation.get("input") or {}
    titles = [str(one.get("titel") or "") for one in source.get("potcar_spec") or [] if isinstance(one, dict)]
    if method := run_method(settings, titles or ["PAW_PBE"], beyond=beyond):
        return method
    name = RUN_TYPES.get(str(calculation.get("run_type") or "").upper())
    return None if name is None else Method(kind="dft", name=f"{name}/VASP", code="VASP", functional=name)
