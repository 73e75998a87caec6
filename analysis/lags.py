"""What the analyses of gradients through time share: ‖∂L/∂h_t‖ against the lag T − t, measured, drawn and told.

The horizon is the first lag at which `adjoint_norm` is below 1% of its value at lag 0, and T, censored, if it never is.
The ratio is the norm at the largest lag over that at lag 0. Arrays here run forward in lag, T − t = 0 first.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from analysis import style
from analysis.style import median
from seqdyn.learn.spec import Spec
from seqdyn.runs.records import diverged as diverged
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr

LATE = 100
"""Updates over whose median a trained state is read (a tenth of the run if that is less): one batch is noisy."""
FAINT = 0.01
"""The horizon is the first lag at which the norm is below this share of its value at lag 0."""
STAGES = {"start": 0.0, "end": 1.0}
"""Fractions of training: before it, after it."""
SAID = {"start": "at initialisation", "half": "half-way", "end": "after training"}
"""Stages in words."""


# --- which runs -----------------------------------------------------------------------------------------------


def picked(ds: "xr.Dataset", **where: Any) -> np.ndarray:
    """Indices of the runs with these coordinates; NaN finds NaN."""
    return np.flatnonzero(np.logical_and.reduce([_alike(ds[k].values, v) for k, v in where.items()]))


def _alike(values: np.ndarray, value: Any) -> Bool[np.ndarray, " run"]:
    missing = isinstance(value, float) and np.isnan(value)
    return np.isnan(values) if missing else values == value


def axis(ds: "xr.Dataset", name: str) -> list[Any]:
    """The values of a coordinate of the runs: numbers ascending, NaN last and once, names in the experiment's order."""
    values = ds[name].values
    return list(dict.fromkeys(values.tolist())) if values.dtype.kind in "UO" else np.unique(values).tolist()


def pooled(ds: "xr.Dataset", *drawn: str) -> list[str]:
    """The coordinates of the runs, but for the seed, that vary among runs of one label and one value of each drawn
    axis: medians over seeds would be over them, too."""
    # As text, since NaN is not itself.
    per_run = {str(name): [*map(str, of.values.tolist())] for name, of in ds.coords.items() if of.dims == ("run",)}
    keys = list(zip(*(per_run[name] for name in ("label", *drawn)), strict=True))
    others = [name for name in per_run if name not in ("run", "seed", "label", *drawn)]
    return [name for name in others if len(set(zip(keys, per_run[name], strict=True))) > len(set(keys))]


def split(ds: "xr.Dataset", *drawn: str) -> "xr.Dataset":
    """The runs with labels that also name what would be `pooled`: 'lstm, lr 0.01'. So an analysis that draws by label
    and these axes draws any experiment."""
    names = pooled(ds, *drawn)
    if not names:
        return ds

    def formatted(name: str) -> list[str]:
        return [named(name, v) if v == v else "" for v in ds[name].values.tolist()]

    labels = [
        ", ".join(filter(None, of)) for of in zip(ds["label"].values.tolist(), *map(formatted, names), strict=True)
    ]
    return ds.assign_coords(label=("run", labels))


def one_setting(ds: "xr.Dataset", *drawn: str) -> "xr.Dataset":
    """The runs as they are, where the analysis knows its labels; ConfigError if some would be `pooled`."""
    for name in pooled(ds, *drawn):
        values = ", ".join(map(text, axis(ds, name)))
        raise ConfigError(
            f"{name} is {values} in these runs; this analysis draws {', '.join(('label', *drawn))} and seeds alone: "
            "give it one value, or draw them with analysis.gradient_flow, which tells them apart."
        )
    return ds


def having(ds: "xr.Dataset", *names: str) -> "xr.Dataset":
    """The runs as they are; ConfigError where they have no record, or coordinate, that the analysis needs."""
    for name in names:
        if name not in ds:
            raise ConfigError(
                f"{name} is not recorded in these runs, and this analysis needs it; it must be recorded, or draw them "
                "with analysis.gradient_flow, which does without."
            )
    return ds


def text(value: Any) -> str:
    """A coordinate's value, short."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def named(name: str, value: Any) -> str:
    """A coordinate and its value: 'norm gain 0.1', or 'no clip', as infinity clips nothing."""
    words = name.replace("_", " ")
    return f"no {words}" if value == np.inf else f"{words} {text(value)}"


# --- what the records say -------------------------------------------------------------------------------------


def adjoint(ds: "xr.Dataset", name: str, **at: Any) -> "xr.DataArray":
    """An adjoint's norm at these indices; NaN at lags that no example of the batch reaches."""
    part = ds.isel(at)
    return part[name].where(part["adjoint_count"] > 0)


def mean(values: np.ndarray) -> float:
    """Of the values that exist, NaN if none does."""
    there = values[~np.isnan(values)]
    return float(there.mean(dtype=np.float64)) if there.size else np.nan


def late(updates: int) -> int:
    """How many updates a trained state is read from."""
    return max(1, min(LATE, updates // 10))


def stage(ds: "xr.Dataset", name: str, fraction: float) -> Float[np.ndarray, "run layer lag"]:
    """A quantity per lag at a fraction of the updates each run has made: its median over the last `LATE` of them.

    Fraction 0 is the first update alone, made on the initial parameters. NaN for a run that had diverged by then.
    """
    made = ds["recorded"].sum("step").values
    wide = late(ds.sizes["step"])
    values = np.full((ds.sizes["run"], ds.sizes["layer"], ds.sizes["time"]), np.nan)
    for stop in np.unique(made[made > 0]):
        runs, end = np.flatnonzero(made == stop), max(1, round(fraction * stop))
        steps = slice(max(0, end - wide) if fraction else 0, end)
        values[runs] = median(adjoint(ds, name, run=runs, step=steps).transpose("step", "run", ...).values)
    return by_lag(ds, values)


def by_lag(ds: "xr.Dataset", values: Float[np.ndarray, " *s time"]) -> Float[np.ndarray, " *s lag"]:
    """Norms at lag 0, 1, 2, …; where not all lags were recorded, on the line between those that were, of log ‖λ‖."""
    values, known = values[..., ::-1], ds["lag"].values[::-1]
    every = np.arange(known[-1] + 1)
    if len(every) == len(known):
        return values
    right = np.searchsorted(known, every)
    left = np.maximum(right - 1, 0)
    share = (every - known[left]) / np.maximum(known[right] - known[left], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log2(values, dtype=np.float64)
        between = np.exp2((1 - share) * logs[..., left] + share * logs[..., right])
    # 0 times the logarithm of 0 is not a number.
    return np.where(share == 1, values[..., right], np.where(every == 0, values[..., left], between))


def relative(norms: Float[np.ndarray, " *s lag"]) -> Float[np.ndarray, " *s lag"]:
    """Norms over their value at lag 0; NaN where that is 0 or not finite."""
    first = np.asarray(norms[..., :1], np.float64)
    return norms / np.where(np.isfinite(first) & (first > 0), first, np.nan)


def ends(norms: Float[np.ndarray, " *s lag"]) -> Int[np.ndarray, " *s"]:
    """T of each run: how many lags there are up to the last that has a value."""
    there = ~np.isnan(norms)
    return norms.shape[-1] - np.flip(there, -1).argmax(-1) * there.any(-1)


def horizon(norms: Float[np.ndarray, " *s lag"]) -> Float[np.ndarray, " *s"]:
    """The first lag at which a norm is below 1% of its value at lag 0; T if none is (censored), NaN without values."""
    ratio = relative(norms)
    faint = ratio < FAINT
    reach = np.where(faint.any(-1), faint.argmax(-1), ends(norms)).astype(float)
    return np.where(np.isnan(ratio[..., 0]), np.nan, reach)


def below(norms: Float[np.ndarray, "run layer lag"]) -> Float[np.ndarray, " run"]:
    """√Σ_t ‖∂L/∂h_t‖² of a run's first layer over that of its last; 1 for one layer."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        sizes = np.sqrt(np.sum(np.square(norms.astype(float)), axis=-1))
        top = np.maximum(np.sum(~np.isnan(sizes), axis=1) - 1, 0)  # layers that a spec lacks are NaN
        return sizes[:, 0] / np.take_along_axis(sizes, top[:, None], axis=1)[:, 0]


def middle_horizon(norms: Float[np.ndarray, "run lag"]) -> tuple[float, bool]:
    """The median horizon of some runs, and whether it is only a lower bound, a middle one being censored."""
    lags = horizon(norms)
    there = int(np.sum(~np.isnan(lags)))
    return float(median(lags)), there > 0 and 2 * int(np.sum(lags == ends(norms))) >= there


def reaches(stages: dict[str, Float[np.ndarray, "run lag"]]) -> dict[str, Any]:
    """Per stage: median `ratio` of the largest lag to lag 0; median `horizon`, whether that is a lower `bound`, and
    how many runs are `censored`."""
    row = {}
    for when, norms in stages.items():
        last = np.take_along_axis(relative(norms), ends(norms)[:, None] - 1, axis=1)
        row[f"ratio_{when}"] = float(median(last[:, 0]))
        row[f"horizon_{when}"], row[f"bound_{when}"] = middle_horizon(norms)
        row[f"censored_{when}"] = int(np.sum(horizon(norms) == ends(norms)))
    return row


# --- norms against lag, as figures ----------------------------------------------------------------------------


class Curve(NamedTuple):
    """One line of a lag figure: the median over runs of these norms, with a band."""

    norms: Float[np.ndarray, "run lag"]
    color: Any
    label: str
    of_c: bool = False
    """∂L/∂c_t, drawn dashed, not ∂L/∂h_t."""


def lag_figure(
    panels: Sequence[Sequence[Sequence[Curve]]],
    rows: Sequence[str],
    columns: Sequence[str],
    highest: float = np.inf,
    y: str = "‖∂L/∂h$_t$‖",
) -> Figure:
    """Norms against lag [row][column][curve] on shared log axes, up to `highest`, with a mark at the median horizon."""
    fig, axes = style.panels(len(rows), len(columns), 1.35, sharex=True, sharey=True)
    if len(columns) == 1:
        fig.set_figwidth(0.72 * style.PAGE)
    mark = dict(marker="o", markersize=3.5, markeredgecolor="black", markeredgewidth=0.6, linestyle="none")
    drawn, marked = [], False
    for ax, curves in zip(axes.flat, (curves for row in panels for curves in row), strict=True):
        if not curves:
            ax.set_axis_off()
        for c in curves:
            # c_T acts through h_T alone, which is held fixed: its adjoint is 0 at lag 0, and has no horizon.
            lags = np.arange(c.of_c, c.norms.shape[-1])
            label = "_" if c.of_c else c.label
            line = dict(color=c.color, linestyle=style.DASHES[c.of_c], label=label)
            drawn.append(style.median_band(ax, lags, c.norms[:, lags], **line))
            lag, bound = middle_horizon(c.norms)
            if not (c.of_c or bound or np.isnan(lag)):
                ax.plot(lag, np.interp(lag, lags, drawn[-1]), color=c.color, **mark)
                marked = True
    key = axes[0, 0]
    if marked:
        key.plot([], [], color="white", label="horizon", **mark)
    if any(c.of_c for row in panels for curves in row for c in curves):
        key.plot([], [], color="black", linestyle=style.DASHES[1], label="∂L/∂c$_t$")
    style.log_axis(axes, drawn, highest)
    key.set_xlim(0, None)
    key.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    style.frame(axes, rows, columns, "lag T − t (steps)" if len(columns) < 5 else "lag T − t", y)
    style.legend(fig, style.drawn(axes))
    return fig


def through_training(ds: "xr.Dataset", edges: np.ndarray, **at: Any) -> Float[np.ndarray, "bin lag"]:
    """‖∂L/∂h_t‖ over its value at lag 0: the median over the runs and the updates between two edges."""
    ratio = relative(adjoint(ds, "adjoint_norm", **at).values[..., ::-1])[..., ::-1]
    return by_lag(ds, np.stack([median(ratio[:, a:b].reshape(-1, ratio.shape[-1])) for a, b in pairwise(edges)]))


def log_edges(updates: int) -> np.ndarray:
    """Borders of 80 bins of updates that are equally wide on a log axis (fewer where a bin would be empty)."""
    return np.unique(np.geomspace(1, updates + 1, 81).round().astype(int)) - 1


def lag_map(
    panels: Sequence[Sequence[np.ndarray | None]], edges: np.ndarray, rows: Sequence[str], columns: Sequence[str]
) -> Figure:
    """Heat maps [row][column] of `through_training`, against update (bins between `edges`) and lag; None is empty."""
    fig, axes = style.panels(len(rows), len(columns), 1.2, sharex=True, sharey=True)
    scale: dict[str, Any] = dict(cmap="RdBu_r", norm=Normalize(-6, 6))
    for ax, ratio in zip(axes.flat, (ratio for row in panels for ratio in row), strict=True):
        if ratio is None:
            ax.set_axis_off()
            continue
        shown = np.log10(np.maximum(ratio, np.finfo(np.float64).tiny))  # an underflow lies below any scale
        lags = np.arange(shown.shape[1] + 1) - 0.5
        ax.pcolormesh(edges + 1, lags, shown.T, rasterized=True, **scale)
        ax.set_facecolor(style.MISSING)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(numticks=5))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    bar = fig.colorbar(ScalarMappable(**scale), ax=axes, extend="both", aspect=30, pad=0.03)
    bar.set_label("log$_{10}$ ‖∂L/∂h$_t$‖ / ‖∂L/∂h$_T$‖")
    bar.outline.set_linewidth(0.6)  # type: ignore[operator]
    style.frame(axes, rows, columns, "update", "lag T − t (steps)")
    return fig


# --- in words -------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Short, in a table."""
    return "–" if np.isnan(value) else f"{value:.2g}" if value == 0 or 0.01 <= abs(value) < 100 else f"{value:.0e}"


def lag_name(row: dict[str, Any], when: str) -> str:
    """A stage's horizon."""
    lag, least = row[f"horizon_{when}"], "≥" if row[f"bound_{when}"] else ""
    return "–" if np.isnan(lag) else f"{least}{lag:g}"


def lag_text(lag: Float[np.ndarray, " seed"], steps: int) -> str:
    """A horizon's mean ± standard deviation; ≥ where a seed's never fell to 1%."""
    least = "≥" if np.any(lag == steps) else ""
    return f"{least}{style.spread(lag, 0)}"


def reach(row: dict[str, Any], when: str) -> str:
    """A stage in a sentence: 'horizon (ratio)'."""
    return f"{lag_name(row, when)} ({number(row[f'ratio_{when}'])})"


def before_after(row: dict[str, Any], stages: Sequence[str]) -> dict[str, str]:
    """The stages in a table: columns 'horizon' and 'ratio'."""
    return {
        "horizon": " → ".join(lag_name(row, when) for when in stages),
        "ratio": " → ".join(number(row[f"ratio_{when}"]) for when in stages),
    }


def by_cell(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of each cell, which stand together: a paragraph each."""
    return [list(of) for _, of in groupby(rows, key=lambda row: row["cell"])]


def setting(ds: "xr.Dataset") -> str:
    """What was run and recorded."""

    def values(name: str) -> str:
        return ", ".join(text(value) for value in axis(ds, name) if value == value)

    clip = values("spec_clip") if "spec_clip" in ds.coords else Spec.clip
    numbers = [
        f"{said} {values(name)}"
        for name, said in (("gain", "recurrent gains"), ("clip", f"clip thresholds ({clip})"))
        if name in ds.coords and ds[name].notnull().any()
    ]
    hidden = ", ".join(text(widths).replace(", ", " + ") for widths in axis(ds, "hidden") if widths == widths)
    rate = f" at learning rate {values('lr')}" if "lr" in ds.coords else ""

    made = ds["recorded"].values
    read = ~np.isnan(ds["adjoint_count"].isel(time=-1).values)
    when = "every update" if read[made & ds["finite"].values].all() else f"{read.sum():,} updates"
    return (
        f"{ds.sizes['run']} runs on the task '{values('task')}', T = {values('steps')}: cells {values('label')}; "
        f"{'; '.join([*numbers, ''])}seeds {values('seed')}; hidden {hidden}, batch {values('batch')}, "
        f"{values('optimizer')}{rate}; {ds.attrs['updates']:,} updates each, {made.mean():.0%} of them made. "
        f"‖∂L/∂h_t‖ was recorded at {when}, of each example's own loss, root mean square over the batch, by the "
        f"lag T − t from the example's last step. The horizon is the first lag at which it is below {FAINT:.0%} of "
        "that at lag 0 (≥ T, censored, where it never is); the ratio is that of the largest lag to lag 0. Numbers are "
        "medians over seeds."
    )


RINGS = (
    f"A circle marks the horizon: the first lag below {FAINT:.0%} of lag 0, median over seeds; no circle, no horizon. "
    "What leaves a panel goes on beyond it."
)
"""What the marks of a lag figure mean."""
