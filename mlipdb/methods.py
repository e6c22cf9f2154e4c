"""Which method of a database a name or a number means."""

from mlipdb.database import Database
from mlipdb.errors import ConfigError, NotFoundError, did_you_mean
from mlipdb.labels import Method


def find_method(db: Database, text: str, *, kind: str | None = None) -> int:
    """The id of the method that the text names or numbers, among those of a kind (``dft`` or ``teacher``) if given.

    Raises NotFoundError for none, ConfigError for a name that several methods share.
    """
    known = {number: method for number, method in db.methods().items() if kind in (None, method.kind)}
    if text.isdigit() and int(text) in known:
        return int(text)
    found = [number for number, method in known.items() if method.name == text]
    if len(found) == 1:
        return found[0]
    if found:
        listed = "; ".join(f"{number}: {_tell(known[number])}" for number in found)
        raise ConfigError(f"{len(found)} methods are called {text!r} ({listed}); give the number")
    listed = ", ".join(f"{number} {method.name}" for number, method in known.items()) or "none"
    names = [method.name for method in known.values()]
    step = f"label first: mlipdb label --teacher {text} --subset …" if kind == "teacher" else "ingest labels first"
    raise NotFoundError(
        f"there is no {kind + ' ' if kind else ''}method {text!r}.{did_you_mean(text, names)} Known: {listed}; {step}"
    )


def _tell(method: Method) -> str:
    return f"{method.kind}, weights {(method.weights_sha256 or '-')[:12]}, {method.functional or '-'}"
