"""How sharp the loss was along `experiments.edge_of_stability`, how its runs ended, and what reached their first step.

All curvature is read in units of 2/η: at 1 a step of gradient descent turns an error along that direction into its
negative, above 1 it grows. The late stage of a run is the last quarter of its looks.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from analysis import lags, outcomes
from analysis.lags import diverged
from analysis.learned import unfinished
from analysis.style import median
from seqdyn.runs.records import load

if TYPE_CHECKING:
    import xarray as xr

LATE = 0.25
"""Share of the looks, the last ones, that a run's late stage is read from."""
NEAR = 0.2
"""At the edge: the late sharpness is within this of 2/η, and the steps bounce."""


@dataclass(frozen=True)
class Records:
    """What is read of the runs, the first axis of everything."""

    ds: "xr.Dataset"

    @cached_property
    def half_lr(self) -> Float[np.ndarray, "run 1"]:
        """η/2: times a curvature, it is the curvature in units of 2/η."""
        return np.asarray(self.ds["lr"].values)[:, None] / 2

    @cached_property
    def sharpness(self) -> Float[np.ndarray, "run probe"]:
        """Over 2/η."""
        return self.ds["sharpness"].values * self.half_lr

    @cached_property
    def along(self) -> Float[np.ndarray, "run probe"]:
        """gᵀHg / ‖g‖² over 2/η."""
        return self.ds["directional_sharpness"].values * self.half_lr

    @cached_property
    def reach(self) -> Float[np.ndarray, "run step"]:
        """‖∂L/∂h_t‖ at the largest lag over that at lag 0, in the top layer."""
        norms = lags.adjoint(self.ds, "adjoint_norm").transpose("run", "step", "layer", "time").values[:, :, -1, ::-1]
        return lags.relative(norms)[..., -1]

    @cached_property
    def diverged(self) -> Bool[np.ndarray, " run"]:
        return np.asarray(diverged(self.ds).any(axis=1))

    def late(self, values: Float[np.ndarray, "run n"]) -> Float[np.ndarray, "run m"]:
        """The last quarter of what a run that did not diverge has; all NaN for one that did."""
        made = self.ds["recorded"].values.mean(axis=1)
        count = max(1, round(LATE * values.shape[1]))
        ends = np.maximum(np.round(made * values.shape[1]).astype(int), count)
        stretch = np.stack([row[end - count : end] for row, end in zip(values, ends, strict=True)])
        return np.where(self.diverged[:, None], np.nan, stretch)

    def late_median(self, values: Float[np.ndarray, "run n"]) -> Float[np.ndarray, " run"]:
        """Each run's median over its late stage."""
        return median(self.late(values).T)

    @cached_property
    def near(self) -> Float[np.ndarray, " run"]:
        """The share of a run's late looks at which the sharpness is within `NEAR` of 2/η."""
        late = self.late(self.sharpness)
        return np.where(np.isnan(late).any(axis=1), np.nan, (np.abs(late - 1) < NEAR).mean(axis=1))

    @cached_property
    def outcome(self) -> np.ndarray:
        """'diverged', 'at the edge', 'below' or 'above' it; near it without bouncing is below."""
        late, bounces = self.late_median(self.sharpness), self.late_median(self.ds["gradient_cosine"].values) < 0
        told = {"diverged": self.diverged, "above": late > 1 + NEAR, "at the edge": (late > 1 - NEAR) & bounces}
        return np.select(list(told.values()), list(told), "below")

    @cached_property
    def crossing(self) -> Float[np.ndarray, " run"]:
        """The update of the first look at which the sharpness has risen past 2/η; NaN if it never did."""
        rose = (self.sharpness[:, :-1] < 1) & (self.sharpness[:, 1:] >= 1)
        at = self.ds["probe_step"].values[1:][rose.argmax(axis=1)]
        return np.where(rose.any(axis=1), at.astype(float), np.nan)

    @cached_property
    def reach_crossing(self) -> Float[np.ndarray, " run"]:
        """`reach` at the update of `crossing`, NaN without one."""
        at = np.nan_to_num(self.crossing).astype(int)
        last = self.reach.shape[1] - 1
        return np.where(np.isnan(self.crossing), np.nan, self.reach[np.arange(len(at)), np.minimum(at, last)])


VALUES = ("met", "edge", "off", "diverged", "grown_before", "grown_after", "test_loss")
"""What `columns` says of a run, besides what the grid and the specs say."""


def columns(*parts: Path) -> "xr.Dataset":
    """What the grid and the specs say of each run, and

    met: of what started below 2/η, 1 if its sharpness rose past 2/η at some look, else 0.
    edge: 1 if it ended at the edge; off: its late sharpness over 2/η, less 1; diverged: 1 or 0.
    grown_before, grown_after: of what started below 2/η and met it, log₁₀ of the factor by which `Records.reach` grew
        until then, and from then to the late stage.
    test_loss: late.

    NaN, and left out: `met` and growth of what started above, what is late in a run that diverged, and all but
    `diverged` of a run that is unfinished.
    """
    return outcomes.gathered(parts, _measured)


def _measured(part: Path) -> dict[str, np.ndarray]:
    r = Records(load(part))
    flat, open_ = r.sharpness[:, 0] < 1, unfinished(r.ds)
    with np.errstate(divide="ignore", invalid="ignore"):
        start, met, late = np.log10([r.reach[:, 0], r.reach_crossing, r.late_median(r.reach)])
    ended = {
        "met": np.where(flat, np.isfinite(r.crossing), np.nan),
        "edge": (r.outcome == "at the edge").astype(float),
        "off": r.late_median(r.sharpness) - 1,
        "grown_before": np.where(flat, met - start, np.nan),
        "grown_after": np.where(flat, late - met, np.nan),
        "test_loss": r.late_median(r.ds["test_loss"].values),
    }
    closed = {name: np.where(open_, np.nan, values) for name, values in ended.items()}
    return {"diverged": r.diverged.astype(float)} | closed
