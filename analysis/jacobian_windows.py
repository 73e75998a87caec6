"""Singular values of ∂state_T/∂state_t by window, read from the records of `experiments.jacobian_spectra`, in decades:
log₁₀ σ, beside what bounds it and what the gates alone would keep.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from analysis import outcomes
from analysis.lags import axis, diverged, having, picked, split
from analysis.learned import criterion, passes, unfinished
from seqdyn.runs import manifest
from seqdyn.runs.records import load

if TYPE_CHECKING:
    import xarray as xr

NAMES = ("test_loss", "window_log_singular", "window_log_condition", "step_norm", "time_constant")
NOTHING = -1e6
"""Decades, for log 0: so far below every panel that a quantile which it enters leaves the panel, too."""
STAGES = ("untrained", "trained")
ALIVE = -1.0
"""A direction counts as alive over a window that keeps more than a tenth of it."""
DEEPEST = -24.0
"""Decades, the least of a singular value that is drawn, or held against a gate."""


def read(out: Path) -> "xr.Dataset":
    """The probes' records of the run directory and of those in it, one per further initialisation, as one."""
    import xarray as xr

    inside = sorted(path.parent for path in out.glob(f"*/{manifest.NAME}") if not manifest.extends(path.parent))
    parts = [_first_layer(path) for path in (out, *inside)]
    found = xr.concat(
        [part.assign_coords(run=part["run"] + 1000 * i) for i, part in enumerate(parts)], "run", join="outer"
    ).load()
    return split(found, "u_init")


def _first_layer(out: Path) -> "xr.Dataset":
    return having(load(out), *NAMES)[list(NAMES)].isel(layer=0)


class Group(NamedTuple):
    """The runs of one initialisation and cell."""

    init: str
    cell: str
    runs: np.ndarray


def groups(ds: "xr.Dataset") -> Iterator[Group]:
    """Initialisation by initialisation."""
    for init in axis(ds, "u_init"):
        for cell in axis(ds, "label"):
            yield Group(init, cell, picked(ds, u_init=init, label=cell))


def newest(ds: "xr.Dataset") -> np.ndarray:
    """Of each run, the last probe that it has reached (before diverging, if it did)."""
    there = ~np.isnan(ds["test_loss"].values)
    return np.where(there.any(axis=1), there.shape[1] - 1 - there[:, ::-1].argmax(axis=1), 0)


def at(ds: "xr.Dataset", name: str, runs: np.ndarray, stage: str) -> np.ndarray:
    """A record of these runs before training, or at their newest probes."""
    probes = np.zeros_like(runs) if stage == STAGES[0] else newest(ds)[runs]
    return ds[name].values[runs, probes]


def floored(decades: np.ndarray) -> np.ndarray:
    """−∞ as a number, for quantiles."""
    return np.maximum(decades, NOTHING)


def spectra(ds: "xr.Dataset", group: Group, stage: str) -> Float[np.ndarray, "run window n"]:
    """log₁₀ σ_i, largest first, of as many directions as the cell's state has."""
    values = floored(at(ds, "window_log_singular", group.runs, stage))
    there = ~np.isnan(values[:, 0]).all(axis=0)
    return values[..., there] if there.any() else values  # all NaN: not recorded yet


def bound(ds: "xr.Dataset", group: Group, stage: str) -> Float[np.ndarray, "run lag"]:
    """log₁₀ of the product of σ_max(J) over the last 1, 2, … steps: what bounds σ_1 of that window."""
    with np.errstate(divide="ignore"):
        return floored(np.cumsum(np.log10(at(ds, "step_norm", group.runs, stage)[:, ::-1]), axis=1, dtype=np.float64))


def gates_alone(ds: "xr.Dataset", group: Group, stage: str) -> Float[np.ndarray, "run unit"]:
    """log₁₀ of what the longest window would keep of each unit if only its forget gate acted, largest first."""
    with np.errstate(divide="ignore"):
        rates = 1 / at(ds, "time_constant", group.runs, stage)
    return floored(-np.sort(float(ds["window"].values[-1]) * rates / np.log(10), axis=1))


def kept(ds: "xr.Dataset", group: Group, stage: str) -> dict[str, Float[np.ndarray, " run"]]:
    """Of the longest window, in decades: `first` and `middle`, log₁₀ σ_1 and σ_{n/2}; `condition`, log₁₀ σ_1/σ_n;
    `rate`, that of the window's condition number a step; `excess`, by how much the bound is above σ_1; `gate`, what the
    slowest forget gate alone would keep; `apart`, root mean square of log₁₀ σ_i less that of the i-th slowest gate,
    over all gates, both no less than `DEEPEST`. `alive` directions of `n` keep a tenth.
    """
    longest = spectra(ds, group, stage)[:, -1]
    condition = at(ds, "window_log_condition", group.runs, stage)[:, -1]
    alone = gates_alone(ds, group, stage)
    gap = np.maximum(longest[:, : alone.shape[1]], DEEPEST) - np.maximum(alone, DEEPEST)
    n, lag = longest.shape[1], int(ds["window"].values[-1])
    return {
        "n": np.full(len(longest), float(n)),
        "first": longest[:, 0],
        "middle": longest[:, n // 2 - 1],
        "alive": (longest > ALIVE).sum(axis=1).astype(float),
        "condition": condition,
        "rate": condition / lag,
        "gate": alone[:, 0],
        "apart": np.sqrt(np.mean(gap**2, axis=1)),
        "excess": bound(ds, group, stage)[:, lag - 1] - longest[:, 0],
    }


_KEPT = ("first", "middle", "alive", "condition", "apart", "excess")
VALUES = ("learned", *(f"{name}_{when}" for when in STAGES for name in _KEPT))
"""What `columns` says of a run, besides what the grid and the specs say."""


def columns(*parts: Path) -> "xr.Dataset":
    """What the grid and the specs say of each run, and

    learned: 1 if the task's criterion is met at the newest look, else 0, be it diverged.
    first_untrained, first_trained, …: what `kept` says.

    NaN, and left out: what is trained of runs that diverged or are unfinished.
    """
    return outcomes.gathered(parts, _measured)


def _measured(part: Path) -> dict[str, np.ndarray]:
    whole, ds, of = load(part), _first_layer(part), criterion(manifest.described(part))
    gone = np.any(diverged(whole), axis=1)
    open_ = unfinished(whole)
    met = passes(ds["test_loss"].values[np.arange(len(gone)), newest(ds)], of)
    found = {name: np.full(len(gone), np.nan) for name in VALUES}
    for group in groups(ds):
        for stage in STAGES if len(group.runs) else ():
            read_ = kept(ds, group, stage)
            for name in _KEPT:
                found[f"{name}_{stage}"][group.runs] = read_[name]
    for name in VALUES:
        if name.endswith(STAGES[1]):
            found[name][gone | open_] = np.nan
    return found | {"learned": np.where(open_, np.nan, ~gone & met)}
