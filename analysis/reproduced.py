"""What a run of a reproduction counts as in claims: what `outcomes` says of it, and what papers speak of besides."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from analysis import claims, outcomes
from analysis.claims import Statistic
from analysis.lags import relative, stage
from analysis.learned import criterion
from seqdyn.runs import manifest
from seqdyn.runs.records import load

if TYPE_CHECKING:
    import xarray as xr

VALUES = (
    *outcomes.VALUES,
    *("speed", "loss_share", "spread_start", "change_start", "change_end", "kept_start", "kept_c_start"),
    *("attractors", "held"),
)
"""What `columns` says of a run, besides what the grid and the specs say."""


def columns(*parts: Path) -> "xr.Dataset":
    """What `outcomes.columns` says of each run, and

    speed: 1 / `learned_at`, 0 of what never learned.
    loss_share: `test_loss` over that of the best constant prediction.
    spread_start: decades between the largest and the smallest ‖∂L/∂h_t‖ over all lags, at initialisation.
    change_start, change_end: decades from ‖∂L/∂h_t‖ at lag 0 to that at the largest lag, below 0 where it falls. At the
        end NaN of what has diverged.
    kept_start, kept_c_start: the share that ‖∂L/∂h_t‖ and ‖∂L/∂c_t‖ keep of themselves a lag, the geometric mean over
        all lags, at initialisation; NaN without c.
    attractors, held: in how many attractors what learned goes on to, and the share that it still reads right there;
        NaN of what did not learn, and where it was not measured.
    """
    return outcomes.gathered(parts, measured)


def measured(part: Path) -> dict[str, np.ndarray]:
    """Of one part: name -> values [run]."""
    known, ds = outcomes.measured(part), load(part)
    start, end = (relative(stage(ds, "adjoint_norm", at)[:, 0]) for at in (0.0, 1.0))
    gone = (known["diverged"] == 1) | np.isnan(known["test_loss"])
    return known | {
        "speed": speed(known["learned_at"]),
        "loss_share": known["test_loss"] / criterion(manifest.described(part)).chance,
        "spread_start": _decades(start.max(axis=-1)) - _decades(start.min(axis=-1)),
        "change_start": _decades(start[:, -1]),
        "change_end": np.where(gone, np.nan, _decades(end[:, -1])),
        "kept_start": _kept(start),
        "kept_c_start": _kept(relative(_of_c(ds))),
        "attractors": np.where(known["learned"] == 1, _last(ds, "attractors"), np.nan),
        "held": np.where(known["learned"] == 1, _last(ds, "held"), np.nan),
    }


def speed(learned_at: Float[np.ndarray, " run"]) -> Float[np.ndarray, " run"]:
    """1 over the updates to learn, 0 of infinitely many: what pairs can be told apart by."""
    with np.errstate(divide="ignore"):
        return 1 / learned_at


def _of_c(ds: "xr.Dataset") -> np.ndarray:
    """‖∂L/∂c_t‖ from lag 1 on: c_T acts through h_T alone, held fixed."""
    if "adjoint_norm_c" not in ds:
        return np.full((ds.sizes["run"], 2), np.nan)
    return stage(ds, "adjoint_norm_c", 0)[:, 0, 1:]


def _last(ds: "xr.Dataset", name: str) -> np.ndarray:
    """At the last look, if that was measured."""
    return ds[name].values[:, -1] if name in ds else np.full(ds.sizes["run"], np.nan)


def _decades(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log10(values)


def _kept(ratios: np.ndarray) -> np.ndarray:
    """The geometric mean of the steps of norms over their first, up to the last that is no underflow."""
    last = np.maximum(1, (ratios > 0).sum(axis=-1) - 1)
    return np.take_along_axis(ratios, last[:, None], axis=-1)[:, 0] ** (1 / last)


# --- statistics ----------------------------------------------------------------------------------------------


def sooner(one: str, other: str, by: str = "speed", **where: Any) -> Statistic:
    """Of the seeds whose cases differ: 1 where the `one` was sooner, 0 where the `other` was."""
    return claims.prevails(claims.of(by, label=one, **where), claims.of(by, label=other, **where))


def less(one: Statistic, number: float) -> Statistic:
    """Seed by seed, less a number: how far from what theory says."""
    return lambda runs: one(runs) - number
