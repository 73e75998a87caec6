"""The networks that `experiments.edge_of_chaos` trained, over the plane of gain and drive: what they learned, and where
theory puts them.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from analysis.lags import axis, picked
from analysis.learned import Criterion, latest, passes
from analysis.style import median
from seqdyn.data.synthetic import xor_steps
from seqdyn.learn.config import Experiment
from seqdyn.theory import MeanField

if TYPE_CHECKING:
    import xarray as xr


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
