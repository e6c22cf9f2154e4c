"""The head of an OUTCAR: its settings, its elements and how many ions each type has."""

import re
from dataclasses import dataclass, field
from typing import Any

from mlipdb.ingest.vasp.methods import UNKNOWN, not_a_ground_state, numbers, run_method
from mlipdb.ingest.vasp.runs import RunError, element_of
from mlipdb.labels import Method

# A tag and what follows it, up to a semicolon or the next tag behind two spaces.
_SETTING = re.compile(r"\b([A-Z][A-Z0-9_]{2,})\s*=\s*([^;=]*?)(?=\s*;|\s{2,}[A-Z][A-Z0-9_]{2,}\s*=|\s*$)")
_LISTS = re.compile(r"\b(LDAUL|LDAUU|LDAUJ)\s*=\s*([-\d. ]+)")
MOST = 10_000_000  # ions; a larger number is damage
_NEEDED = frozenset(
    ("GGA", "METAGGA", "LHFCALC", "AEXX", "HFSCREEN", "IVDW", "LVDW", "LUSE_VDW", "LDAU", "NELECT", "ICHARG", "IBRION",
     "LEPSILON", "LEXCH", "LSORBIT", "LNONCOLLINEAR", "NELM", "NIONS", "ZVAL", "TITEL", "VRHFIN")
)  # fmt: skip


@dataclass
class OutcarHead:
    """What is learnt line by line, up to the first electronic step."""

    settings: dict[str, Any] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    short_titles: list[str] = field(default_factory=list)
    elements: list[str] = field(default_factory=list)
    valences: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    natoms: int = 0
    _numbers: list[int] | None = None

    def learn(self, line: bytes) -> None:
        """Take in one line of the head."""
        text = line.decode(errors="replace")
        if "ions per type =" in text and not self.counts:
            self.counts = [int(number) for number in numbers(text.partition("=")[2])]
        elif text.startswith(" POTCAR:"):
            self.short_titles.append(text.partition(":")[2].strip())
        elif "LDA+U is selected" in text:
            self.settings["LDAU"] = "T"
        elif "=" in text:
            for name, value in (*_SETTING.findall(text), *_LISTS.findall(text)):
                self._set(name, value.strip())

    def _set(self, name: str, value: str) -> None:
        if name == "NIONS":
            self.natoms = self.natoms or int((numbers(value) or [0])[0])
        elif name == "TITEL":
            self.titles.append(value)
        elif name == "VRHFIN":
            self.elements.append(value.partition(":")[0].strip())
        elif name == "ZVAL":
            self.valences += numbers(value) if len(self.valences) < len(self.titles or self.counts) else []
        elif name == "LEXCH":
            if not numbers(value) or value == "91":  # the POTCAR's; the number further down is VASP's own code
                self.settings.setdefault(name, value)
        elif name in ("LDAUU", "LDAUJ", "LDAUL") or name in _NEEDED:
            # VASP 5 prints METAGGA= F whatever it is, beside the true one; VASP 6 repeats INCAR first.
            known = self.settings.get(name)
            if known is None or str(known).split(maxsplit=1)[0:1] == [] or str(known).split()[0] in UNKNOWN:
                self.settings[name] = value.split()[0] if value.split() and name[:4] != "LDAU" else value

    def atomic_numbers(self) -> list[int]:
        """Atomic number of each ion; RunError where the head does not say or contradicts itself."""
        if self._numbers is None:
            self._check_run()
            titles = self._titles()
            kinds = [element_of("", title) for title in titles]
            if self.elements and [element_of(symbol) for symbol in self.elements] != kinds:
                raise RunError(f"VRHFIN names {self.elements}, TITEL {titles}: the order of ions is not certain")
            self._numbers = [kind for kind, count in zip(kinds, self.counts, strict=True) for _ in range(count)]
        return self._numbers

    def _titles(self) -> list[str]:
        # VASP lists the POTCARs once, and again with their heads; with NWRITE = 0 there are no heads.
        titles = self.titles or self.short_titles[: len(self.short_titles) // 2]
        whole = sum(self.counts) == self.natoms <= MOST and min(self.counts, default=0) > 0
        if len(self.counts) != len(titles) or not whole:
            raise RunError(
                f"'ions per type' lists {len(self.counts)} types with {sum(self.counts)} ions, but there are "
                f"{len(titles)} pseudopotentials and {self.natoms} ions (VASP cuts the list): which ion is which "
                "element is not known; read vasprun.xml instead"
            )
        return titles

    def _check_run(self) -> None:
        if (reason := not_a_ground_state(self.settings)) is not None:
            raise RunError(reason)

    def most_iterations(self) -> int:
        """NELM."""
        return int((numbers(self.settings.get("NELM")) or [60])[0])

    def charge(self) -> float | None:
        """Valence electrons of the free atoms minus NELECT, in e; None where the head does not say."""
        electrons = numbers(self.settings.get("NELECT"))
        if not electrons or len(self.valences) != len(self.counts):
            return None
        neutral = sum(count * valence for count, valence in zip(self.counts, self.valences, strict=True))
        return round(neutral - electrons[0], 6) + 0.0

    def method(self, *, beyond: float) -> Method | None:
        """The level of theory; beyond is what the energy holds beyond the electronic one, in eV an atom."""
        return run_method(self.settings, [*self.titles, *self.short_titles], beyond=beyond)
