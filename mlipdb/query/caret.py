"""Errors that point at a place in a filter."""

from mlipdb.errors import QueryError


def query_error(message: str, *, text: str, position: int) -> QueryError:
    """An error that shows the filter with a caret under a place in it; position len(text) is its end."""
    line = "".join(" " if character.isspace() else character for character in text)
    place = min(max(position, 0), len(line))
    return QueryError(f"{message}\n  {line}\n  {' ' * place}^")
