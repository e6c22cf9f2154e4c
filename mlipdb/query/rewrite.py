"""A filter with shorthands rewritten as a plain OPTIMADE filter that remembers where each piece came from."""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from mlipdb.errors import QueryError
from mlipdb.query.caret import query_error
from mlipdb.query.tokens import Lexeme, lexemes
from mlipdb.query.words import ALIASES, KEYWORDS, meanings, suggestion

MAX_DEPTH = 50
MAX_TERMS = 500  # comparisons and list items: more exceed what SQLite nests, or take it minutes
_RIGHT_HAND_SIDES = {"HAS", "IS", "CONTAINS", "STARTS", "ENDS", "LENGTH"}


@dataclass
class Rewritten:
    """OPTIMADE text, with the original text and a map of places."""

    original: str
    text: str = ""
    _starts: list[int] = field(default_factory=list)
    _origins: list[int] = field(default_factory=list)

    def add(self, text: str, *, origin: int) -> None:
        """Append a piece that stands for what is at origin in the original."""
        self._starts.append(len(self.text))
        self._origins.append(origin)
        self.text += text + " "

    def place(self, position: int) -> int:
        """Where in the original the piece at a position of the OPTIMADE text came from."""
        index = bisect_right(self._starts, position) - 1
        return self._origins[index] if index >= 0 else 0


def rewrite(text: str, *, subsets: Collection[str], fields: Collection[str], flags: Collection[str]) -> Rewritten:
    """Replace every shorthand by an OPTIMADE comparison.

    fields are the names for suggestions; flags are the boolean fields, which may stand alone. Raises QueryError.
    """
    return _Rewriter(text, subsets=subsets, fields=fields, flags=flags).run()


class _Rewriter:
    """Walks the tokens once: a term is expected, or AND, OR and a closing parenthesis are."""

    def __init__(self, text: str, *, subsets: Collection[str], fields: Collection[str], flags: Collection[str]) -> None:
        self.text = text
        self.subsets, self.fields, self.flags = subsets, fields, flags
        self.tokens = lexemes(text)
        self.index = 0
        self.open: list[int] = []
        self.result = Rewritten(text)

    def run(self) -> Rewritten:
        _check_size(self.tokens)
        if self.tokens:
            self.term()
        while self.index < len(self.tokens):
            self.after_term()
        if self.open:
            raise self.error("this parenthesis is not closed", position=self.open[-1])
        return self.result

    def error(self, message: str, *, position: int) -> QueryError:
        return query_error(message, text=self.text, position=position)

    def take(self, *, as_text: str | None = None) -> Lexeme:
        token = self.tokens[self.index]
        self.result.add(token.text if as_text is None else as_text, origin=token.start)
        self.index += 1
        return token

    def peek(self, ahead: int = 0) -> Lexeme:
        index = self.index + ahead
        return self.tokens[index] if index < len(self.tokens) else Lexeme("end", "", len(self.text.rstrip()))

    def term(self) -> None:
        """NOT and opening parentheses, then one comparison or shorthand."""
        previous = ""
        while self.peek().text == "(" or (self.peek().kind == "boolean" and self.peek().text == "NOT" != previous):
            token = self.take()
            previous = token.text
            if token.text == "(":
                self.open.append(token.start)
        if len(self.open) > MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} nested parentheses", position=self.open[-1])
        token = self.peek()
        if token.kind not in ("word", "string", "number") or token.text in KEYWORDS:
            raise self.error("expected a comparison or a shorthand here", position=token.start)
        if self.starts_comparison():
            self.comparison()
        else:
            self.shorthand(token)

    def starts_comparison(self) -> bool:
        following = self.peek(1)
        return following.kind == "operator" or following.text in _RIGHT_HAND_SIDES or following.text == ":"

    def comparison(self) -> None:
        """Everything up to AND, OR or a closing parenthesis; the OPTIMADE grammar judges it."""
        after_operand = after_length = False
        while self.peek().kind not in ("boolean", "end") and self.peek().text != ")":
            token = self.peek()
            operand = token.kind in ("string", "number") or (token.kind == "word" and token.text not in KEYWORDS)
            if operand and after_operand:
                raise self.error("expected AND or OR before this", position=token.start)
            if token.kind == "number" and after_length and not token.text.lstrip("+-").isdigit():
                raise self.error("LENGTH takes a whole number", position=token.start)
            after_operand, after_length = operand, after_length or token.text == "LENGTH"
            self.take(as_text=ALIASES.get(token.text) if token.kind == "word" else None)

    def shorthand(self, token: Lexeme) -> None:
        if token.kind == "number":
            raise self.error(f"a number alone means nothing; compare a field with {token.text}", position=token.start)
        word = token.text[1:-1] if token.kind == "string" else token.text
        if word in self.flags:
            self.take(as_text=f"{word}=TRUE")
            return
        found = meanings(word, subsets=self.subsets)
        if len(found) > 1:
            ways = " or ".join(f"{meaning.what} (write {meaning.filter})" for meaning in found)
            raise self.error(f"{word!r} could mean {ways}", position=token.start)
        if not found:
            raise self.error(self.unknown(word), position=token.start)
        self.take(as_text=found[0].filter)

    def unknown(self, word: str) -> str:
        if word in self.fields or word in ALIASES:
            return f"{word!r} is a field; compare it with something, such as {word} IS KNOWN"
        hint = suggestion(word, known=[*self.subsets, *self.fields])
        return f"{word!r} is no element, formula, chemical system, space group, frozen subset or field.{hint}"

    def after_term(self) -> None:
        token = self.peek()
        if token.text in ("AND", "OR") and token.kind == "boolean":
            self.take()
            self.term()
        elif token.text == ")" and self.open:
            self.open.pop()
            self.take()
        elif token.text == ")":
            raise self.error("this parenthesis was never opened", position=token.start)
        else:
            raise self.error("expected AND or OR before this", position=token.start)


def _check_size(tokens: Sequence[Lexeme]) -> None:
    """QueryError for a filter of more comparisons and list items than a database answers soon; too long to show."""
    joints = sum(token.text == "," or (token.kind == "boolean" and token.text != "NOT") for token in tokens)
    if joints >= MAX_TERMS:
        raise QueryError(
            f"the filter has {joints + 1} comparisons and list items, {MAX_TERMS} are the most; freeze parts of it as "
            "subsets (mlipdb subset freeze part1 '…') and ask for those: part1 OR part2"
        )
