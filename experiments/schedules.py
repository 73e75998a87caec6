"""Can a schedule of the learning rate save a run that explodes?

Hypothesis: from a recurrent gain of 2 the first gradients are orders of magnitude too large, and Adam's first steps
are of the size of the learning rate whatever the gradient's, so warm-up helps early and decay late; plain descent
(SGD) diverges without clipping under every schedule and lives with it. 1/t: Robbins & Monro 1951; cosine:
Loshchilov & Hutter 2017.
Task: temporal order, T = 50.
Cost: 160 runs × 3,000 updates, six minutes on two cores.
Expect: nothing learns from this gain and nothing diverges, since tanh bounds the state; what the gradient becomes
differs. SGD's first, enormous steps saturate the units: a gradient that grew by 2,000 over 50 lags ends with a horizon
of 1 to 4 lags unclipped, 8 to 20 clipped, whatever the schedule; after a warm-up of 300 updates it is 8 to 17 either
way. Under Adam it still explodes at the end (by 50 to 2,000), least with a constant rate and clipping.
"""

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np

from analysis import cures as analysis
from experiments import _cures as cures
from seqdyn import backend
from seqdyn.fields import Optimizer, Schedule
from seqdyn.learn.config import Experiment, Spec
from seqdyn.runs.script import launch_all, script


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """Each optimiser and warm-up is an experiment: schedules × clipping × seeds."""

    optimizers: tuple[Optimizer, ...] = ("sgd", "adam")
    """sgd takes `sgd_lr`, every other one `lr`."""
    schedules: tuple[Schedule, ...] = get_args(Schedule)
    """How the rate falls after warm-up."""
    gain: float = 2.0
    """Of the orthogonal recurrence: the gradient explodes."""
    clips: tuple[float, ...] = (1.0, math.inf)
    """Bounds on the gradient's global norm; inf does not clip."""
    warmup: float = 300.0
    """Updates of a linear rise, in the runs that have one."""
    sgd_lr: float = 0.1
    """The learning rate of SGD; `lr` is Adam's."""


def experiment(c: Config, optimizer: Optimizer, warmup: float) -> Experiment:
    """One spec a schedule; each has fallen by the end."""
    rises = ", warm-up" if warmup else ""

    def of(schedule: Schedule) -> Spec:
        name = f"{'1/t' if schedule == 'inverse' else schedule}{rises}"
        return cures.spec(c, name, c.steps[0], schedule=schedule, optimizer=optimizer)

    falls = float(c.updates)
    rate = c.sgd_lr if optimizer == "sgd" else c.lr
    specs = tuple(of(s) for s in c.schedules)
    name = f"schedules_{optimizer}{'_warm' if warmup else ''}"
    return cures.experiment(c, name, specs, gain=c.gain, clip=c.clips, lr=rate, warmup=warmup, decay_steps=falls)


def main(config: Config) -> None:
    """Trains (or goes on), then draws, with and without warm-up."""
    config = cures.sized(
        config, smoke=dict(warmup=5.0, optimizers=config.optimizers[:1], schedules=config.schedules[::3])
    )
    backend.start()
    measures = {"test loss": analysis.probed("test_loss"), "largest ‖g‖": analysis.along("grad_norm", np.nanmax)}
    wanted = {
        f"{optimizer}{'_warm' if warmup else ''}": experiment(config, optimizer, warmup)
        for optimizer in config.optimizers
        for warmup in (0.0, config.warmup)
    }
    for part, out in launch_all(wanted, config).items():
        analysis.show(out, f"Schedules: {part.replace('_', ', ')}", "clip", measures)


if __name__ == "__main__":
    script(Config, main, __doc__)
