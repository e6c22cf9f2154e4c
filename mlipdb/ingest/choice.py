"""What a word and some paths ask to ingest: a published source, a format, or whatever the files are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlipdb import registry
from mlipdb.download import Progress, fetch
from mlipdb.errors import ConfigError
from mlipdb.ingest.pipeline import GROUP, IngestSettings
from mlipdb.ingest.published import PublishedSource, published_sources
from mlipdb.ingest.recognise import recognise_all

AUTO = "auto"


class NoPathError(ConfigError):
    """A path is missing where nothing can be fetched."""


@dataclass(frozen=True)
class Choice:
    """Files to read and how; notes say what was found out or fetched."""

    paths: Sequence[Path]
    settings: IngestSettings
    notes: Sequence[str] = ()


def choose(
    settings: IngestSettings,
    paths: Sequence[Path],
    *,
    offline: bool = False,
    progress: Callable[[str], Progress] | None = None,
) -> Choice:
    """What to read. settings.reader is ``auto``, a published source or a format; progress gives a file's download line.

    A published source without paths is fetched, and its licence, citation and level of theory are known. So they are
    where the paths look like its files. Raises ConfigError where the word is unknown, and with what to get for a source
    that mlipdb does not fetch; NoPathError where a path is missing.
    """
    word, sources = settings.reader, published_sources()
    registry.check(GROUP, word, also=(AUTO, *sources))
    if word == AUTO:
        return _recognised(settings, paths)
    if word not in sources:
        if not paths:
            raise NoPathError(f"{word} needs a PATH: nothing published goes by that name (mlipdb source list)")
        return Choice(paths, settings)
    source = sources[word]
    if not paths:
        return Choice(_fetch(source, offline=offline, progress=progress), _of(source, settings))
    if settings.method is None:
        _check_functional(source, paths)
    if word in registry.names(GROUP) and not source.holds(paths):
        return Choice(paths, settings)  # a file of one's own in the layout of a published source
    return Choice(paths, _of(source, settings))


def _check_functional(source: PublishedSource, paths: Sequence[Path]) -> None:
    """ConfigError where files go by the name of a source of the same format with another functional."""
    for other in published_sources().values():
        alike = other.reader == source.reader and None not in (other.functional, source.functional)
        if alike and other.functional != source.functional and other.holds(paths):
            raise ConfigError(
                f"{' '.join(map(str, paths))}: files there look like {other.name} ({other.functional}), not like "
                f"{source.name} ({source.functional}): `mlipdb ingest {other.name} PATH` with these files alone, or "
                "say what all of them are by --method FUNCTIONAL/CODE"
            )


def _recognised(settings: IngestSettings, paths: Sequence[Path]) -> Choice:
    if not paths:
        raise NoPathError("auto needs a PATH to look at; `mlipdb source list` names what can be fetched")
    found = recognise_all(paths)
    note = f"{' '.join(map(str, paths))}: read as {found.reader}: {found.reason}"
    matches = [one for one in published_sources().values() if one.reader == found.reader and one.holds(paths)]
    if matches and settings.method is None:
        _check_functional(matches[0], paths)
    if len(matches) == 1:
        source = matches[0]
        return Choice(paths, _of(source, settings), (note, f"it looks like the published source {source.name}"))
    return Choice(paths, replace(settings, reader=found.reader), (note,))


def _of(source: PublishedSource, settings: IngestSettings) -> IngestSettings:
    """Settings with the facts of a published source; what the user said stands."""
    return replace(
        settings,
        reader=source.reader,
        name=settings.name or source.name,
        method=settings.method or source.method,
        licence=source.licence,
        citation=source.citation,
        version=source.version,
    )


def _fetch(source: PublishedSource, *, offline: bool, progress: Callable[[str], Progress] | None) -> list[Path]:
    """The source's files in the cache; ConfigError with instructions for a source that is not fetched."""
    if not source.fetchable:
        raise ConfigError(source.instructions())
    return [
        fetch(
            file.url,
            md5=file.md5,
            sha256=file.sha256,
            name=file.name,
            offline=offline,
            progress=progress(file.name) if progress else None,
        )
        for file in source.files
    ]
