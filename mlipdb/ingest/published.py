"""Published data sets, read from data/sources.toml: what they are, where they are, how they are read."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from mlipdb.errors import ConfigError, did_you_mean
from mlipdb.labels import Method


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file of a data repository; size and hash are what a public document states, None where none does."""

    name: str
    url: str
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedSource:
    """A data set. unpack says what stands between its files and an ingest, login that an account is needed first.

    functional and code are given where the reader does not know them; patterns are names of files that are this source
    although none of files is called so.
    """

    name: str
    title: str
    reader: str
    address: str
    licence: str
    citation: str
    theory: str
    version: str | None = None
    frames: int | None = None
    about: str | None = None
    functional: str | None = None
    code: str | None = None
    unpack: str | None = None
    login: bool = False
    notes: Sequence[str] = ()
    patterns: Sequence[str] = ()
    files: Sequence[PublishedFile] = field(default_factory=tuple)

    @property
    def fetchable(self) -> bool:
        """Whether mlipdb can fetch it and read what arrives."""
        return bool(self.files) and self.unpack is None and not self.login

    @property
    def method(self) -> Method | None:
        """Its level of theory where the reader does not know it."""
        if self.functional is None:
            return None
        name = f"{self.functional}/{self.code}" if self.code else self.functional
        return Method(kind="dft", name=name, code=self.code, functional=self.functional)

    def holds(self, paths: Sequence[Path]) -> bool:
        """Whether paths look like files of this source, or like folders with such files."""
        wanted = [*(file.name.rpartition("/")[2] for file in self.files), *self.patterns]
        names = [path.name for path in paths if not path.is_dir()]
        names += [entry.name for path in paths if path.is_dir() for entry in path.iterdir()]
        return any(fnmatch(name, pattern) for name in names for pattern in wanted)

    def instructions(self) -> str:
        """What to get by hand, and what to do with it then."""
        lines = [f"{self.name} ({self.title}) is not fetched by mlipdb.", f"  page:    {self.address}"]
        if self.login:
            lines.append("  account: the page asks for one, and for your agreement to its terms")
        lines += [f"  file:    {file.url}{_facts_of(file)}" for file in self.files]
        lines += [f"  size:    {self.about}"] if self.about else []
        lines += [f"  then:    {self.unpack}"] if self.unpack else []
        lines.append(f"  ingest:  mlipdb ingest {self.name} PATH")
        return "\n".join(lines)

    def describe(self) -> dict[str, Any]:
        """The source as plain JSON data."""
        return asdict(self) | {"fetchable": self.fetchable}


def _facts_of(file: PublishedFile) -> str:
    facts = [f"{file.bytes} bytes"] if file.bytes else []
    facts += [f"{kind} {value}" for kind, value in (("md5", file.md5), ("sha256", file.sha256)) if value]
    return f" ({', '.join(facts)})" if facts else ""


@cache
def published_sources() -> Mapping[str, PublishedSource]:
    """Every published source by name, in the order of the file."""
    text = resources.files("mlipdb.data").joinpath("sources.toml").read_text(encoding="utf-8")
    return {name: _source(name, fields) for name, fields in tomllib.loads(text).items()}


def published_source(name: str) -> PublishedSource:
    """The source of a name; ConfigError with a suggestion where there is none."""
    sources = published_sources()
    if name not in sources:
        raise ConfigError(
            f"no published source is called {name!r}.{did_you_mean(name, sources)} Known: {', '.join(sources)}"
        )
    return sources[name]


def _source(name: str, fields: Mapping[str, Any]) -> PublishedSource:
    files = [file for entry in fields["files"] for file in _files(entry)]
    return PublishedSource(name=name, **{**fields, "files": tuple(files)})


def _files(entry: Mapping[str, Any]) -> list[PublishedFile]:
    """One file, or many under one address (base and names, kept in folder)."""
    if "names" not in entry:
        return [PublishedFile(**entry)]
    folder = f"{entry['folder']}/" if "folder" in entry else ""
    return [PublishedFile(name=f"{folder}{name}", url=f"{entry['base']}{name}") for name in entry["names"]]
