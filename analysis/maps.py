"""Figure and table of `experiments/maps.py`: who learns, how far the gradient reaches and who diverges, over the gain
and one thing more."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from analysis import cures, lags, report, style
from seqdyn.runs import manifest
from seqdyn.runs.records import load

OTHER = {"clip": "clip", "omega": "omega", "activations": "label"}
"""Map -> the axis beside the gain."""
AXES = {"clip": "threshold of ‖g‖", "omega": "λ of Ω", "label": "φ"}
TITLES = {"clip": "relu, SGD with momentum", "omega": "tanh, Adam", "activations": "Adam"}
SHOWN = {"learned": "share learned", "horizon": "trained horizon (lags)", "diverged": "share diverged"}


class Map(NamedTuple):
    """What came out at every point."""

    gains: list[float]
    others: list[Any]
    values: dict[str, np.ndarray]
    """[gain, other], of each of `SHOWN`"""
    steps: int
    seeds: int


def summary(parts: Mapping[str, Path]) -> dict[str, Map]:
    """Each map of the run directories."""
    found = {}
    for name, out in parts.items():
        by = OTHER[name]
        ds = lags.split(load(out), "gain", *([by] if by != "label" else []))
        described = manifest.described(out)
        gains, others = lags.axis(ds, "gain"), lags.axis(ds, by)
        when = cures.learned_at(ds, cures.criterion(described))
        gone = np.asarray(np.any(lags.diverged(ds), axis=1))
        reached = lags.stage(ds, "adjoint_norm", lags.STAGES["end"])[:, 0]
        values = {column: np.full((len(gains), len(others)), np.nan) for column in SHOWN}
        for i, gain in enumerate(gains):
            for k, other in enumerate(others):
                runs = lags.picked(ds, **{"gain": gain, by: other})
                values["learned"][i, k] = np.mean(~np.isnan(when[runs]))
                values["horizon"][i, k] = lags.middle_horizon(reached[runs])[0]
                values["diverged"][i, k] = np.mean(gone[runs])
        steps, seeds = described["specs"][0]["steps"], len(np.unique(ds["seed"].values))
        found[name] = Map(gains, others, values, steps, seeds)
    return found


def table(found: Mapping[str, Map]) -> list[dict[str, str]]:
    """Of each map and value of its other axis: the gains at which most seeds learned."""
    rows = []
    for name, of in found.items():
        for k, other in enumerate(of.others):
            well = [f"{gain:g}" for i, gain in enumerate(of.gains) if of.values["learned"][i, k] > 0.5]
            lost = [f"{gain:g}" for i, gain in enumerate(of.gains) if of.values["diverged"][i, k] > 0.5]
            rows.append(
                {
                    "map": name,
                    "at": _named(other),
                    "gains at which most seeds learned": ", ".join(well) or "–",
                    "gains at which most diverged": ", ".join(lost) or "–",
                }
            )
    return rows


def _named(value: Any) -> str:
    return value if isinstance(value, str) else style.tick(value)


def planes(found: Mapping[str, Map]) -> Figure:
    """A row a map, a column a quantity, over the gain (upwards) and the other axis."""
    fig, axes = style.panels(len(found), len(SHOWN), 1.75)
    fig.set_figwidth(style.PAGE)
    for (name, of), line in zip(found.items(), axes, strict=True):
        for (column, label), ax in zip(SHOWN.items(), line, strict=True):
            high = of.steps if column == "horizon" else 1
            others = [style.plain(_named(other)) for other in of.others]
            mesh = style.cells(ax, of.values[column], others, [f"{g:g}" for g in of.gains], 0, high)
            ax.tick_params(axis="x", labelrotation=55)  # names are longer than numbers
            ax.set_xlabel(AXES[OTHER[name]])
            ax.set_title(label)
            fig.colorbar(mesh, ax=ax, aspect=14, pad=0.02)
        line[0].set_ylabel(f"{TITLES[name]}\ngain")
    return fig


def figures(found: Mapping[str, Map]) -> Iterator[report.Drawn]:
    """All maps in one."""
    of = next(iter(found.values()))
    yield (
        "planes",
        planes(found),
        f"Temporal order, T = {of.steps}: share of {of.seeds} seeds that learned (met the task's criterion at some "
        "look), the median horizon after training (the first lag at which the norm is below 1% of that at lag 0; T "
        "where it never is), and the share that diverged, over the gain of the recurrence and what stands below.",
    )


def text(found: Mapping[str, Map]) -> list[str]:
    """How much of each map learned."""
    return [
        "Most seeds learned at "
        + "; ".join(
            f"{np.sum(of.values['learned'] > 0.5)} of {of.values['learned'].size} points over the gain and "
            f"{AXES[OTHER[name]]}"
            for name, of in found.items()
        )
        + "."
    ]


def show(parts: Mapping[str, Path]) -> list[Path]:
    """Draws the maps of run directories, beside which the figure lies, and prints their table."""
    found, first = summary(parts), next(iter(parts.values()))
    tables = [("Points of the maps by the majority of their seeds", table(found))]
    return report.publish(first, "Maps over the gain", text(found), figures(found), tables, into=first.parent)
