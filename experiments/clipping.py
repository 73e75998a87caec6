"""What does clipping do, and what does it not do?

Hypothesis: clipping bounds the step that an exploding gradient would make (Pascanu, Mikolov & Bengio 2013, §3.2),
so it saves runs that begin with a large recurrent gain; it multiplies a gradient by one number and so cannot bring
back the part of it that has vanished on the way, whatever lecture notes say of both problems.
Task: temporal order, T = 50. The unclipped gradient's norm is recorded at every update, with the share that was
clipped and the factor that was left. Three ways to clip: the global norm, every entry, each example's adjoint at
each step.
Cost: 90 runs × 3,000 updates, five minutes on two cores.
Expect: no run diverges, with Adam even unclipped. At gain 2 none learns, whatever the threshold. At gain 0.7
clipping by norm or value leaves the horizon where it is at the start (11 lags) and lets at most one seed of three
learn; clipping the adjoint at 0.01 or 0.1, which evens out what arrives from different examples and steps, lets two
learn.
"""

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np

from analysis import cures as analysis
from experiments import _cures as cures
from seqdyn import backend
from seqdyn.fields import Clip
from seqdyn.learn.config import Experiment
from seqdyn.runs.script import Seeds, launch_all, script


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """The grid is ways to clip × gains × thresholds × seeds."""

    seeds: Seeds = 3
    lr: float = 3e-3
    """Adam's learning rate: large, so that there is something to save."""
    gains: tuple[float, ...] = (0.7, 2.0)
    """Of the orthogonal recurrence: one with which the gradient vanishes and one with which it explodes."""
    clips: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, math.inf)
    """Thresholds; inf does not clip."""


def experiment(c: Config, gain: float) -> Experiment:
    """One spec a way to clip."""
    specs = tuple(cures.spec(c, f"by {way}", c.steps[0], clip=way) for way in get_args(Clip))
    return cures.experiment(c, f"clipping_{gain:g}", specs, gain=gain, clip=c.clips)


def main(config: Config) -> None:
    """Trains (or goes on), then draws, for each gain."""
    config = cures.sized(config, smoke=dict(clips=config.clips[::4], gains=config.gains[1:]))
    backend.start()
    measures = {
        "largest ‖g‖": analysis.along("grad_norm", np.nanmax),
        "share clipped": analysis.along("clipped", np.nanmean),
        "factor left": analysis.along("clip_scale", np.nanmean),
    }
    parts = launch_all({f"gain_{gain:g}": experiment(config, gain) for gain in config.gains}, config)
    for gain, out in zip(config.gains, parts.values(), strict=True):
        analysis.show(out, f"Clipping at recurrent gain {gain:g}", "clip", measures)


if __name__ == "__main__":
    script(Config, main, __doc__)
