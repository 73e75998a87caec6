"""What a run counts as in claims: one value a run of what was swept, what was learned, how far the gradient reaches.

An analysis whose claims are about something else has `VALUES` and `columns` of its own, made by `gathered`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import lags
from analysis.lags import diverged, stage
from analysis.learned import criterion, latest, learned_at, statuses
from seqdyn.runs import manifest
from seqdyn.runs.records import load

if TYPE_CHECKING:
    import xarray as xr

USABLE = 1.25
"""A test loss up to this share of the constant predictor's: what exploded is far above, held-out noise below."""


VALUES = (
    *("learned", "learned_at", "diverged", "usable", "test_loss", "largest_gradient"),
    *("horizon_start", "horizon_end", "slope_start", "slope_end", "below_start", "below_end"),
)
"""What `columns` says of a run, besides what the grid and the specs say."""


def gathered(parts: Sequence[Path], of_part: Callable[[Path], Mapping[str, Any]]) -> "xr.Dataset":
    """One value a run, of all parts of an experiment together: what the grid and the specs say of it, the name of the
    `experiment` that is its part, and what `of_part` says of a part, name -> values [run]."""
    import xarray as xr

    found = []
    for part in parts:
        ds = load(part)
        of_runs = {str(name): of.values for name, of in ds.coords.items() if of.dims == ("run",)}
        values = of_runs | {"experiment": np.full(ds.sizes["run"], ds.attrs["name"])} | dict(of_part(part))
        found.append(xr.Dataset({name: ("run", of) for name, of in values.items() if name != "run"}))
    whole: xr.Dataset = xr.concat(found, "run")  # type: ignore[assignment]
    return whole


def columns(*parts: Path) -> "xr.Dataset":
    """What the grid and the specs say of each run, and

    diverged: 1 or 0; learned: 1 if the task's criterion was met at some look, else 0, be it diverged; unfinished: NaN.
    learned_at: updates to that look, infinity if there was none.
    horizon_start, horizon_end: in lags, T where it is censored; 0 of what has diverged by then.
    slope_start, slope_end: mean change of log ‖∂L/∂h_t‖ a lag, from lag 0 to the horizon; below_start, below_end: the
        first layer's gradient over the last's, see `lags.below`. At the end NaN of what has diverged.
    test_loss: at the last look, infinity of what has diverged; usable: 1 if it is at most 1.25 times a constant's.
    largest_gradient: the largest finite ‖g‖, before clipping.

    What is not known of a run that is unfinished is NaN, and left out.
    """
    return gathered(parts, measured)


def measured(part: Path) -> dict[str, np.ndarray]:
    """Of one part: what `columns` says, name -> values [run]."""
    ds, of = load(part), criterion(manifest.described(part))
    gone = np.any(diverged(ds), axis=1)
    stages = {when: stage(ds, "adjoint_norm", at) for when, at in (("start", 0.0), ("end", 1.0))}
    norms = {when: of_it[:, 0] for when, of_it in stages.items()}
    horizons = {when: lags.horizon(values) for when, values in norms.items()}
    sizes = ds["grad_norm"].values.astype(float)
    met, open_ = learned_at(ds, of), statuses(ds, of) == "unfinished"
    learned, loss = np.isfinite(met).astype(float), latest(ds["test_loss"].values)
    return {
        "learned": np.where(open_ & (learned == 0), np.nan, learned),
        "learned_at": np.where(open_, met, np.nan_to_num(met, nan=np.inf)),
        "diverged": gone.astype(float),
        "horizon_start": np.where(gone, np.nan_to_num(horizons["start"]), horizons["start"]),
        "horizon_end": np.where(gone, np.nan_to_num(horizons["end"]), np.where(open_, np.nan, horizons["end"])),
        "slope_start": _slope(norms["start"], horizons["start"]),
        "slope_end": np.where(gone | open_, np.nan, _slope(norms["end"], horizons["end"])),
        "below_start": lags.below(stages["start"]),
        "below_end": np.where(gone | open_, np.nan, lags.below(stages["end"])),
        "test_loss": np.where(open_, np.nan, np.where(gone, np.inf, loss)),
        "usable": np.where(open_, np.nan, ~gone & (loss <= USABLE * of.chance)),
        "largest_gradient": np.max(sizes, axis=1, initial=0, where=np.isfinite(sizes)),
    }


def _slope(norms: np.ndarray, horizons: np.ndarray) -> np.ndarray:
    """Mean change of the norm's logarithm a lag, over the lags up to the horizon."""
    last = np.minimum(np.nan_to_num(horizons, nan=1), lags.ends(norms) - 1).astype(int)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.take_along_axis(lags.relative(norms), last[:, None], axis=1)[:, 0]) / last
