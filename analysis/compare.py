"""Run directories laid over each other, of any experiments: what differs, from where on, and whether it matters.

    python -m analysis.compare A B …

Every directory is held against the first. Runs are told apart by what varies inside a directory, and compared with
those of the same setting elsewhere; where no setting is in two directories, all are drawn together. Lags are aligned at
0, updates at the first, up to what the shortest has made. A band is the 95% interval of a median over runs, and a test
is that of the median of differences paired by seed, as in `analysis.claims`.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tyro
from matplotlib.figure import Figure

from analysis import claims, lags, report, style
from seqdyn.described import difference
from seqdyn.learn.config import experiment_from
from seqdyn.runs import manifest
from seqdyn.runs.display import plain_console
from seqdyn.runs.records import diverged, load
from seqdyn.runs.script import script
from seqdyn.types import ConfigError

if TYPE_CHECKING:
    import xarray as xr

POINTS = 8
"""Updates at which the horizon is read: each takes the records of all lags."""
COLUMNS = 4
"""Settings side by side in one figure."""
BANDS = 6
"""Curves of a panel beyond which bands would hide each other."""
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933")
"""Okabe & Ito's, the yellow darker. With three kinds of dashes, 24 curves differ, and equal ones are seen below each
other."""
QUANTITIES = ("training loss", "test loss", "horizon", "share clipped")
_BESIDES = ("format", "experiment", "config", "verified", "resumed_on", "git", "records", "vocabulary")
"""What a manifest says that is no setting."""

Setting = tuple[Any, ...]


class Side(NamedTuple):
    """A directory, and its runs up to the update that all directories have reached."""

    name: str
    path: Path
    ds: "xr.Dataset"
    settings: list[Setting]
    """Of each run."""
    values: dict[str, np.ndarray]
    """`QUANTITIES` that are recorded, [run]: a diverged run's losses are infinite, its horizon is NaN."""


class Read(NamedTuple):
    """Directories side by side."""

    sides: list[Side]
    varied: list[str]
    """The coordinates that tell settings apart."""
    shared: list[Setting]
    """Settings that two directories or more have."""
    stop: int
    """Updates that all have made."""
    look: int
    """The last look that all have made, in updates."""


# --- reading --------------------------------------------------------------------------------------------------


def read(paths: Sequence[str | Path]) -> Read:
    """Of two directories or more. Raises ConfigError for fewer, for one given twice, and where nothing is trained."""
    paths = [manifest.directory(path) for path in paths]
    if len(paths) < 2 or len({path.resolve() for path in paths}) < len(paths):
        given = ", ".join(map(str, paths)) or "none"
        raise ConfigError(f"directories is {given}; it must be two or more different run directories.")
    called = [p.name for p in paths] if len({p.name for p in paths}) == len(paths) else [*map(str, paths)]
    loaded = [load(path) for path in paths]
    made = [int(ds["recorded"].values.sum(axis=1).max(initial=0)) for ds in loaded]
    if not min(made):
        raise ConfigError(f"{paths[made.index(0)]} has made no update; compare directories that have.")
    looks = set.intersection(*({*ds["probe_step"].values.tolist()} for ds in loaded))
    look = max(n for n in looks if n <= min(made))  # the one before the first update is in all
    varied = _varied(loaded)
    sides = [
        Side(name, path, ds, _settings(ds, varied), _values(ds, min(made), look))
        for name, path, ds in zip(called, paths, loaded, strict=True)
    ]
    once = [setting for side in sides for setting in dict.fromkeys(side.settings)]
    shared = [setting for setting in dict.fromkeys(once) if once.count(setting) > 1]
    return Read(sides, varied, shared, min(made), look)


def _column(ds: "xr.Dataset", name: str) -> list[Any]:
    """A coordinate of the runs; None for what is not there."""
    values = ds[name].values.tolist() if name in ds.coords else [None] * ds.sizes["run"]
    return [None if value != value or value == "" else value for value in values]


def _varied(loaded: Sequence["xr.Dataset"]) -> list[str]:
    """The coordinates, but for the seed, that vary inside a directory and tell runs apart that those before do not."""
    names = dict.fromkeys(str(n) for ds in loaded for n, of in ds.coords.items() if of.dims == ("run",))
    found: list[str] = []
    groups = 1
    for name in sorted(names, key=lambda name: name != "label"):
        if name in ("run", "seed") or all(len({*_column(ds, name)}) < 2 for ds in loaded):
            continue
        finer = len({setting for ds in loaded for setting in _settings(ds, [*found, name])})
        if finer > groups:
            found, groups = [*found, name], finer
    return found


def _settings(ds: "xr.Dataset", names: Sequence[str]) -> list[Setting]:
    columns = [_column(ds, name) for name in names]
    return [tuple(column[run] for column in columns) for run in range(ds.sizes["run"])]


def _values(ds: "xr.Dataset", stop: int, look: int) -> dict[str, np.ndarray]:
    gone = diverged(ds.isel(step=slice(0, stop))).any(axis=1)
    latest = slice(stop - lags.late(stop), stop)
    found = {"training loss": np.where(gone, np.inf, ds["loss"].isel(step=latest).values.mean(axis=1, dtype=float))}
    if "test_loss" in ds:
        probe = ds["probe_step"].values.tolist().index(look)
        found["test loss"] = np.where(gone, np.inf, ds["test_loss"].isel(probe=probe).values.astype(float))
    if "adjoint_norm" in ds and ds.sizes["layer"]:
        found["horizon"] = lags.horizon(norms(ds, stop)[:, -1])
    if "clipped" in ds:
        share = ds["clipped"].isel(step=slice(0, stop)).values
        found["share clipped"] = np.asarray([lags.mean(run) for run in share])
    return found


def norms(ds: "xr.Dataset", done: int) -> np.ndarray:
    """‖∂L/∂h_t‖ [run, layer, lag] of the first update (`done` 0) or the median of the last ones before `done`; NaN of
    runs that are not there or have diverged."""
    done = max(done, 1)
    part = slice(done - lags.late(done), done)
    values = lags.adjoint(ds, "adjoint_norm", step=part).transpose("step", "run", "layer", "time").values
    there = ds["recorded"].values[:, done - 1] & ds["finite"].values[:, done - 1]
    return lags.by_lag(ds, np.where(there[:, None, None], style.median(values), np.nan))


# --- what differs ---------------------------------------------------------------------------------------------


def first_setting(one: str | Path, other: str | Path) -> tuple[str, Any, Any] | None:
    """The first setting in which two directories differ, (path, of one, of the other): of the experiment, but for its
    name, then of what the runs started from and were made on, last the updates; None if there is none."""
    here, there = manifest.read(one), manifest.read(other)
    try:  # with defaults filled in, where the code of both is at hand
        described = [experiment_from(found["experiment"]).describe() for found in (here, there)]
    except ConfigError:
        described = [found["experiment"] for found in (here, there)]
    besides = [{k: v for k, v in of.items() if k not in _BESIDES} for of in (here, there)]
    lengths = [{"updates": of["updates"]} for of in described]
    plain = [{k: v for k, v in of.items() if k not in ("name", "updates")} for of in described]
    found = (difference(a, b) for a, b in (plain, besides, lengths))
    return next((one for one in found if one), None)


def first_bits(one: Side, other: Side) -> tuple[int, str, int, int] | None:
    """(update, variable, run of one, run of the other) where two directories first differ in a bit; None if nowhere.

    Runs of one setting and seed are held against each other, in what both have recorded: a run that diverged in one
    alone differs in `finite`. An update n follows the look after n updates.
    """
    pairs = _pairs(one, other)
    a, b = ([pair[i] for pair in pairs] for i in (0, 1))
    sides = [_labelled(side.ds.isel(run=runs)) for side, runs in ((one, a), (other, b))]
    names = [name for name in sides[0].data_vars if name in sides[1] and name != "recorded"]
    names = [name for name in names if sides[0][name].dims == sides[1][name].dims]
    names.sort(key=lambda name: (name != "loss", name != "grad_norm"))
    import xarray as xr  # takes two seconds

    made = np.minimum(*(side["recorded"].sum("step").values for side in sides))
    steps = min(side.sizes["step"] for side in sides)
    both = {name: xr.align(*(side[name] for side in sides), join="inner", exclude=["run"]) for name in names}
    chunk = min(one.ds.attrs["chunk"], other.ds.attrs["chunk"])
    for start in range(0, steps if pairs else 0, chunk):
        found: list[tuple[int, int, int, str]] = []
        for rank, name in enumerate(names):
            dim = both[name][0].dims[1]
            at = both[name][0][dim].values
            end = start + chunk + (dim == "probe" and start + chunk >= steps)  # the last look follows the last update
            where = np.flatnonzero((at >= start) & (at < end))
            if not len(where) or not both[name][0].size:  # no gate, say, in both
                continue
            x, y = (of.isel({dim: slice(where[0], where[-1] + 1)}).values for of in both[name])
            unlike = x.view(f"u{x.itemsize}") != y.view(f"u{y.itemsize}") if x.dtype == y.dtype else x != y
            unlike = (unlike & ~(np.isnan(x) | np.isnan(y))).reshape(*x.shape[:2], -1).any(axis=-1)
            unlike &= at[where] < made[:, None] + (dim == "probe")
            if unlike.any():
                place = int(np.flatnonzero(unlike.any(axis=0))[0])
                found.append((int(at[where][place]), dim != "probe", rank, f"{name} {int(unlike[:, place].argmax())}"))
        if found:
            update, _, _, said = min(found)
            name, pair = said.rsplit(" ", 1)
            return update, name, a[int(pair)], b[int(pair)]
    return None


def _labelled(ds: "xr.Dataset") -> "xr.Dataset":
    return ds.assign_coords(time=-ds["lag"].values, probe=ds["probe_step"].values).drop_vars(["lag", "probe_step"])


def _pairs(one: Side, other: Side) -> list[tuple[int, int]]:
    """Runs of the same setting and seed, each of one once."""
    keys = [list(zip(side.settings, _column(side.ds, "seed"), strict=True)) for side in (one, other)]
    first = {key: run for run, key in reversed(list(enumerate(keys[1])))}
    return [(run, first[key]) for run, key in enumerate(keys[0]) if key in first and keys[0].index(key) == run]


def tests(found: Read) -> list[dict[str, Any]]:
    """Each quantity of each directory against the first's, a row a shared setting: median of the differences paired by
    seed with its interval, and what it says. All intervals are right together with 95% (Bonferroni)."""
    first, rows = found.sides[0], []
    for other in found.sides[1:]:
        pairs = _pairs(first, other)
        for setting in dict.fromkeys(first.settings[i] for i, _ in pairs):
            a, b = (np.asarray([pair[k] for pair in pairs if first.settings[pair[0]] == setting]) for k in (0, 1))
            for name in (name for name in QUANTITIES if name in first.values and name in other.values):
                x, y = first.values[name][a], other.values[name][b]
                with np.errstate(invalid="ignore"):
                    change = np.where(x == y, 0.0, y - x)  # two that diverged are a tie
                change = change[~np.isnan(change)]
                if len(change):
                    rows.append({"directory": other.name, "setting": setting, "quantity": name, "change": change})
    level = 1 - claims.ERROR / max(len(rows), 1)
    for row in rows:
        low, high = claims.interval("median", row["change"], level)
        alike = not row["change"].any()
        said = "equal in all" if alike else "higher" if low > 0 else "lower" if high < 0 else "undecided"
        row |= {"n": len(row["change"]), "median": float(np.median(row["change"])), "low": low, "high": high}
        row |= {"verdict": said}
    return rows


# --- figures --------------------------------------------------------------------------------------------------


@functools.cache
def _ranks(n: int) -> tuple[float, float]:
    return claims.interval("median", np.arange(n, dtype=float), 0.95)


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of the median over runs at each x, of values [run, x]; NaN where there are too few runs."""
    ordered = np.sort(values, axis=0)  # NaN comes last
    low, high = np.full((2, values.shape[1]), np.nan)
    count = np.sum(~np.isnan(values), axis=0)
    for n in np.unique(count):
        ranks = _ranks(int(n))
        if np.isfinite(ranks).all():
            low[count == n], high[count == n] = (ordered[int(rank), count == n] for rank in ranks)
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
            line(side, s, f"{side.name}: {name}" if (name := told(found, s)) else side.name, i)
            for i, (side, s) in enumerate(places)
        ]
        return [("", lines)]
    return [
        (told(found, s), [line(side, s, side.name, i) for i, side in enumerate(found.sides) if s in side.settings])
        for s in found.shared
    ]


def told(found: Read, setting: Setting) -> str:
    """A setting in words."""
    named = zip(found.varied, setting, strict=True)
    return ", ".join(
        lags.text(v) if name == "label" else f"{name.replace('_', ' ')} {lags.text(v)}"
        for name, v in named
        if v is not None
    )


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
            part = line.side.ds.isel(run=line.runs, step=slice(0, stop))
            losses.append(curve(column[0], *style.smoothed(part["loss"].values), line, band))
            if _layers(line.side):
                at = [done for name, done in known if name == line.side.name and done <= stop]
                reach = [lags.horizon(known[line.side.name, done][line.runs, -1]) for done in sorted(at)]
                curve(column[1], np.sort(at), np.stack(reach, axis=1), line, band)
            if "clipped" in part:
                curve(column[2], *style.smoothed(part["clipped"].values), line, band)
    style.log_axis(axes[:1], losses)
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
    known = {
        (side.name, done): norms(side.ds, done)
        for side in found.sides
        if _layers(side)
        for done in {*at, *points}
        if done <= side.ds.sizes["step"]
    }
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


# --- for the reader -------------------------------------------------------------------------------------------


def summary(found: Read) -> list[dict[str, Any]]:
    """A row a setting and directory that has it, shared settings alone if there are any: runs, those that diverged,
    medians of `QUANTITIES`."""
    rows = []
    for title, lines in panels(found):
        for line in lines:
            of = {name: values[line.runs] for name, values in line.side.values.items()}
            row = {"setting": title, "directory": line.label, "runs": len(line.runs)}
            row |= {"diverged": int(np.isinf(of["training loss"]).sum())}
            rows.append(row | {name: float(style.median(of[name])) if name in of else np.nan for name in QUANTITIES})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """`summary` for the reader."""
    settings = any(row["setting"] for row in rows)
    return [
        ({"setting": row["setting"]} if settings else {})
        | {name: str(row[name]) for name in ("directory", "runs", "diverged")}
        | {name: _number(row[name]) for name in QUANTITIES}
        for row in rows
    ]


def tested(found: Read, rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """`tests` for the reader."""
    return [
        {"directory": row["directory"]}
        | ({"setting": told(found, row["setting"])} if found.varied else {})
        | {"quantity": row["quantity"], "pairs": str(row["n"]), "difference": _number(row["median"])}
        | {"interval": f"{_number(row['low'])} … {_number(row['high'])}", "verdict": row["verdict"]}
        for row in rows
    ]


def _number(value: float) -> str:
    if np.isnan(value):
        return "–"
    if abs(value) >= np.finfo(np.float32).max:  # medians have it for infinity
        return "∞" if value > 0 else "−∞"
    return f"{value:.3g}".replace("-", "−")


def text(found: Read) -> list[str]:
    """What differs, from where on, and what is not shared."""
    first, said = found.sides[0], []
    for other in found.sides[1:]:
        differs = first_setting(first.path, other.path)
        if differs:
            name, here, there = differs
            said.append(
                f"{first.name} and {other.name}: first setting that differs: {name}, {here!s:.80} and {there!s:.80}."
            )
        else:
            said.append(f"{first.name} and {other.name} have the same settings.")
    if len(found.sides) == 2:
        said.append(_bits(first, found.sides[1]))
    said.append(
        f"Compared are the first {found.stop:,} updates, which all have made; held-out losses after {found.look:,}."
    )
    for side in found.sides:
        made = int(side.ds["recorded"].values.sum(axis=1).max())
        own = [s for s in dict.fromkeys(side.settings) if s not in found.shared]
        if made > found.stop:
            said.append(f"{side.name} has made {made:,} updates; what follows is not compared.")
        if found.shared and own:
            names = "; ".join(told(found, s) for s in own[:10]) + ("; …" if len(own) > 10 else "")
            said.append(f"Only {side.name} has: {names}.")
    if not found.shared:
        said.append("No setting is in two directories: all are drawn together, and no test pairs them.")
    return said


def _bits(one: Side, other: Side) -> str:
    pairs = len(_pairs(one, other))
    if not pairs:
        return "No run of the one has setting and seed of a run of the other, so their bits are not compared."
    found = first_bits(one, other)
    if found is None:
        return f"Of {pairs} pairs of runs of one setting and seed all that both have recorded is the same, bit for bit."
    update, name, a, b = found
    return (
        f"Of {pairs} pairs of runs of one setting and seed the first difference in a bit is in {name} at update "
        f"{update:,} (run {a} of {one.name}, run {b} of {other.name})."
    )


def show(paths: Sequence[str | Path], into: Path, at: Sequence[int] = ()) -> list[Path]:
    """Draws the directories over each other into a folder, prints what differs and the tables, returns the files.

    Raises ConfigError, before anything is written, for a folder that is a run directory or a file.
    """
    if (into / manifest.NAME).exists() or (into.exists() and not into.is_dir()):
        raise ConfigError(f"out is {into}; it must be a folder for the comparison, and no run directory.")
    found = read(paths)
    longest = max(side.ds.sizes["step"] for side in found.sides)
    for done in at:
        if not 0 <= done <= longest:
            raise ConfigError(f"at is {done}; it must be numbers of updates from 0 to {longest}.")
    into.mkdir(parents=True, exist_ok=True)
    said, of = text(found), tests(found)
    console = plain_console()
    for sentence in said:
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)
    first = found.sides[0]
    caption = (
        f"Against {first.name}, paired by seed: median of the differences, intervals right together with "
        f"{1 - claims.ERROR:.0%}, without bounds where pairs are too few"
    )
    tables = [("Medians over runs", table(summary(found)))] + ([(caption, tested(found, of))] if of else [])
    title = f"{', '.join(side.name for side in found.sides)}, compared"
    said.append(f"How it was made, below, is that of {first.name}.")
    return report.publish(first.path, title, said, figures(found, at), tables, into, [rows for _, rows in tables])


@dataclass
class Config:
    """Which directories."""

    directories: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories; each is held against the first."""
    at: tuple[int, ...] = ()
    """Updates after which norms are drawn by lag; the first and the last that all have made, where none are given."""
    out: Path = Path("runs/compared")
    """Where figures and report.html lie."""


def main(config: Config) -> None:
    """Compares them."""
    show(config.directories, config.out, config.at)


if __name__ == "__main__":
    script(Config, main, __doc__)
