"""The plots of a report, by pymatviz and its plotly: imported only where they are drawn."""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Num

from mlipdb.errors import MissingExtraError
from mlipdb.stats.histogram import Histogram

if TYPE_CHECKING:
    from mlipdb.stats.overview import ElementCount, SpaceGroupCount
    from mlipdb.stats.parity import Outlier

Figure = Any  # plotly's figure: plotly is an extra, so its types are not known here
COLOUR, MARKED = "#31688e", "#d1495b"
HEIGHT = 420
SLICES = 1_000_000  # of a sunburst, which pymatviz makes from one number a structure


def check_plots(*, otherwise: str = "leave out --html") -> None:
    """Raise MissingExtraError with the command to run, or else what to do, where pymatviz is not installed."""
    try:
        import pymatviz  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise MissingExtraError(
            f"plots need pymatviz, which is not installed ({error}); run `pip install 'mlipdb[plots]'`, or {otherwise}"
        ) from error


def plotly_script() -> str:
    """The JavaScript of plotly, to stand in the page so that it works without a network."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def as_division(figure: Figure, *, name: str) -> str:
    """A figure as an HTML element whose id is name; the same figure gives the same text."""
    settings = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=settings))


def periodic_table(elements: Sequence["ElementCount"]) -> Figure:
    """A heat map of how many structures hold each element, in a logarithmic scale of colours."""
    counts = {element.symbol: element.structures for element in elements if element.structures}
    ticks = [10**power for power in range(len(str(max(counts.values(), default=1))))]
    bar = {"title": "structures", "tickvals": np.log10(ticks), "ticktext": [_short(tick) for tick in ticks]}
    colours = {symbol: float(np.log10(count)) for symbol, count in counts.items()}
    words = {symbol: _short(count) for symbol, count in counts.items()}
    return _elements(colours, words, title="Structures that hold each element", bar=bar, least=1.0)


def periodic_values(values: Mapping[str, float], *, title: str, unit: str) -> Figure:
    """A heat map of one number for each element."""
    words = {symbol: f"{value:.3g}" for symbol, value in values.items()}
    return _elements(values, words, title=title, bar={"title": unit})


def _elements(
    values: Mapping[str, float], words: Mapping[str, str], *, title: str, bar: dict[str, Any], least: float = 0.0
) -> Figure:
    """The table of the elements with colours and words; colours end at the highest value, or at least.

    Drawn on pymatviz's table of the elements: its own heat map fails with plotly 7.
    """
    import plotly.graph_objects as graph
    from pymatviz.utils.data import df_ptable

    table = df_ptable
    shape = (int(table["row"].max()), int(table["column"].max()))
    colours, texts = np.full(shape, np.nan), np.full(shape, "", dtype=object)
    for symbol, row, column in zip(table.index, table["row"], table["column"], strict=True):
        texts[row - 1, column - 1] = f"<b>{symbol}</b><br>{words.get(symbol, '')}"
        colours[row - 1, column - 1] = values.get(symbol, np.nan)
    heat = graph.Heatmap(
        z=colours, text=texts, texttemplate="%{text}", hovertemplate="%{text}<extra></extra>", xgap=3, ygap=3,
        zmin=0, zmax=max([least, *values.values()]) or 1.0, colorscale="YlGnBu", colorbar=bar,
    )  # fmt: skip
    figure = _laid_out(graph.Figure(heat), title, height=560)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    return figure


def curves(
    lines: Mapping[str, tuple[Sequence[int | float], Sequence[int | float]]],
    *,
    title: str,
    x: str,
    y: str,
    logarithmic: bool,
) -> Figure:
    """Lines by name through points (all x, all y)."""
    import plotly.graph_objects as graph

    figure = graph.Figure(
        [
            graph.Scatter(x=list(places), y=list(values), name=name, mode="lines+markers", marker={"size": 5})
            for name, (places, values) in lines.items()
        ]
    )
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y, type="log" if logarithmic else "linear")
    return _laid_out(figure, title)


def space_group_sunburst(groups: Sequence["SpaceGroupCount"]) -> Figure:
    """Crystal systems, and the space groups of each around them, with their share."""
    from pymatviz.sunburst.spacegroup import spacegroup_sunburst

    numbers = np.array([group.number for group in groups], dtype=np.int16)
    counts = np.array([group.structures for group in groups], dtype=np.int64)
    if counts.sum() > SLICES:  # shares are shown, so fewer numbers in the same proportion do
        counts = np.maximum(np.rint(counts * (SLICES / counts.sum())), 1).astype(np.int64)
    figure = spacegroup_sunburst(np.repeat(numbers, counts), show_counts="percent")
    return _laid_out(figure, "Space groups by crystal system", height=560)


def bars(histogram: Histogram, title: str) -> Figure:
    """A histogram; open ends are named under the bar."""
    import plotly.graph_objects as graph

    names = [bin.name for bin in histogram.bins]
    figure = graph.Figure(graph.Bar(x=names, y=[bin.count for bin in histogram.bins], marker={"color": COLOUR}))
    figure.update_xaxes(title=histogram.unit, type="category")
    figure.update_yaxes(title="count")
    return _laid_out(figure, title)


def coverage(names: Sequence[str], quantities: Sequence[str], shares: Num[np.ndarray, "methods quantities"]) -> Figure:
    """Which method (row) gave which quantity (column) for what share of the structures, in per cent."""
    import plotly.graph_objects as graph

    heat = graph.Heatmap(
        x=list(quantities), y=[escape(name) for name in names], z=shares, zmin=0, zmax=100, colorscale="Viridis",
        texttemplate="%{z:.0f}", colorbar={"title": "%"},
    )  # fmt: skip
    return _laid_out(graph.Figure(heat), "Share of the structures with each quantity", height=160 + 60 * len(names))


def scatter(values: Num[np.ndarray, "structures 2"], *, names: tuple[str, str], title: str, unit: str) -> Figure:
    """The first column against the second, coloured by density, with the line where they are equal."""
    from pymatviz.scatter import density_scatter

    with redirect_stdout(StringIO()):  # it prints how many points fell into one bin
        figure = density_scatter(
            values[:, 0], values[:, 1], density="empirical", stats=False, best_fit_line=False,
            identity_line=False,  # pymatviz's needs kaleido, a browser, to ask for the ends of an axis
            xlabel=f"{escape(names[0])} ({unit})", ylabel=f"{escape(names[1])} ({unit})",
        )  # fmt: skip
    low, high = float(values.min()), float(values.max())
    figure.add_shape(type="line", x0=low, y0=low, x1=high, y1=high, line={"dash": "dash", "color": "grey"})
    return _laid_out(figure, title, height=560)


def mark(figure: Figure, outliers: Sequence["Outlier"]) -> Figure:
    """Circles round the outliers of a scatter, each named with its ids when the pointer is on it."""
    import plotly.graph_objects as graph

    text = [f"structure {outlier.id} ({escape(outlier.external_id)})" for outlier in outliers]
    marker = {"size": 12, "symbol": "circle-open", "color": MARKED, "line": {"width": 2}}
    figure.add_trace(
        graph.Scatter(
            x=[outlier.first for outlier in outliers],
            y=[outlier.second for outlier in outliers],
            mode="markers",
            marker=marker,
            text=text,
            showlegend=False,
            hovertemplate="%{text}<br>%{x:.4f}, %{y:.4f}<extra></extra>",
        )
    )
    return figure


def _laid_out(figure: Figure, title: str, *, height: int = HEIGHT) -> Figure:
    figure.update_layout(
        title={"text": title, "x": 0.5, "xanchor": "center", "font": {"size": 16}},
        height=height, width=None, autosize=True, template="plotly_white", margin={"l": 70, "r": 30, "t": 60, "b": 70},
    )  # fmt: skip
    return figure


def _short(count: int) -> str:
    """1,234,567 as 1.2M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"
