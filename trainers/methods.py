"""Which method of the catalog a name or id means."""

from mlipdb.database import Database
from mlipdb.errors import NotFoundError, TrainError, did_you_mean


def find_method(db: Database, text: str, *, kind: str) -> int:
    """The id of the method of this kind (``dft`` or ``teacher``) that the text names, by name or by id.

    Raises NotFoundError for none, TrainError for a name that several methods share.
    """
    known = {number: method for number, method in db.methods().items() if method.kind == kind}
    if text.isdigit() and int(text) in known:
        return int(text)
    matches = [number for number, method in known.items() if method.name == text]
    if len(matches) == 1:
        return matches[0]
    if matches:
        listed = "; ".join(f"{number}: weights {(known[number].weights_sha256 or '-')[:12]}" for number in matches)
        raise TrainError(f"{len(matches)} methods are called {text!r} ({listed}); give the number")
    names = [method.name for method in known.values()]
    step = f"label first: mlipdb label --teacher {text} --subset …" if kind == "teacher" else "ingest labels first"
    raise NotFoundError(
        f"no {kind} method is called {text!r}.{did_you_mean(text, names)} "
        f"Known: {', '.join(f'{number} {method.name}' for number, method in known.items()) or 'none'}; {step}"
    )
