"""The tokens of a filter, each with its place in the text."""

import re
from dataclasses import dataclass

from mlipdb.query.caret import query_error

_PATTERN = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<operator><=|>=|!=|=|<|>)
      | (?P<punctuation>[(),:])
      | (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
      | (?P<word>[A-Za-z_][A-Za-z0-9_./+-]*)""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_BOOLEANS = {"and": "AND", "or": "OR", "not": "NOT"}


@dataclass(frozen=True)
class Lexeme:
    """A piece of a filter. kind is string, operator, punctuation, number, word or boolean (AND, OR, NOT)."""

    kind: str
    text: str
    start: int


def lexemes(text: str) -> list[Lexeme]:
    """Every token of a filter in order; QueryError with a caret where the text is none."""
    found: list[Lexeme] = []
    position = 0
    while position < len(text):
        match = _PATTERN.match(text, position)
        if match is None:
            raise query_error(_complaint(text[position]), text=text, position=position)
        if match.lastgroup != "space":
            found.append(_lexeme(str(match.lastgroup), match.group(), start=position))
        position = match.end()
    return found


def _lexeme(kind: str, text: str, *, start: int) -> Lexeme:
    """AND, OR and NOT may be written small; no field is called that."""
    if kind == "word" and (text in _BOOLEANS or text in _BOOLEANS.values()):
        return Lexeme("boolean", _BOOLEANS.get(text, text), start)
    return Lexeme(kind, text, start)


def _complaint(character: str) -> str:
    if character == '"':
        return 'this string is not closed; end it with "'
    if character == "'":
        return 'strings are written in double quotes, such as "Y"'
    return f"unexpected character {character!r}"
