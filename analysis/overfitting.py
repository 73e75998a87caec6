"""The table and figure of `experiments.overfitting`: what each method does to the error on the three splits, to the gap
between them, and to the gradient's reach; which differences are within the noise."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from analysis import claims, lags, outcomes, report, style
from analysis.claims import Verdict
from analysis.lags import lag_text
from analysis.learned import unfinished
from analysis.selection import RULE, Course, at, chosen, counted, curves, not_selectable, verdicts
from analysis.style import spread
from seqdyn.data.tasks import task_of
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.runs.script import RUN_DIR, script

if TYPE_CHECKING:
    import xarray as xr

STOPPED = ("early stopping", "together")
"""The methods that are judged at the look that validation chooses; the others at their last."""
ORDER = ("nothing", "smaller model", "early stopping", "L1", "L2", "dropout", "augmentation", "synthetic", "together")
VALUES = tuple(f"{what} {method}" for what in ("test", "reach") for method in ORDER)
"""What `columns` says of a run."""
PRINTED = ("data", "examples", "method", "number", "training", "test", "against nothing", "horizon", "seconds")
"""The columns that fit a terminal; the report has all."""
SETS = {"reviews": 0, "digits": 1}
TIMING = "milliseconds.json"
"""Data → method → ms of an update, in the run directory; what is not named costs what 'nothing' does."""


class Row(NamedTuple):
    """A method with some training examples; arrays have one entry a seed."""

    data: str
    """'reviews'"""
    examples: int
    method: str
    number: float
    """λ, rate or strength that validation chose; NaN where there is none."""
    train: Float[np.ndarray, " seed"]
    validation: Float[np.ndarray, " seed"]
    test: Float[np.ndarray, " seed"]
    best_test: Float[np.ndarray, " seed"]
    """The best test look, not selectable."""
    horizon: Float[np.ndarray, " seed"]
    steps: int
    updates: Float[np.ndarray, " seed"]
    """Made."""
    ms: float
    """Of an update on one core."""
    verdicts: list[str]


def judged(ds: "xr.Dataset", name: str, method: str) -> Float[np.ndarray, " run"]:
    """An accuracy at the look at which a method is judged; NaN for a run that had diverged by its last look."""
    return at(ds, name, chosen(ds)) if method in STOPPED else ds[name].values[:, -1].astype(np.float64)


def method_of_each(ds: "xr.Dataset", noted: Sequence[str]) -> np.ndarray:
    """The method of each run: as it was noted, and of runs added by `seqdyn.extend` that of the run which has the same
    numbers but for the seed; '' where none has."""
    names = [str(name) for name, of in ds.coords.items() if of.dims == ("run",) and name not in ("run", "seed")]
    keys = [*zip(*([*map(str, ds[name].values.tolist())] for name in names), strict=True)]  # NaN is not itself
    known = dict(zip(keys[: len(noted)], noted, strict=True))
    return np.asarray([*noted, *(known.get(key, "") for key in keys[len(noted) :])])


def tuned(part: Path) -> dict[str, tuple[float, np.ndarray]]:
    """Method → (its number, its runs): of each method's numbers the one with the best mean validation accuracy over
    seeds; NaN for a method that has none."""
    ds, noted = load(part), manifest.experiment(part).settings
    methods, found = method_of_each(ds, noted["methods"]), {}
    for method in dict.fromkeys(noted["methods"]):
        runs, name = np.flatnonzero(methods == method), noted["numbers"].get(method)
        values = ds[name].values[runs] if name else np.full(len(runs), np.nan)
        tried = [(v, runs[values == v]) for v in np.unique(values)] if name else [(np.nan, runs)]
        scores = np.nan_to_num(judged(ds, "validation_accuracy", method))  # a run that diverged is never right
        found[method] = max(tried, key=lambda pair: scores[pair[1]].mean())
    return found


def helped(part: Path) -> dict[str, float]:
    """The methods with a number whose mean validation accuracy is above that of nothing, with the number."""
    ds, found = load(part), tuned(part)

    def score(method: str) -> float:
        return float(np.nan_to_num(judged(ds, "validation_accuracy", method)[found[method][1]]).mean())

    numbered = {method: number for method, (number, _) in found.items() if not np.isnan(number)}
    return {method: number for method, number in numbered.items() if score(method) > score("nothing")}


def columns(*parts: Path) -> "xr.Dataset":
    """What claims are about, one value a run and method, NaN but at the number that validation chose for the method,
    and of what is unfinished:

    test: test accuracy where the method is judged, in percent; reach: horizon at the end of training, in lags. Both
        are 0 of what has diverged.
    """

    def of(part: Path) -> dict[str, np.ndarray]:
        ds = load(part).load()
        found = {name: np.full(ds.sizes["run"], np.nan) for name in VALUES}
        reach, done = np.nan_to_num(lags.horizon(lags.stage(ds, "adjoint_norm", 1.0)[:, -1])), ~unfinished(ds)
        for method, (_, runs) in tuned(part).items():
            runs = runs[done[runs]]
            found[f"test {method}"][runs] = 100 * np.nan_to_num(judged(ds, "test_accuracy", method)[runs])
            found[f"reach {method}"][runs] = reach[runs]
        return found

    return outcomes.gathered(parts, of)


def summary(out: Path) -> list[Row]:
    """Every method of every part in the order of data, examples, `ORDER`."""
    found = []
    timing = json.loads((out / TIMING).read_text(encoding="utf-8")) if (out / TIMING).exists() else {}
    for part in report.parts(out, "overfitting").values():
        experiment = manifest.experiment(part)
        ds, spec, noted = load(part).load(), experiment.specs[0], experiment.settings
        reach = lags.horizon(lags.stage(ds, "adjoint_norm", 1.0)[:, -1])
        ms = timing.get(noted["set"], {})
        kinds = verdicts(ds, task_of(spec).chance)
        for method, (number, runs) in tuned(part).items():
            train, validation, test = (judged(ds, f"{s}_accuracy", method)[runs] for s in style.SPLITS)
            found.append(
                Row(
                    data=noted["set"],
                    examples=noted["examples"],
                    method=method,
                    number=number,
                    train=train,
                    validation=validation,
                    test=test,
                    best_test=not_selectable(ds)[runs],
                    horizon=reach[runs],
                    steps=spec.steps,
                    updates=(ds["recorded"] & ds["finite"]).sum("step").values[runs].astype(float),
                    ms=ms.get(method, ms.get("nothing", np.nan)),
                    verdicts=[kinds[r] for r in runs],
                )
            )
    return sorted(found, key=lambda r: (SETS[r.data], r.examples, ORDER.index(r.method)))


def courses(out: Path) -> dict[str, Course]:
    """Of nothing, by data and examples."""
    found = {}
    for part in report.parts(out, "overfitting").values():
        experiment = manifest.experiment(part)
        noted, spec = experiment.settings, experiment.specs[0]
        if "nothing" in noted["methods"]:
            runs = tuned(part)["nothing"][1]
            key = (SETS[noted["set"]], noted["examples"])
            name = f"{noted['examples']:,} {noted['set']}"
            found[key] = name, Course(load(part), runs, noted["examples"] // spec.batch)
    return dict(found[key] for key in sorted(found))


def grouped(found: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    """By data and examples."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in found:
        groups.setdefault((row.data, row.examples), []).append(row)
    return groups


def deviation(values: Float[np.ndarray, " seed"]) -> float:
    """Standard deviation over seeds, 0 for fewer than two."""
    there = values[~np.isnan(values)]
    return float(there.std(ddof=1)) if len(there) > 1 else 0.0


def against(row: Row, plain: Row) -> str:
    """'better', 'worse' or 'noise': does the interval of the paired differences of test accuracy leave 0 out?"""
    return {1: "better", 0: "noise", -1: "worse"}[style.sign(row.test - plain.test)]


def table(found: Sequence[Row]) -> list[dict[str, str]]:
    """For the reader; accuracies in percent, means ± standard deviations over seeds."""
    lines = []
    for group in grouped(found).values():
        plain = next((r for r in group if r.method == "nothing"), group[0])
        for r in group:
            lines.append(
                {
                    "data": r.data,
                    "examples": f"{r.examples:,}",
                    "method": r.method,
                    "number": "–" if np.isnan(r.number) else f"{r.number:g}",
                    "training": spread(100 * r.train, 1),
                    "validation": spread(100 * r.validation, 1),
                    "test": spread(100 * r.test, 1),
                    "against nothing": "–" if r is plain else style.interval(100 * (r.test - plain.test)),
                    "gap": spread(100 * (r.train - r.test), 1),
                    "best test (not selectable)": spread(100 * r.best_test, 1),
                    "horizon": lag_text(r.horizon, r.steps),
                    "updates": f"{r.updates.mean():,.0f}",
                    "seconds": f"{r.updates.mean() * r.ms / 1e3:.1f}",
                    "at the end": counted(r.verdicts),
                }
            )
    return lines


def text(found: Sequence[Row]) -> list[str]:
    """Ranks the methods of each data set and size by test accuracy, says what is within the noise, and the rule."""
    said = []
    for (data, examples), group in grouped(found).items():
        plain = next((r for r in group if r.method == "nothing"), group[0])
        ranked = sorted(group, key=lambda r: -lags.mean(r.test))
        order = ", ".join(f"{r.method} {100 * lags.mean(r.test):.1f}" for r in ranked)
        others = [r for r in ranked if r is not plain]
        kinds = {kind: [r.method for r in others if against(r, plain) == kind] for kind in ("better", "worse", "noise")}
        clauses = [f"{kind} than nothing: {', '.join(kinds[kind])}" for kind in ("better", "worse") if kinds[kind]]
        clauses += [f"within the noise of nothing: {', '.join(kinds['noise'])}"] if kinds["noise"] else []
        said.append(f"{examples:,} {data}, by test accuracy in percent: {order}; {'; '.join(clauses)}.")
    said.append(
        f"Better, worse and noise are read off the 95% interval (Student's t, {len(found[0].test)} seeds) of the "
        "differences to nothing, seed by seed; it says nothing of other test sets."
    )
    return [" ".join(said), RULE]


def by_method(found: Sequence[Row]) -> Figure:
    """Accuracies of the three splits and the horizon of every method, a column a training set's size."""
    groups = grouped(found)
    sets = list(dict.fromkeys(data for data, _ in groups))
    columns = max(sum(data == s for data, _ in groups) for s in sets)
    fig, axes = style.panels(2 * len(sets), columns, 1.75, sharey="row")
    for ax in axes.flat:
        ax.set_visible(False)
    for i, data in enumerate(sets):
        mine = [(n, group) for (name, n), group in groups.items() if name == data]
        for j, (examples, group) in enumerate(mine):
            y = np.arange(len(group))
            upper, lower = axes[2 * i, j], axes[2 * i + 1, j]
            for ax in (upper, lower):
                ax.set_visible(True)
                ax.grid(axis="y", linewidth=0.3)
                ax.set_yticks(y, [r.method for r in group])
            for split, color, face in (("train", "0.45", "white"), ("test", style.VERMILION, style.VERMILION)):
                values = [100 * getattr(r, split) for r in group]
                means, reach = (np.array([of(v) for v in values]) for of in (lags.mean, deviation))
                label = "training" if split == "train" else "test"
                upper.errorbar(
                    means, y, xerr=reach, fmt="o", markersize=4, color=color, markerfacecolor=face, label=label, lw=1
                )
            upper.axvline(100 * lags.mean(group[0].test), color="0.6", linewidth=0.8, label="nothing's test")
            for r, k in zip(group, y, strict=True):
                lower.plot(r.horizon, np.full(len(r.horizon), k), "|", color=style.BLUE, markersize=7)
                lower.plot([float(style.median(r.horizon))], [k], "o", color=style.BLUE, markersize=4)
            lower.axvline(group[0].steps, color="0.6", linewidth=0.8)
            upper.set(title=f"{examples:,} {data}", xlabel="accuracy (%)")
            lower.set(xlabel="horizon (lags)", xlim=(0, None))
        axes[2 * i, 0].invert_yaxis()
        axes[2 * i + 1, 0].invert_yaxis()
    fig.set_figwidth(style.PAGE)
    style.legend(fig, style.drawn(axes[:1, :1]))
    return fig


CAPTION = (
    "Above: training (open) and test accuracy (filled) of each method, means and standard deviations over seeds; grey: "
    "nothing's test accuracy. Below: the horizon at the end of training, the first lag at which ‖∂L/∂h_t‖ is below 1% "
    "of its value at lag 0, each seed (bars) and their median; on the grey line censored at T."
)
CURVES = (
    "With nothing done against it: training, validation and test accuracy against epochs, medians and quartiles over "
    "seeds; dotted: the epoch with the least validation loss."
)


def figures(out: Path, found: Sequence[Row]) -> Iterator[report.Drawn]:
    """All methods, and what nothing does."""
    yield "overfitting", by_method(found), CAPTION
    yield "overfitting_curves", curves(courses(out)), CURVES


def show(out: Path, verdicts: Sequence[Verdict] = ()) -> list[Path]:
    """Draws a run directory and prints its table and where the figures lie; the page has the verdicts."""
    first = next(iter(report.parts(out, "overfitting").values()))
    found = summary(out)
    listed = table(found)
    tables = [
        ("Accuracies in percent, means ± standard deviations over seeds; what was chosen by validation", listed),
        *claims.tables(verdicts),
    ]
    printed = [[{name: line[name] for name in PRINTED} for line in listed]]
    drawn, title = figures(out, found), "What helps against overfitting"
    return report.publish(first, title, text(found), drawn, tables, into=out, printed=printed)


def main(out: Path) -> None:
    """As the script that made it."""
    claims.redrawn(out, lambda verdicts: show(out, verdicts))


if __name__ == "__main__":
    script(RUN_DIR, main, __doc__)
