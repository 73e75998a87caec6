"""Where in the plane of gain and remedy does a simple rnn learn, how far does its gradient reach, and where is it lost?

Three maps, each over the gain of an orthogonal recurrence and one thing more, on grids finer than those of the scripts
that rank the cures:
    clip         the threshold of the gradient's global norm, SGD with momentum on a ReLU rnn
    omega        the weight λ of Pascanu's Ω (Pascanu, Mikolov & Bengio 2013, eq. 9), a tanh rnn under Adam
    activations  φ, under Adam
Hypothesis: clipping widens, towards large gains, the region where anything is learned, and not towards small ones; Ω
replaces the gain; each φ has a gain of its own, larger where its slope is smaller.
Task: temporal order, T = 50. Of each point: the share of the seeds that learned, the median horizon after training, the
share that diverged.
Cost: 1,380 runs × 1,500 updates; 600 such runs take `regularisation.py` seven and a half minutes of processor time.
Expect: no claim is tested here; the scripts on single cures test theirs at a few of these points with more seeds.
"""

import math
from dataclasses import dataclass
from typing import Literal

from analysis import maps as analysis
from experiments import _cures as cures
from seqdyn import backend
from seqdyn.learn.config import Experiment
from seqdyn.nets.activations import Activation
from seqdyn.runs.script import Seeds, launch_all, script

MapName = Literal["clip", "omega", "activations"]


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """Each map is an experiment: gains × its other axis × seeds."""

    seeds: Seeds = 6
    tile: int = 30
    maps: tuple[MapName, ...] = ("clip", "omega", "activations")
    gains: tuple[float, ...] = (0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 4.0)
    """Of the orthogonal recurrence."""
    clips: tuple[float, ...] = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, math.inf)
    """Thresholds of the global norm; inf clips nothing."""
    weights: tuple[float, ...] = (0.0, 0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
    """λ of Ω."""
    activations: tuple[Activation, ...] = ("sigmoid", "tanh", "softsign", "relu", "elu", "gelu", "identity")
    momentum: float = 0.9
    rate: float = 0.03
    """Of SGD, in the map over thresholds."""


def experiment(c: Config, name: MapName) -> Experiment:
    """Numbers are axes; activations are specs."""
    steps = c.steps[0]
    if name == "clip":
        one = cures.spec(c, "relu", steps, activation="relu", optimizer="momentum")
        return cures.experiment(c, "maps_clip", (one,), gain=c.gains, clip=c.clips, lr=c.rate, momentum=c.momentum)
    if name == "omega":
        one = cures.spec(c, "tanh", steps, penalties=("omega",))
        return cures.experiment(c, "maps_omega", (one,), gain=c.gains, omega=c.weights, clip=1.0)
    specs = tuple(cures.spec(c, activation, steps, activation=activation) for activation in c.activations)
    return cures.experiment(c, "maps_activations", specs, gain=c.gains, clip=1.0)


def main(config: Config) -> None:
    """Trains, or goes on, then draws all maps that there are."""
    config = cures.with_preset(
        config,
        smoke=dict(
            maps=config.maps[:1],
            gains=config.gains[::4],
            clips=config.clips[::4],
            weights=config.weights[::4],
            activations=config.activations[:2],
        ),
    )
    backend.start()
    analysis.show(launch_all({name: experiment(config, name) for name in config.maps}, config))


if __name__ == "__main__":
    script(Config, main, __doc__)
