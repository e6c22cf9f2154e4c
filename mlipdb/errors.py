"""The errors that callers may want to catch; every one says what, where, the value and the next step."""

import difflib
from collections.abc import Iterable


class MlipdbError(Exception):
    """Base of every error that mlipdb raises on purpose."""


class UnitError(MlipdbError):
    """A unit is missing or unknown."""


class ConfigError(MlipdbError):
    """A setting, recipe key or option is unknown or does not fit."""


class CatalogError(MlipdbError):
    """The catalog is missing, of another version, or does not belong to the shards."""


class NotFoundError(MlipdbError):
    """No row of that id or name."""


class LockedError(MlipdbError):
    """Another process is writing to the database."""


class CorruptError(MlipdbError):
    """Stored bytes do not match their checksum, version or key."""


class StorageError(MlipdbError):
    """The disk is full, or cannot be written."""


class IngestError(MlipdbError):
    """A source file cannot be read further."""


class DownloadError(MlipdbError):
    """A published file cannot be fetched, or is not the one that was expected."""


class QueryError(MlipdbError):
    """A filter cannot be parsed or names an unknown field."""


class LabelError(MlipdbError):
    """A teacher cannot label what was asked."""


class TeacherError(MlipdbError):
    """A teacher in another process broke off with an error that mlipdb does not know."""


class WorkerLostError(MlipdbError):
    """The process that a teacher runs in died; the teacher is of no use any more."""


class TrainError(MlipdbError):
    """A training run cannot start or go on."""


class MissingExtraError(MlipdbError):
    """An optional package is not installed."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error, or nothing when no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
