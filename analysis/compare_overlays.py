"""Run directories drawn over each other: for `analysis.compare`."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from analysis import claims, lags, report, style
from analysis.compare_sides import Read, Setting, Side, norms, setting_text

POINTS = 8
"""Updates at which the horizon is read: each takes the records of all lags."""
COLUMNS = 4
"""Settings side by side in one figure."""
BANDS = 6
"""Curves of a panel beyond which bands would hide each other."""
COLORS = (*style.OKABE[:-1], "#999933")
"""Okabe & Ito's, the yellow darker. With three kinds of dashes, 24 curves differ, and equal ones are seen below each
other."""


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of the median over runs at each x, of values [run, x]; NaN where there are too few runs."""
    ordered = np.sort(values, axis=0)  # NaN comes last
    low, high = np.full((2, values.shape[1]), np.nan)
    count = np.sum(~np.isnan(values), axis=0)
    for n in np.unique(count):
        first, last = claims.ranks(int(n), 0.95)
        if first is not None and last is not None:
            low[count == n], high[count == n] = ordered[first, count == n], ordered[last, count == n]
    return low, high


class Line(NamedTuple):
    """A curve of a panel: some runs of a directory."""

    side: Side
    runs: list[int]
    label: str
    style: dict[str, Any]


def panels(found: Read) -> list[tuple[str, list[Line]]]:
    """(title, curves): a panel a shared setting, or one of all."""
    places = [
        (side, setting)
        for side in found.sides
        for setting in dict.fromkeys(side.settings)
        if setting not in found.shared
    ]
    looks = [{"color": COLORS[i % 8], "linestyle": style.DASHES[i % 3]} for i in range(24)]

    def line(side: Side, setting: Setting, label: str, number: int) -> Line:
        return Line(side, [i for i, s in enumerate(side.settings) if s == setting], label, looks[number % 24])

    if not found.shared:
        lines = [
            line(side, s, f"{side.name}: {name}" if (name := setting_text(found, s)) else side.name, i)
            for i, (side, s) in enumerate(places)
        ]
        return [("", lines)]
    return [
        (
            setting_text(found, s),
            [line(side, s, side.name, i) for i, side in enumerate(found.sides) if s in side.settings],
        )
        for s in found.shared
    ]


def curve(ax: Any, x: np.ndarray, values: np.ndarray, line: Line, band: bool) -> np.ndarray:
    """Draws the median over runs, and its interval; returns the median."""
    middle = style.median(values)
    ax.plot(x, middle, label=style.plain(line.label), **line.style)
    if band:
        low, high = interval(values)
        ax.fill_between(x, low, high, color=line.style["color"], alpha=0.2, linewidth=0)
    return middle


Norms = dict[tuple[str, int], np.ndarray]
"""`norms` of each directory, by name, after so many updates."""


def norms_by_lag(of: Sequence[tuple[str, list[Line]]], known: Norms, at: Sequence[int], layer: int) -> Figure:
    """Rows: updates; columns: settings."""
    fig, axes = style.panels(len(at), len(of), 1.35, sharex=True, sharey=True)
    if len(of) == 1:
        fig.set_figwidth(0.72 * style.PAGE)
    drawn = []
    for row, done in zip(axes, at, strict=True):
        for ax, (_, lines) in zip(row, of, strict=True):
            for line in lines:
                if _layers(line.side) > layer and (line.side.name, done) in known:
                    values = known[line.side.name, done][line.runs, layer]
                    drawn.append(curve(ax, np.arange(values.shape[-1]), values, line, len(lines) <= BANDS))
    style.log_axis(axes, drawn or [np.ones(1)])
    axes[0, 0].set_xlim(0, None)
    rows = [f"after {n:,} updates" if n else "first update" for n in at]
    style.frame(axes, rows, [title for title, _ in of], "lag T − t (steps)", "‖∂L/∂h$_t$‖")
    style.legend(fig, style.drawn(axes))
    return fig


def through_training(of: Sequence[tuple[str, list[Line]]], known: Norms, stop: int) -> Figure:
    """Rows: training loss, horizon, share clipped; columns: settings."""
    fig, axes = style.panels(3, len(of), 1.2, sharex=True, sharey="row")
    if len(of) == 1:
        fig.set_figwidth(0.72 * style.PAGE)
    losses = []
    for column, (_, lines) in zip(axes.T, of, strict=True):
        for line in lines:
            band = len(lines) <= BANDS
            of_each = {name: line.side.ds[name].values for name in ("loss", "clipped") if name in line.side.ds}
            of_each = {name: values[line.runs, :stop] for name, values in of_each.items()}
            losses.append(curve(column[0], *style.smoothed(of_each["loss"]), line, band))
            if _layers(line.side):
                at = [done for name, done in known if name == line.side.name and done <= stop]
                reach = [lags.horizon(known[line.side.name, done][line.runs, -1]) for done in sorted(at)]
                curve(column[1], np.sort(at), np.stack(reach, axis=1), line, band)
            if "clipped" in of_each:
                curve(column[2], *style.smoothed(of_each["clipped"]), line, band)
    style.loss_axis(axes[:1], losses)
    axes[1, 0].set_ylim(0, None)
    axes[2, 0].set_ylim(-0.02, 1.02)
    axes[0, 0].set_xlim(0, stop)
    titles = [title for title, _ in of]
    style.frame(axes, [""] * 3, titles, "update", ["training loss", "horizon (lags)", "share clipped"])
    style.legend(fig, style.drawn(axes))
    return fig


def _layers(side: Side) -> int:
    return side.ds.sizes["layer"] if "adjoint_norm" in side.ds else 0


def figures(found: Read, at: Sequence[int] = ()) -> Iterator[report.Drawn]:
    """Norms by lag after `at` updates (the first, and the last that all have made, where none are given), of each
    layer; loss, horizon and clipping through training."""
    at = at or [0, found.stop]
    points = {round(n) for n in np.geomspace(1, found.stop, POINTS)}
    wanted = [(side, sorted(n for n in {*at, *points} if n <= side.ds.sizes["step"])) for side in found.sides]
    wanted = [(side, of) for side, of in wanted if _layers(side)]
    with ThreadPoolExecutor() as pool:
        read = [*pool.map(lambda one: norms(one[0].ds, one[1]), wanted)]
    known = {(side.name, done): of[done] for (side, _), of in zip(wanted, read, strict=True) for done in of}
    drawn = panels(found)
    pages = [drawn[i : i + COLUMNS] for i in range(0, len(drawn), COLUMNS)]
    layers = max(map(_layers, found.sides))
    few = sum(1 for _, lines in drawn for line in lines if len(line.runs) < 6)
    over = (
        "Lines are medians over runs, bands the 95% interval of the median, which takes six runs or more"
        + (f" ({few} of the curves have fewer)" if few else "")
        + (f"; where more than {BANDS} curves meet, bands are left out." if _crowded(drawn) else ".")
    )
    for number, page in enumerate(pages):
        part = f"_{number}" if number else ""
        for layer in range(layers):
            yield (
                f"compared_norms_by_lag{f'_layer{layer}' if layers > 1 else ''}{part}",
                norms_by_lag(page, known, at, layer),
                f"{f'Layer {layer}. ' if layers > 1 else ''}How far back the gradient reaches, at the first update or "
                f"as the median of the last {lags.late(max(at))} updates before. {over}",
            )
        yield (
            f"compared_through_training{part}",
            through_training(page, known, found.stop),
            f"Training loss and share clipped, means of {max(1, found.stop // style.BINS)} updates; the horizon of the "
            f"last layer, the first lag below {lags.FAINT:.0%} of lag 0 (T where none is), read at {len(points)} "
            f"updates. {over}",
        )


def _crowded(drawn: Sequence[tuple[str, list[Line]]]) -> bool:
    return any(len(lines) > BANDS for _, lines in drawn)
