"""One HTML file that needs nothing but itself: the frame, the tables and the writing that all pages share."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from mlipdb.errors import ConfigError
from mlipdb.stats import figures
from mlipdb.version import __version__

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #222 }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .2rem .9rem .2rem 0; text-align: left }
th { border-bottom: 1px solid #999 } td.number { text-align: right; font-variant-numeric: tabular-nums }
code { background: #f3f3f3; padding: .1rem .3rem } .warning, .error { color: #a1301c }
"""


def document(title: str, parts: Iterable[str], *, style: str = "") -> str:
    """A page of these pieces of HTML, with the JavaScript that draws its plots; style is added to that of all pages."""
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}{style}</style>\n<script>{figures.plotly_script()}</script>\n</head>\n<body>\n{body}\n"
        f"<footer><p>Made by mlipdb {escape(__version__)}.</p></footer>\n</body>\n</html>\n"
    )


def write_document(path: Path, text: str, *, option: str = "--html") -> None:
    """Write a page to a file. Raises ConfigError, which names the option, where the file cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); give {option} a file in a folder that exists"
        ) from error


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; integers are set to the right, and everything is escaped."""
    lines = ["<tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"]
    lines += ["<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _cell(value: object) -> str:
    return f'<td class="number">{value:,}</td>' if isinstance(value, int) else f"<td>{escape(str(value))}</td>"
