"""What does clipping do, and what does it not do?

Hypothesis: clipping bounds the step that an exploding gradient would make (Pascanu, Mikolov & Bengio 2013, §3.2),
so it saves runs that begin with a large recurrent gain; it multiplies a gradient by one number and so cannot bring
back the part of it that has vanished on the way, whatever lecture notes say of both problems.
Task: temporal order, T = 50. The unclipped gradient's norm is recorded at every update, with the share that was
clipped and the factor that was left. Three ways to clip: the global norm, every entry, each example's adjoint at
each step.
Cost: 960 runs × 2,000 updates, 17 minutes of processor time.
Expect, by the claims that are printed at the end: at gain 2 most unclipped runs do not diverge under Adam, and hardly
any threshold of the norm lets one learn. At gain 0.7 few runs clipped by norm or by value learn. Clipping each
example's adjoint at 0.01 and 0.1, which evens out what arrives from different examples and steps, moves the horizon
further back (mean of both); at 0.1 more learn. Whether clipping by norm moves it by less than 10 lags stays undecided.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from analysis import cures as analysis
from analysis.claims import Claim, Statistic, minus, prevails
from experiments import _cures as cures
from experiments._cures import of
from seqdyn import backend
from seqdyn.fields import Clip
from seqdyn.learn.config import Experiment
from seqdyn.runs.script import Seeds, launch_all, replicated, script


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """The grid is ways to clip × gains × thresholds × seeds."""

    seeds: Seeds = 40
    updates: int = 2000
    gains: tuple[float, ...] = (0.7, 2.0)
    """Of the orthogonal recurrence: one with which the gradient vanishes and one with which it explodes."""
    clips: tuple[float, ...] = (0.01, 0.1, 1.0, math.inf)
    """Thresholds; inf does not clip."""


def experiment(c: Config, gain: float) -> Experiment:
    """One spec a way to clip."""
    specs = tuple(cures.spec(c, f"by {way}", c.steps[0], clip=way) for way in get_args(Clip))
    return cures.experiment(c, f"clipping_{gain:g}", specs, gain=gain, clip=c.clips)


def _moved(way: str, *clip: float) -> Statistic:
    """By how many lags the horizon of gain 0.7 moves in training."""
    where: dict[str, Any] = dict(label=f"by {way}", gain=0.7, clip=clip)
    return minus(of("horizon_end", **where), of("horizon_start", **where))


CLAIMS = (
    Claim(
        "At gain 2 most unclipped runs do not diverge",
        "proportion",
        of("diverged", label="by norm", gain=2.0, clip=math.inf),
        0.5,
        "below",
    ),
    Claim(
        "At gain 2 hardly any threshold of the norm lets a run learn (share of a seed's thresholds)",
        "median",
        of("learned", label="by norm", gain=2.0),
        0.3,
        "below",
    ),
    Claim(
        "Clipped by norm, at gain 0.7 and threshold 0.1 the horizon moves by less than 10 lags",
        "difference",
        _moved("norm", 0.1),
        10.0,
        "within",
    ),
    *(
        Claim(
            f"At gain 0.7 few runs clipped by {way} learn (share of a seed's thresholds)",
            "median",
            of("learned", label=f"by {way}", gain=0.7, clip=(0.01, 0.1, 1.0)),
            0.4,
            "below",
        )
        for way in ("norm", "value")
    ),
    Claim(
        "At gain 0.7 more learn with adjoints clipped at 0.1: of the seeds that differ, most learn only so",
        "proportion",
        prevails(
            of("learned", label="by adjoint", gain=0.7, clip=0.1),
            of("learned", label="by adjoint", gain=0.7, clip=math.inf),
        ),
        0.5,
    ),
    Claim(
        "With adjoints clipped at 0.01 and 0.1 the horizon of gain 0.7 ends further back than it began (mean of both)",
        "difference",
        _moved("adjoint", 0.01, 0.1),
        0.0,
    ),
)
"""At the default length, width and gains."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), then draws, for each gain; the verdicts."""
    measures = {
        "largest ‖g‖": analysis.along("grad_norm", np.nanmax),
        "share clipped": analysis.along("clipped", np.nanmean),
        "factor left": analysis.along("clip_scale", np.nanmean),
    }
    parts = launch_all({f"gain_{gain:g}": experiment(config, gain) for gain in config.gains}, config)
    titles = {f"gain_{gain:g}": f"Clipping at recurrent gain {gain:g}" for gain in config.gains}
    return cures.report(
        CLAIMS, parts, lambda name, out, found: analysis.show(out, titles[name], "clip", measures, found)
    )


def main(config: Config) -> None:
    """As often as was asked for."""
    config = cures.with_preset(config, smoke=dict(clips=config.clips[::3], gains=config.gains[1:]))
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
