"""The networks that `experiments.edge_of_chaos` trained, over the plane of gain and drive: what they learned, and where
theory puts them.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from analysis import outcomes
from analysis.lags import axis, diverged, picked
from analysis.learned import Criterion, criterion, latest, passes, unfinished
from analysis.style import median
from seqdyn.data.synthetic import xor_steps
from seqdyn.learn.config import Experiment
from seqdyn.runs import manifest
from seqdyn.runs.records import load
from seqdyn.theory import MeanField

if TYPE_CHECKING:
    import xarray as xr

DEPTHS = 6
"""A signal is thought to reach over d steps where 6 ξ ≥ d. Schoenholz et al. 2017."""


@dataclass(frozen=True)
class Plane:
    """The trained networks, by run."""

    ds: "xr.Dataset"
    experiment: Experiment
    criterion: Criterion

    @property
    def delay(self) -> int:
        """d, steps from the first of the two bits to the answer."""
        steps = self.experiment.specs[0].steps
        return steps - 1 - xor_steps(steps)[0]

    @cached_property
    def loss(self) -> Float[np.ndarray, " run"]:
        """Test loss at the latest probe over that of a coin."""
        return latest(self.ds["test_loss"].values) / self.criterion.chance

    @cached_property
    def learned(self) -> Bool[np.ndarray, " run"]:
        return passes(latest(self.ds[self.criterion.metric].values), self.criterion)

    def exponent(self, after: bool) -> Float[np.ndarray, " run"]:
        """The largest exponent on the task's own sequences."""
        values = self.ds["lyapunov_exponent"].values[:, :, 0, 0]
        return latest(values) if after else values[:, 0]

    @cached_property
    def growth(self) -> Float[np.ndarray, " run"]:
        """E‖∂L/∂h_t‖² a step further from the loss at the first update, over lags 1 … d: nearer to the start the state
        is not far from rest."""
        norms = self.ds["adjoint_norm"].isel(step=0, layer=0).values[:, ::-1][:, 1 : self.delay + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            energy = 2 * np.log(norms)
        lags = np.arange(energy.shape[1]) - (energy.shape[1] - 1) / 2
        return np.exp(energy @ lags / (lags @ lags))

    @cached_property
    def log_chi1(self) -> Float[np.ndarray, " run"]:
        """Theory's log χ₁ at each run's gain and drive."""
        at = zip(self.ds["gain"].values.tolist(), self.ds["input_gain"].values.tolist(), strict=True)
        found = {point: np.log(MeanField("tanh", *point).chi1) for point in set(at)}
        at = zip(self.ds["gain"].values.tolist(), self.ds["input_gain"].values.tolist(), strict=True)
        return np.asarray([found[point] for point in at])

    def over_seeds(self, values: np.ndarray, by: Any = median) -> Float[np.ndarray, "gain drive"]:
        """A run's quantity on the plane."""
        rows = [
            [by(values[picked(self.ds, gain=g, input_gain=s)]) for s in axis(self.ds, "input_gain")]
            for g in axis(self.ds, "gain")
        ]
        return np.asarray(rows, np.float64)


VALUES = ("within", "near", "learned", "exponent_end", "distance_start", "distance_end", "off")
"""What `columns` says of a run, besides what the grid and the specs say."""


def columns(*parts: Path) -> "xr.Dataset":
    """What the grid and the specs say of each run, and

    within: 1 where 6ξ ≥ d by theory, else 0; near: 1 where 3ξ ≥ d.
    learned: 1 if the task's criterion is met at the latest look, else 0, be it diverged.
    exponent_end: the largest exponent at the latest look; distance_start, distance_end: how far from 0 it is.
    off: how far the exponent at the start is from ½ log χ₁.

    NaN, and left out: the ends of what is unfinished, and exponents at the end of what diverged.
    """
    return outcomes.gathered(parts, _measured)


def _measured(part: Path) -> dict[str, np.ndarray]:
    plane = Plane(load(part), manifest.experiment(part), criterion(manifest.described(part)))
    gone = np.any(diverged(plane.ds), axis=1)
    open_ = unfinished(plane.ds)
    depths = plane.delay * np.abs(plane.log_chi1)
    start = plane.exponent(after=False).astype(float)
    end = np.where(gone | open_, np.nan, plane.exponent(after=True))
    return {
        "within": (depths <= DEPTHS).astype(float),
        "near": (depths <= DEPTHS / 2).astype(float),
        "learned": np.where(open_, np.nan, ~gone & plane.learned),
        "exponent_end": end,
        "distance_start": np.abs(start),
        "distance_end": np.abs(end),
        "off": np.abs(start - plane.log_chi1 / 2),
    }
