"""Notes of a reader for the user: what was left out of a file that is otherwise sound."""

from collections.abc import Mapping
from typing import Any


def note(options: Mapping[str, Any], text: str) -> None:
    """Tell the user something once; options["notes"] is the list that an ingest shows at its end."""
    notes = options.get("notes")
    if isinstance(notes, list) and text not in notes:
        notes.append(text)
