"""One look for every figure: type, colours, medians with bands over seeds, log axes, and files of the same bytes."""

import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

PAGE = 7.0
"""Inches: two columns of a paper, in which 8 points stay 8 points."""
MISSING = "0.86"
"""Where there is no value."""
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
"""Line styles that stay apart in print."""
BLACK, BLUE, VERMILION, GREEN, PURPLE = "#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY = "#e69f00", "#56b4e9"
"""Colours of Okabe & Ito, safe for the colour-blind."""
OKABE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, "#999999")
"""Of labels, one after the other."""
SPLITS: dict[str, dict[str, Any]] = {
    "train": dict(color=BLACK, linestyle=DASHES[0], label="training"),
    "validation": dict(color=BLUE, linestyle=DASHES[1], label="validation"),
    "test": dict(color=VERMILION, linestyle=DASHES[2], label="test"),
}
"""The line of each split, by what its records are called."""
BINS = 50
"""Points of a curve against updates: it is smoothed to as many."""
DECADES = 16
"""What a log axis shows at most."""

_LOOK = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.2,
    "lines.solid_capstyle": "butt",
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "mathtext.default": "regular",
    "svg.hashsalt": "seqdyn",  # else the ids in an SVG are random
}


def look() -> AbstractContextManager[None]:
    """The look, whatever the reader's own matplotlibrc says; draw and save inside."""
    return matplotlib.style.context(["default", _LOOK])


def panels(rows: int, columns: int, height: float, **sharing: Any) -> tuple[Figure, np.ndarray]:
    """A figure of the page's width with rows × columns axes, `height` inches a row."""
    # Not through pyplot: nothing global holds the figure, so nothing needs closing.
    width = min(PAGE, 1.2 + 2.2 * columns)
    fig = Figure(figsize=(width, 0.6 + height * rows), dpi=200, layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **sharing)


def wrapped(n: int, columns: int, height: float, **sharing: Any) -> tuple[Figure, np.ndarray, list[Axes]]:
    """`panels` for n, at most so many a row, rows as even as can be: the figure, all axes, and the n; what is left
    over is hidden."""
    rows = -(-n // columns)
    fig, axes = panels(rows, -(-n // rows), height, **sharing)
    for ax in axes.flat[n:]:
        ax.set_visible(False)
    return fig, axes, list(axes.flat[:n])


def plain(name: str) -> str:
    """A user's name as it is: else dollars set mathematics, and a legend leaves out what begins with '_'."""
    return ("\u200b" if name.startswith("_") else "") + name.replace("$", r"\$")


def frame(axes: np.ndarray, rows: Sequence[str], columns: Sequence[str], x: str, y: str | Sequence[str] = "") -> None:
    """Titles above the first row, wrapped to its panels, row names on the right, both `plain`; axis labels once a row
    and column, at its outermost panel that is not off; `y` of all rows or of each."""
    room = round(16 * PAGE / max(3, len(columns)))  # characters of 8 points
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(plain(textwrap.fill(title, room, break_long_words=False)))
    for column in axes.T:
        for ax in [ax for ax in column if ax.axison][-1:]:
            ax.set_xlabel(x)
            ax.tick_params(labelbottom=True)
    for row, label in zip(axes, [y] * len(axes) if isinstance(y, str) else y, strict=True):
        for ax in [ax for ax in row if ax.axison][:1]:
            ax.set_ylabel(label)
            ax.tick_params(labelleft=True)
    for ax, name in zip(axes[:, -1], rows, strict=True):
        ax.annotate(plain(name), (1.03, 0.5), xycoords="axes fraction", rotation=270, va="center", ha="left")


def legend(fig: Figure, handles: dict[str, Any]) -> None:
    """One legend above all panels, so that it covers no data, in as few rows as its width allows."""
    if not handles:
        return
    names = list(handles)
    room = 16 * fig.get_figwidth()  # characters of 8 points in an inch

    def fits(columns: int) -> bool:
        rows = -(-len(names) // columns)  # filled column by column
        widest = [max(map(len, names[i : i + rows])) for i in range(0, len(names), rows)]
        return sum(w + 9.5 for w in widest) < room  # with its line, and the room around both

    columns = next((n for n in range(len(names), 1, -1) if fits(n)), 1)
    rows = -(-len(names) // columns)
    fig.legend(list(handles.values()), names, loc="outside upper center", ncols=-(-len(names) // rows))


def drawn(axes: np.ndarray) -> dict[str, Any]:
    """The labelled lines of some panels, each label once."""
    found: dict[str, Any] = {}
    for ax in axes.flat:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    return found


def save(fig: Figure, path: Path) -> Path:
    """Writes `path`.png (200 dots an inch) and .svg, without dates: the same figure is the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = fig.get_layout_engine()
    if layout:
        layout.execute(fig)  # most of the time: once for both files
    fig.set_layout_engine("none")
    vector, raster = (path.with_name(path.name + kind) for kind in (".svg", ".png"))
    # Not by savefig, which draws everything twice, once for a layout that is there already. An SVG has 72 dots an inch.
    FigureCanvasAgg(fig).print_png(raster, metadata={"Software": None})
    FigureCanvasSVG(fig).print_svg(vector, metadata={"Date": None, "Creator": None})
    return raster


def cells(ax: Axes, values: np.ndarray, x: Sequence[str], y: Sequence[str], low: float, high: float) -> Any:
    """Draws [y, x] as cells with these names, grey where there is no value; what a colour bar is made of."""
    mesh = ax.pcolormesh(values, cmap="cividis", vmin=low, vmax=high, rasterized=True)
    ax.set_facecolor(MISSING)
    ax.set_xticks(np.arange(len(x)) + 0.5, x)
    ax.tick_params(axis="x", labelrotation=45)
    ax.set_yticks(np.arange(len(y)) + 0.5, y)
    ax.tick_params(length=0)
    return mesh


def tick(value: float) -> str:
    """A threshold as a tick has it: infinity clips nothing."""
    return f"{value:g}" if np.isfinite(value) else "none"


def shades(n: int) -> list[Any]:
    """n colours from dark to light for an ordered parameter, told apart by the colour-blind and in grey."""
    return [mpl.colormaps["plasma"](x) for x in (np.linspace(0.05, 0.8, n) if n > 1 else [0.05])]


def quantiles(values: Float[np.ndarray, " n *s"], q: Sequence[float]) -> Float[np.ndarray, " q *s"]:
    """Quantiles over the first axis, of the values that are not NaN; NaN where there are none.

    Infinity counts as the largest float32: it sorts right, and lies between two values without becoming NaN.
    """
    values = values if len(values) else np.full((1, *values.shape[1:]), np.nan)
    ordered = np.sort(np.minimum(np.asarray(values, np.float64), np.finfo(np.float32).max), axis=0)  # NaN comes last
    last = np.maximum(np.sum(~np.isnan(ordered), axis=0) - 1, 0)

    def at(fraction: float) -> np.ndarray:
        rank = fraction * last
        low, high = (np.take_along_axis(ordered, r(rank).astype(int)[None], axis=0)[0] for r in (np.floor, np.ceil))
        return low + (high - low) * (rank - np.floor(rank))

    return np.stack([at(fraction) for fraction in q])


def median(values: Float[np.ndarray, " n *s"]) -> Float[np.ndarray, " *s"]:
    """`quantiles` at one half."""
    return quantiles(values, [0.5])[0]


def quartiles(values: Float[np.ndarray, " n *s"]) -> Float[np.ndarray, " 3 *s"]:
    """`quantiles` at a quarter, one half and three quarters."""
    return quantiles(values, [0.25, 0.5, 0.75])


def median_band(ax: Axes, x: np.ndarray, values: Float[np.ndarray, "n x"], **line: Any) -> np.ndarray:
    """Draws the median over runs and, lighter, the middle half of them; returns the median."""
    low, middle, high = quartiles(values)
    drawn = ax.plot(x, middle, **line)[0]
    ax.fill_between(x, low, high, color=drawn.get_color(), alpha=0.2, linewidth=0)
    return middle


def smoothed(values: Float[np.ndarray, "run step"]) -> tuple[np.ndarray, np.ndarray]:
    """(middles of up to `BINS` stretches of updates, means [run, bin]): NaN where an update of a stretch is missing."""
    edges = np.unique(np.linspace(0, values.shape[1], BINS + 1).round().astype(int))
    means = [values[:, a:b].mean(axis=1, dtype=np.float64) for a, b in pairwise(edges)]
    return (edges[:-1] + edges[1:] + 1) / 2, np.stack(means, axis=1)


def wilson(k: int, n: int) -> tuple[float, float]:
    """95% interval of a rate of which k of n were seen. Wilson 1927."""
    from scipy.stats import binomtest  # here, not above: SciPy loads OpenBLAS, for which `backend.start` comes first

    found = binomtest(k, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def student(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """95% interval of a mean over seeds by Student's t; without bounds for fewer than two values. Gosset 1908."""
    from scipy.stats import t  # here, not above: as in `wilson`

    there = values[~np.isnan(values)]
    if len(there) < 2:
        return -np.inf, np.inf
    reach = t.ppf(0.975, len(there) - 1) * there.std(ddof=1) / np.sqrt(len(there))
    return float(there.mean() - reach), float(there.mean() + reach)


def sign(differences: Float[np.ndarray, " n"]) -> int:
    """1 where all of `student`'s interval is above 0, −1 where all of it is below, 0 within the noise."""
    low, high = student(differences)
    return int(low > 0) - int(high < 0)


def interval(differences: Float[np.ndarray, " n"], digits: int = 1) -> str:
    """`student`'s, as '-0.3 to +1.2'."""
    low, high = student(differences)
    return f"{low:+.{digits}f} to {high:+.{digits}f}"


def mean_reach(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """(mean, half the width of `student`'s interval): an error bar; 0 of fewer than two values."""
    low, high = student(values)
    return float(values.mean()), (high - low) / 2 if np.isfinite(low) else 0.0


def spread(values: Float[np.ndarray, " n"], digits: int = 3) -> str:
    """mean ± standard deviation over seeds."""
    there = values[~np.isnan(values)]
    if not there.size:
        return "–"
    deviation = f" ± {there.std(ddof=1):.{digits}f}" if there.size > 1 else ""
    return f"{there.mean():.{digits}f}{deviation}"


def shares(counts: Sequence[tuple[int, int]]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "2 n"]]:
    """Rates k/n and how far Wilson's interval reaches below and above each: an error bar's value and error."""
    share = np.asarray([k / n for k, n in counts])
    return share, np.abs(np.asarray([wilson(k, n) for k, n in counts]).T - share)


def log_axis(axes: np.ndarray, values: Sequence[np.ndarray], highest: float = np.inf) -> None:
    """Log y axes whose limits hold all positive finite values up to `highest`, but at most `DECADES` below the top.

    What is 0 or smaller leaves through the bottom of the panel.
    """
    pool = np.concatenate([np.ravel(v) for v in values])
    pool = np.minimum(pool[np.isfinite(pool) & (pool > 0)], highest)
    low, high = (np.log10(pool.min()), np.log10(pool.max())) if pool.size else (-1.0, 0.0)
    low = min(max(low, high - DECADES), high - 2)  # what is flat should look flat
    margin = 0.04 * (high - low)
    for ax in axes.flat:
        ax.set_yscale("log", nonpositive="clip")
        ax.set_ylim(10 ** (low - margin), 10 ** (high + margin))
        ax.yaxis.set_major_locator(LogLocator(numticks=6))
        if high - low > 3:
            ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_minor_formatter(NullFormatter())


FLAT = 50.0
"""So many times the median size of losses, and what lies between is a line to the eye."""


def loss_axis(axes: np.ndarray, values: Sequence[np.ndarray], highest: float = np.inf) -> None:
    """`log_axis`; where a value is negative, as the loss of a density may be, one that holds all up to `highest`:
    linear, or, where one run that explodes would make all else flat, beyond their median size logarithmic."""
    pool = np.concatenate([np.ravel(v) for v in values])
    pool = pool[np.isfinite(pool)]
    if not (pool < 0).any():
        return log_axis(axes, values, highest)
    pool = np.minimum(pool, highest)
    usual = float(np.median(np.abs(pool))) or 1.0
    far = np.ptp(pool) > FLAT * usual
    for ax in axes.flat:
        if far:
            ax.set_yscale("symlog", linthresh=usual)
        room = 0.04 * np.abs([pool.min(), pool.max()]) if far else 0.04 * np.ptp(pool) * np.ones(2)
        ax.set_ylim(pool.min() - (room[0] or 1.0), pool.max() + (room[1] or 1.0))
