"""Exploding gradients explode: what does plain descent do at the wall, and which clip saves it, at which threshold?

Hypothesis: where the recurrence grows, the loss has walls, and a step along a gradient that was taken on one lands
anywhere (Pascanu, Mikolov & Bengio 2013, §2.3 and figure 6). SGD and momentum diverge there, clipped by norm they stay,
if the threshold is no larger than the step may be and not so small that nothing moves. Adam divides the gradient by its
own size and hides what is not too large. Clipping the adjoint bounds what travels back and not the states, which the
gradient of U has as factors; no clip saves a forward pass that has overflowed.
Task: the adding problem, T = 100, a ReLU rnn from an orthogonal recurrence at gains up to 2.2 (1.41 keeps the norm of
the adjoint); and T = 200, where 32-bit numbers end. A run counts as usable if its last test loss is at most 1.25 times
a constant's. Before it, one sigmoid unit as in the paper: x' = 5 σ(x) + b, 50 steps from 0.5, and the error in b.
Cost: 3,860 runs × 600 updates, nine minutes of processor time.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optax

import seqdyn as sd
from analysis import claims
from analysis import exploding as analysis
from analysis.claims import Claim, Statistic, of, prevails
from seqdyn import backend
from seqdyn.fields import Optimizer
from seqdyn.learn.config import Experiment
from seqdyn.runs.script import Claiming, Seeds, launch_all, replicated, script, with_preset
from seqdyn.types import ConfigError


@sd.part
class PerTensor:
    """Each array of the gradient to a root mean square of at most `bound`."""

    bound: sd.Number = sd.number(1.0, above=0.0, infinite=True)

    def build(self) -> optax.GradientTransformation:
        """Of optax."""
        return optax.clip_by_block_rms(self.bound)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Config(Claiming):
    """By norm: optimisers × gains × thresholds × seeds. By other ways: SGD at `gain` alone. T = 200: a few of both."""

    seeds: Seeds = 20
    steps: int = 100
    hidden: int = 16
    batch: int = 8
    optimizers: tuple[Optimizer, ...] = ("sgd", "momentum", "adam")
    """What is clipped by norm; sgd, with which the other ways to clip are compared, is one of them."""
    ways: tuple[Literal["value", "adjoint", "tensor"], ...] = ("value", "adjoint", "tensor")
    """Other ways to clip SGD."""
    gains: tuple[float, ...] = (0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2)
    """Of the orthogonal recurrence."""
    gain: float = 2.0
    """Where the ways to clip are compared."""
    clips: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, math.inf)
    """Thresholds; inf does not clip."""
    lr: float = 0.03
    """Of SGD and momentum."""
    adam_lr: float = 3e-3
    updates: int = 600
    chunk: int = 100
    tile: int = 70


def experiments(c: Config) -> dict[str, Experiment]:
    """Part -> experiment."""
    small = dict(batch=c.batch, hidden=(c.hidden,), activation="relu", holdout=50 * c.batch)

    def one(name: str, steps: int, clips: Any, gains: Any, axis: str = "clip", **said: Any) -> Experiment:
        spec = sd.Spec("adding", steps=steps, name=name, **(small | {"optimizer": "sgd"} | said))
        lr = c.adam_lr if spec.optimizer == "adam" else c.lr
        runs = sd.grid(spec, seeds=c.seeds, gain=gains, lr=lr, **{axis: clips})
        looks = c.chunk * max(1, c.updates // c.chunk // 3)
        return Experiment(
            f"exploding_{name}", runs, updates=c.updates, chunk=c.chunk, probe_every=looks, tile=c.tile, probes=()
        )

    by_norm: Any = {o: one(o, c.steps, c.clips, c.gains, optimizer=o) for o in c.optimizers}
    ways = {w: one(w, c.steps, c.clips, [c.gain], clip=w) for w in c.ways if w != "tensor"}
    if "tensor" in c.ways:
        ways["tensor"] = one("tensor", c.steps, c.clips, [c.gain], axis="bound", clip=PerTensor())
    long = one("overflow", 2 * c.steps, [1.0, math.inf], [c.gains[0], max(c.gains)])
    return by_norm | ways | {"overflow": long}


PASCANU = "Pascanu et al. 2013, §3.2"


def _of(column: str, part: str, threshold: float, gain: float | tuple[float, ...]) -> Statistic:
    """At the default lengths."""
    axis = "bound" if part == "tensor" else "clip"
    steps = 200 if part == "overflow" else 100
    return of(column, label=part, steps=steps, gain=gain, **{axis: threshold})


WALL = (1.4, 1.6, 1.8)
"""Gains at which the backward pass explodes and the forward pass does not overflow."""


def _saved(part: str, threshold: float) -> Statistic:
    """Of the seeds for which a clip changes how many gains of `WALL` end usable: 1 where more do."""
    return prevails(_of("usable", part, threshold, WALL), _of("usable", part, math.inf, WALL))


CLAIMS = (
    Claim("Without a clip SGD diverges from gain 1.8", "proportion", _of("diverged", "sgd", math.inf, 1.8), 0.5),
    Claim("Without a clip momentum does", "proportion", _of("diverged", "momentum", math.inf, 1.8), 0.5),
    Claim(
        "Clipped by norm at 10, SGD ends usable from more of the gains 1.4 to 1.8 than without: of the seeds that "
        "differ, most",
        "proportion",
        _saved("sgd", 10.0),
        0.5,
        source=PASCANU,
    ),
    Claim(
        "Clipped by norm at 1, momentum does",
        "proportion",
        _saved("momentum", 1.0),
        0.5,
        source=PASCANU,
    ),
    Claim(
        "Clipped by norm at 0.001, SGD from gain 1.6 ends unusable",
        "proportion",
        _of("usable", "sgd", 0.001, 1.6),
        0.5,
        "below",
    ),
    Claim(
        "Without a clip Adam does not diverge from gain 1.4",
        "proportion",
        _of("diverged", "adam", math.inf, 1.4),
        0.5,
        "below",
    ),
    Claim(
        "But it ends unusable from gain 2",
        "proportion",
        _of("usable", "adam", math.inf, 2.0),
        0.5,
        "below",
    ),
    Claim(
        "Clipped by norm at 1, Adam ends usable from more of the gains 1.4 to 1.8 than without: of the seeds that "
        "differ, most",
        "proportion",
        _saved("adam", 1.0),
        0.5,
    ),
    Claim(
        "With adjoints clipped at 0.1 SGD ends unusable from gain 2",
        "proportion",
        _of("usable", "adjoint", 0.1, 2.0),
        0.5,
        "below",
    ),
    Claim(
        "At T = 200, from gain 2.2, SGD diverges though clipped by norm at 1",
        "proportion",
        _of("diverged", "overflow", 1.0, 2.2),
        0.5,
    ),
    Claim(
        "Without a clip SGD ends usable from gain 0.8",
        "proportion",
        _of("usable", "sgd", math.inf, 0.8),
        0.5,
    ),
)
"""At the default lengths."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), then draws; the verdicts."""
    parts = launch_all(experiments(config), config)
    return claims.report(CLAIMS, list(parts.values()), lambda verdicts: analysis.show(parts, config.gain, verdicts))


def main(config: Config) -> None:
    """As often as was asked for."""
    smoke = dict(gains=(1.0, 2.2), clips=(1.0, math.inf), seeds=2, steps=10, hidden=4, batch=4, updates=20, chunk=10)
    config = with_preset(config, smoke | dict(optimizers=("sgd",), ways=("tensor",), tile=4))
    if "sgd" not in config.optimizers or not set(config.optimizers) <= set(analysis.OPTIMIZERS):
        raise ConfigError(f"optimizers is {config.optimizers}; it must be sgd and some of momentum and adam.")
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
