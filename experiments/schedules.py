"""Can a schedule of the learning rate save a run that explodes?

Hypothesis: from a recurrent gain of 2 the first gradients are orders of magnitude too large, and Adam's first steps
are of the size of the learning rate whatever the gradient's, so warm-up helps early and decay late; plain descent
(SGD) diverges without clipping under every schedule and lives with it. 1/t: Robbins & Monro 1951; cosine:
Loshchilov & Hutter 2017.
Task: temporal order, T = 50.
Cost: 288 runs × 1,500 updates, three and a half minutes of processor time.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis import cures as analysis
from analysis.claims import Claim, Statistic, minus
from experiments import _cures as cures
from experiments._cures import of
from seqdyn import backend
from seqdyn.fields import Optimizer, Schedule
from seqdyn.learn.config import Experiment, Spec
from seqdyn.runs.script import launch_all, replicated, script


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """Each optimiser and warm-up is an experiment: schedules × clipping × seeds."""

    tile: int = 12
    optimizers: tuple[Optimizer, ...] = ("sgd", "adam")
    """sgd takes `sgd_lr`, every other one `lr`."""
    schedules: tuple[Schedule, ...] = ("constant", "cosine", "inverse")
    """How the rate falls after warm-up; exponential, too."""
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


SGD, ADAM = 0.1, 3e-3
"""The rates, by which claims tell the optimisers apart."""
PLAIN = ("constant", "cosine", "1/t")
WARM = tuple(f"{name}, warm-up" for name in PLAIN)


def _unclipped(*labels: str) -> Statistic:
    """Where SGD's gradient ends."""
    return of("horizon_end", label=labels, lr=SGD, clip=math.inf)


CLAIMS = (
    Claim(
        "From gain 2 Adam learns under hardly any schedule (share of a seed's settings)",
        "median",
        of("learned", lr=ADAM),
        0.2,
        "below",
    ),
    Claim("Nor does SGD (share of a seed's settings)", "median", of("learned", lr=SGD), 0.2, "below"),
    Claim(
        "Hardly any run diverges (share of a seed's settings)",
        "median",
        of("diverged"),
        0.05,
        "below",
    ),
    Claim(
        "Unclipped and without warm-up SGD's gradient ends within 10 lags (mean over schedules)",
        "median",
        _unclipped(*PLAIN),
        10.0,
        "below",
    ),
    Claim(
        "Clipped, SGD's gradient ends further back",
        "difference",
        minus(of("horizon_end", label=PLAIN, lr=SGD, clip=1.0), _unclipped(*PLAIN)),
        0.0,
    ),
    Claim(
        "After a warm-up unclipped SGD's gradient ends further back",
        "difference",
        minus(_unclipped(*WARM), _unclipped(*PLAIN)),
        0.0,
    ),
    Claim(
        "Under Adam the gradient still grows with the lag at the end (mean over settings)",
        "slope",
        of("slope_end", lr=ADAM),
        0.0,
    ),
)
"""At the default length, width, gain and rates."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), then draws, with and without warm-up; the verdicts."""
    measures = {"test loss": analysis.probed("test_loss"), "largest ‖g‖": analysis.along("grad_norm", np.nanmax)}
    wanted = {
        f"{optimizer}{'_warm' if warmup else ''}": experiment(config, optimizer, warmup)
        for optimizer in config.optimizers
        for warmup in (0.0, config.warmup)
    }
    titles = {part: f"Schedules: {part.replace('_', ', ')}" for part in wanted}
    parts = launch_all(wanted, config)
    return cures.report(
        CLAIMS, parts, lambda part, out, found: analysis.show(out, titles[part], "clip", measures, found)
    )


def main(config: Config) -> None:
    """As often as was asked for."""
    config = cures.with_preset(
        config, smoke=dict(warmup=5.0, optimizers=config.optimizers[:1], schedules=config.schedules[2:])
    )
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
