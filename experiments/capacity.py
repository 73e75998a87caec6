"""How much can a recurrent network fit, and when is it too much? Its capacity in use grows as it is trained.
Polynomials, whose capacity is counted in coefficients, are asked the same in `polynomials.py`.

scikit-learn's digits read row by row, a tanh rnn, width × {50, 200, 1,000} training sequences × {0, 20%} wrong
training labels (Nakkiran et al. 2020) × 3 seeds, Adam, 4,000 updates of 25 sequences. The update is chosen by
validation loss. Weight norms, spectral radius and ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ are followed along training: over 8 rows the
horizon is censored.
Cost: about six minutes of processor time for 108 networks in 18 programs (most of it compiling), two more to verify
gradients: four to five minutes on two cores.
Expect: with 1,000 sequences and right labels wider is better to the end (64 units tell 2% of the test digits wrong, 8
units 12%, 2 units 58%), and longer training harms nobody. With 20% wrong labels 64 units tell 10% wrong where
validation stops them, after 800 updates. In the end they know the wrong labels by heart and tell 22% wrong; 8 units,
which cannot learn them, end at 14%. Meanwhile the spectral radius grows from 1 to 1.6 at the stop and 2.3 in the end,
and ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ from 0.4 to 1.5 and 2.7.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import capacity as analysis
from seqdyn import backend
from seqdyn.data.packaged import digits
from seqdyn.data.splits import balanced_order
from seqdyn.data.text import Examples
from seqdyn.fields import CellName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.script import Presets, Seeds, fingerprint, launch_all, script, seeds, with_preset
from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config(Presets):
    """Width × training sequences × label noise × seeds."""

    cell: CellName = "rnn"
    """Recurrent cell."""
    hidden: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    """Widths of the recurrent layer, a compiled program each."""
    training: tuple[int, ...] = (50, 200, 1000)
    """Numbers of training sequences, an experiment each; a smaller set is part of a larger one."""
    wrong: tuple[float, ...] = (0.0, 0.2)
    """Shares of the training labels that are replaced by another class, an experiment each."""
    seeds: Seeds = 3
    batch: int = 25
    lr: float = 3e-3
    updates: int = 4000
    """Of each network."""
    chunk: int = 200
    """Updates in one compiled call, and between two looks."""


SMOKE: dict[str, Any] = dict(hidden=(4,), training=(50,), seeds=2, updates=40, chunk=20)
PAPER: dict[str, Any] = dict(seeds=10, updates=20_000, wrong=(0.0, 0.1, 0.2, 0.4), chunk=400)
PAPER |= dict(hidden=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512))


def fewer(whole: Examples, n: int, wrong: float) -> Examples:
    """The first n training sequences in a balanced order, a share of their labels replaced by another class."""
    if not 1 <= n <= len(whole.ys):
        raise ConfigError(f"training has {n}; the digits have 1 to {len(whole.ys)} training sequences.")
    rows, rng = balanced_order(whole.ys, seed=0)[:n], np.random.default_rng(4)
    classes = int(whole.ys.max()) + 1
    shift = np.where(rng.permutation(n) < round(wrong * n), rng.integers(1, classes, n), 0)
    return Examples(whole.xs[rows], whole.lengths[rows], ((whole.ys[rows] + shift) % classes).astype(np.int32))


def data(c: Config) -> dict[str, dict[str, Examples]]:
    """By experiment: the digits with few training sequences, validation and test whole and with the right labels."""
    whole = digits()
    return {
        analysis.part(n, wrong): whole | {"train": fewer(whole["train"], n, wrong)}
        for wrong in c.wrong
        for n in c.training
    }


def experiment(c: Config, name: str, examples: dict[str, Examples]) -> Experiment:
    """A spec a width."""
    _, steps, features = examples["train"].xs.shape
    specs = tuple(
        Spec(
            task="labelled",
            steps=steps,
            batch=c.batch,
            features=features,
            classes=int(examples["test"].ys.max()) + 1,
            cell=c.cell,
            hidden=(h,),
            evaluate_train=True,
            name=f"{c.cell}, {h}",
        )
        for h in c.hidden
    )
    return Experiment(
        f"capacity_{name}",
        specs,
        grid(seeds=c.seeds, lr=c.lr),
        c.updates,
        c.chunk,
        probe_every=c.chunk,
        tile=len(seeds(c.seeds)),
        probes=("weights", "updates"),
        settings={"data": fingerprint(examples)},
    )


def check(c: Config) -> None:
    """Raises ConfigError for what neither a `Spec` nor a grid would say."""
    for name, value, right, rule in (
        ("wrong", c.wrong, c.wrong and all(0 <= w <= 1 for w in c.wrong), "shares between 0 and 1"),
        ("training", c.training, len(c.training) > 0, "at least one number of training sequences"),
        ("batch", c.batch, c.batch <= min(c.training, default=0), f"at most training, {min(c.training, default=0)}"),
    ):
        if not right:
            raise ConfigError(f"{name} is {value}; it must be {rule}.")


def main(config: Config) -> None:
    """Trains (or goes on), then draws."""
    config = with_preset(config, SMOKE, PAPER)
    check(config)
    backend.start()
    given = data(config)
    parts = launch_all({name: experiment(config, name, examples) for name, examples in given.items()}, config, given)
    out = next(iter(parts.values())).parent
    analysis.show(out, list(parts))


if __name__ == "__main__":
    script(Config, main, __doc__)
