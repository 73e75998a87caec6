"""Singular values of ∂state_T/∂state_t by window, read from the records of `experiments.jacobian_spectra`, in decades:
log₁₀ σ, beside what bounds it and what the gates alone would keep.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.lags import axis, having, picked, split
from seqdyn.runs import manifest
from seqdyn.runs.records import load

if TYPE_CHECKING:
    import xarray as xr

NAMES = ("test_loss", "window_log_singular", "window_log_condition", "step_norm", "time_constant")
NOTHING = -1e6
"""Decades, for log 0: so far below every panel that a quantile which it enters leaves the panel, too."""
STAGES = ("untrained", "trained")


def read(out: Path) -> "xr.Dataset":
    """The probes' records of the run directory and of those in it, one per further initialisation, as one."""
    import xarray as xr

    inside = sorted(path.parent for path in out.glob(f"*/{manifest.NAME}") if not manifest.extends(path.parent))
    parts = [having(load(path), *NAMES) for path in (out, *inside)]
    found = xr.concat(
        [part[list(NAMES)].isel(layer=0).assign_coords(run=part["run"] + 1000 * i) for i, part in enumerate(parts)],
        "run",
        join="outer",
    ).load()
    return split(found, "u_init")


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
