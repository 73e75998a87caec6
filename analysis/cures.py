"""Figures, table and report of the experiments on cures: how far back the gradient reaches before and after training,
and who learns, for every setting of a cure. Rates have Wilson's interval (Wilson 1927), 95%.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis import claims, lags, report, style
from analysis.lags import STAGES, Curve, axis, diverged, picked, stage
from analysis.learned import criterion, latest, learned_at
from analysis.style import wilson
from seqdyn.runs import manifest
from seqdyn.runs.records import VARIABLES, load

if TYPE_CHECKING:
    import xarray as xr

HIGHEST = 1e4
"""Where the axis of norms ends: what explodes is orders of magnitude above what the curves are about."""
Measure = Callable[["xr.Dataset"], np.ndarray]
"""A number a run, to be drawn against the setting."""


def settings(ds: "xr.Dataset", by: str | None) -> list[tuple[str, Any, np.ndarray]]:
    """(label, value of the swept number, runs)."""
    values = axis(ds, by) if by else [None]
    return [
        (label, value, picked(ds, label=label, **({by: value} if by else {})))
        for label in axis(ds, "label")
        for value in values
    ]


def last(ds: "xr.Dataset", name: str) -> np.ndarray:
    """A probed quantity at each run's last look, its mean over layers, gates and times."""
    values = ds[name].transpose("run", "probe", ...).values
    values = np.where(np.isfinite(values), values, np.nan).reshape(*values.shape[:2], -1)
    there = ~np.isnan(values)
    mean = np.where(there, values, 0).sum(-1) / np.where(there.any(-1), there.sum(-1), np.nan)
    return latest(mean)


def summary(ds: "xr.Dataset", described: Mapping[str, Any], by: str | None) -> list[dict[str, Any]]:
    """Per setting: runs, how many learned (at some look) and when, how many diverged, horizons and ratios. The
    experiment is `described` as `manifest.described` has it."""
    when = learned_at(ds, criterion(described))
    gone = np.any(diverged(ds), axis=1)
    norms = {name: stage(ds, "adjoint_norm", at)[:, 0] for name, at in STAGES.items()}
    found = []
    for label, value, runs in settings(ds, by):
        row = {"steps": described["specs"][0]["steps"], "label": label, "value": value, "runs": len(runs)}
        row |= {"learned": int(np.sum(~np.isnan(when[runs]))), "diverged": int(np.sum(np.asarray(gone)[runs]))}
        row |= {"updates": float(style.median(when[runs]))}
        found.append(row | lags.reaches({name: of[runs] for name, of in norms.items()}))
    return found


def rate(k: int, n: int) -> str:
    """'60% (23–88)'."""
    low, high = wilson(k, n)
    return f"{k / n:.0%} ({100 * low:.0f}–{100 * high:.0f})"


def setting_name(by: str | None, row: Mapping[str, Any]) -> str:
    """'lstm', or 'lstm, gain 0.5'."""
    return row["label"] if by is None else f"{row['label']}, {lags.named(by, row['value'])}"


def table(found: Sequence[dict[str, Any]], by: str | None) -> list[dict[str, str]]:
    """For the reader."""
    return [
        {"setting": setting_name(by, r), "learned": rate(r["learned"], r["runs"])}
        | {"updates to learn": "–" if np.isnan(r["updates"]) else f"{r['updates']:,.0f}"}
        | {"diverged": rate(r["diverged"], r["runs"]) if r["diverged"] else f"0/{r['runs']}"}
        | lags.before_after(r, ("start", "end"))
        for r in found
    ]


# --- figures --------------------------------------------------------------------------------------------------


def norms_by_lag(ds: "xr.Dataset", by: str | None) -> Figure:
    """Rows: at initialisation and after training; columns: labels, a curve a value (or one column, a curve a label, the
    path through c of an LSTM dashed)."""
    labels = axis(ds, "label")
    values = axis(ds, by) if by else labels
    shades = dict(zip(values, style.shades(len(values)) if by else cycle(style.OKABE), strict=False))
    names = ["adjoint_norm"] + ["adjoint_norm_c"] * (by is None and "adjoint_norm_c" in ds)
    read = {when: {name: stage(ds, name, at)[:, 0] for name in names} for when, at in STAGES.items()}

    def curves(norms: dict[str, np.ndarray], label: str | None) -> list[Curve]:
        if by is None:
            each = [
                Curve(of[picked(ds, label=one)], shades[one], style.plain(one), name == "adjoint_norm_c")
                for name, of in norms.items()
                for one in labels
            ]
            return [curve for curve in each if not np.isnan(curve.norms).all()]  # only LSTMs have a c
        return [
            Curve(norms["adjoint_norm"][picked(ds, **{"label": label, by: v})], shades[v], lags.named(by, v))
            for v in values
        ]

    columns: list[Any] = labels if by else [None]
    panels = [[curves(norms, label) for label in columns] for norms in read.values()]
    return lags.lag_figure(panels, ["at initialisation", "trained"], labels if by else [""], HIGHEST)


def norms_by_layer(ds: "xr.Dataset") -> Figure:
    """Rows: at initialisation and after training; columns: labels of several layers, a curve a layer."""
    read = {when: stage(ds, "adjoint_norm", at) for when, at in STAGES.items()}
    there = {one: picked(ds, label=one) for one in axis(ds, "label")}
    depth = {one: int(np.sum(~np.isnan(read["start"][runs]).all((0, 2)))) for one, runs in there.items()}
    deep, most = [one for one in there if depth[one] > 1], max(depth.values())
    shades = style.shades(most)

    def curves(norms: np.ndarray, one: str) -> list[Curve]:
        names = [f"layer {k + 1}" if depth[one] == most else "_" for k in range(depth[one])]
        return [Curve(norms[there[one], k], shades[k], name) for k, name in enumerate(names)]

    panels = [[curves(norms, one) for one in deep] for norms in read.values()]
    return lags.lag_figure(panels, ["at initialisation", "trained"], deep, HIGHEST)


def against(
    ds: "xr.Dataset", found: Sequence[dict[str, Any]], by: str | None, measures: Mapping[str, Measure]
) -> Figure:
    """The rate of success, the horizon, and what else was measured, against the swept number (or the label)."""
    labels = axis(ds, "label")
    values = axis(ds, by) if by else labels
    colors = dict(zip(labels, cycle(style.OKABE), strict=False))
    fig, axes = style.panels(2 + len(measures), 1, 1.25, sharex=True)
    fig.set_figwidth(style.PAGE * 0.72)
    top, middle, *others = axes[:, 0]
    x = np.arange(len(values))
    measured = [measure(ds) for measure in measures.values()]
    for k, label in enumerate(labels):
        of = [r for r in found if r["label"] == label]
        at = x + 0.05 * (k - (len(labels) - 1) / 2) if by else np.asarray([k])
        share, reach = style.shares([(r["learned"], r["runs"]) for r in of])
        bars: dict[str, Any] = dict(color=colors[label], capsize=2, marker="o", markersize=3.5, linewidth=1)
        top.errorbar(at, share, yerr=reach, label=style.plain(label) if by else "_", **bars)
        for when, face, dashes in (("start", "white", style.DASHES[2]), ("end", colors[label], style.DASHES[0])):
            heights = [r[f"horizon_{when}"] for r in of]
            middle.plot(
                at, heights, color=colors[label], marker="o", markersize=4, markerfacecolor=face, linestyle=dashes
            )
        for ax, of_runs in zip(others, measured, strict=True):
            spread = [of_runs[runs] for name, _, runs in settings(ds, by) if name == label]
            low, mid, high = np.stack([style.quartiles(s) for s in spread], axis=1)
            ax.errorbar(at, mid, yerr=np.stack([mid - low, high - mid]), **bars)
    top.set_ylabel("share learned")
    top.set_ylim(-0.05, 1.05)
    middle.set_ylabel("horizon (lags)")
    middle.axhline(found[0]["steps"], color="0.6", linewidth=0.8)
    middle.plot([], [], "ko", markerfacecolor="white", markersize=4, label="at initialisation")
    middle.plot([], [], "ko", markersize=4, label="trained")
    for ax, name in zip(others, measures, strict=True):
        ax.set_ylabel(name)
        low, high = ax.get_ylim()
        if name.startswith("largest") and high > 100 * max(low, 1e-3):
            ax.set_yscale("log")
    names = [style.tick(v) if by else style.plain(v) for v in values]
    axes[-1, 0].set_xticks(
        x, names, rotation=0 if by or len(x) < 6 else 20, ha="center" if by or len(x) < 6 else "right"
    )
    axes[-1, 0].xaxis.set_minor_locator(NullLocator())
    axes[-1, 0].set_xlabel(by.replace("_", " ") if by else "")
    style.legend(fig, style.drawn(axes))
    return fig


# --- the report -----------------------------------------------------------------------------------------------


def text(found: Sequence[dict[str, Any]], by: str | None) -> list[str]:
    """What was found, in sentences computed from the rows."""
    all_of, none_of = ([setting_name(by, r) for r in found if r["learned"] == n * r["runs"]] for n in (1, 0))
    far, near = (pick(found, key=lambda r: r["horizon_start"]) for pick in (max, min))
    runs, learned, gone = (sum(r[name] for r in found) for name in ("runs", "learned", "diverged"))
    said = (
        f"{learned} of {runs} runs learned, {gone} diverged. Every seed learned with: {'; '.join(all_of) or 'none'}. "
        f"No seed learned with: {'; '.join(none_of) or 'none'}. At initialisation the gradient reaches furthest "
        f"with {setting_name(by, far)} ({lags.lag_name(far, 'start')} lags), least far with {setting_name(by, near)} "
        f"({lags.lag_name(near, 'start')} lags)."
    )
    well = [r["horizon_start"] for r in found if 2 * r["learned"] >= r["runs"]]
    badly = [r["horizon_start"] for r in found if 2 * r["learned"] < r["runs"]]
    if well and badly:
        said += (
            f" Settings with which at least half of the seeds learned began with a median horizon of "
            f"{np.median(well):g} lags, the others with {np.median(badly):g}."
        )
    return [said]


def figures(
    ds: "xr.Dataset", found: Sequence[dict[str, Any]], by: str | None, measures: Mapping[str, Measure]
) -> Iterator[report.Drawn]:
    """Norms, and what is measured of each setting."""
    steps = found[0]["steps"]
    yield (
        "norms_by_lag",
        norms_by_lag(ds, by),
        f"T = {steps}: ‖∂L/∂h_t‖ against the lag, at the first update and after training (median of a run's last "
        f"{lags.late(ds.sizes['step'])} updates). Medians and quartiles over seeds. {lags.RINGS}",
    )
    if ds.sizes["layer"] > 1:
        yield (
            "norms_by_layer",
            norms_by_layer(ds),
            f"T = {steps}: the same for each layer, the first reads the data. Medians and quartiles over seeds. "
            f"{lags.RINGS}",
        )
    yield (
        "against",
        against(ds, found, by, measures),
        f"T = {steps}: share of the seeds that learned (met the task's criterion at some look), with Wilson's 95% "
        "interval; the horizon, on the grey line censored at T; below, medians and quartiles over seeds.",
    )


def show(
    out: Path, title: str, by: str | None, measures: Mapping[str, Measure], verdicts: Sequence[claims.Verdict] = ()
) -> list[Path]:
    """Draws a run directory and prints its table and where the figures lie.

    `by` names the hyperparameter that was swept, None where only the labels differ. The `verdicts` are on the page.
    """
    ds = lags.split(load(out), *([by] if by else []))
    found = summary(ds, manifest.described(out), by)
    tables = [("Medians over seeds; rates with 95% intervals", table(found, by)), *claims.tables(verdicts)]
    told = [*text(found, by), lags.setting(ds)]
    return report.publish(out, title, told, figures(ds, found, by, measures), tables)


def probed(name: str) -> Measure:
    """A recorded look, as a `Measure`."""
    assert name in VARIABLES
    return lambda ds: last(ds, name)


def along(name: str, reduce: Callable[..., Any]) -> Measure:
    """A quantity of every update, reduced over them."""

    def measure(ds: "xr.Dataset") -> np.ndarray:
        values = ds[name].where(ds["recorded"]).values.astype(float)
        values = np.where(np.isfinite(values), values, np.nan)
        there = ~np.isnan(values).all(axis=1)
        out = np.full(len(values), np.nan)
        out[there] = reduce(values[there], axis=1)
        return out

    return measure
