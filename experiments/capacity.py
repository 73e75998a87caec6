"""How much can a recurrent network fit, and when is it too much? Its capacity in use grows as it is trained.
Polynomials, whose capacity is counted in coefficients, are asked the same in `polynomials.py`.

scikit-learn's digits read row by row, a tanh rnn, width × {50, 200, 1,000} training sequences × {0, 20%} wrong
training labels (Nakkiran et al. 2020) × 10 seeds, Adam, 4,000 updates of 25 sequences. The update is chosen by
validation loss. Weight norms, spectral radius and ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ are followed along training: over 8 rows the
horizon is censored.
Hypothesis: longer training with wrong labels harms networks that are wide enough to know them by heart, and no others;
meanwhile the spectral radius grows, and with it the share of the gradient that reaches the first row.
Cost: 360 networks in 18 programs, eight and a half minutes of processor time.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import capacity as analysis
from analysis import claims
from analysis.claims import Claim, Statistic, minus, of
from seqdyn import backend
from seqdyn.data.packaged import digits
from seqdyn.data.splits import balanced_order
from seqdyn.data.text import Examples
from seqdyn.fields import CellName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.script import (
    Claiming,
    Presets,
    Seeds,
    fingerprint,
    launch_all,
    replicated,
    script,
    seeds,
    with_preset,
)
from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config(Presets, Claiming):
    """Width × training sequences × label noise × seeds."""

    cell: CellName = "rnn"
    """Recurrent cell."""
    hidden: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    """Widths of the recurrent layer, a compiled program each."""
    training: tuple[int, ...] = (50, 200, 1000)
    """Numbers of training sequences, an experiment each; a smaller set is part of a larger one."""
    wrong: tuple[float, ...] = (0.0, 0.2)
    """Shares of the training labels that are replaced by another class, an experiment each."""
    seeds: Seeds = 10
    batch: int = 25
    lr: float = 3e-3
    updates: int = 4000
    """Of each network."""
    chunk: int = 200
    """Updates in one compiled call, and between two looks."""


SMOKE: dict[str, Any] = dict(hidden=(4,), training=(50,), seeds=2, updates=40, chunk=20)
PAPER: dict[str, Any] = dict(updates=20_000, wrong=(0.0, 0.1, 0.2, 0.4), chunk=400)
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


def right(column: str, width: int) -> Statistic:
    """Of 1,000 training sequences with right labels."""
    return of(column, experiment=f"capacity_{analysis.part(1000, 0.0)}", hidden=width)


def wrong(column: str, width: int) -> Statistic:
    """Of 1,000 training sequences, 20% of them with wrong labels."""
    return of(column, experiment=f"capacity_{analysis.part(1000, 0.2)}", hidden=width)


def later(width: int) -> Statistic:
    """How much more of the test split is told wrong in the end than where validation stopped, of wrong labels."""
    return minus(wrong("test_last", width), wrong("test_chosen", width))


def grown(labels: Callable[[str, int], Statistic]) -> Statistic:
    """How much the spectral radius of 64 units grows beyond the update that validation chose."""
    return minus(labels("radius_last", 64), labels("radius_chosen", 64))


def doublings(labels: Callable[[str, int], Statistic]) -> Statistic:
    """log₂ of how many times ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ of 64 units has grown in the end."""
    return minus(labels("reach_last", 64), labels("reach_start", 64))


NAKKIRAN = "Nakkiran et al. 2020"
CLAIMS = (
    Claim(
        "Where labels are wrong 64 units fit more of them than 8: in the end the share of the training set told other "
        "than labelled is smaller by more than 0.1",
        "difference",
        minus(wrong("train_last", 64), wrong("train_last", 8)),
        -0.1,
        "below",
    ),
    Claim(
        "Longer training with wrong labels harms 64 units: beyond the update that validation chose the share of the "
        "test digits told wrong grows by more than 0.02",
        "difference",
        later(64),
        0.02,
        "above",
        NAKKIRAN,
    ),
    Claim("It harms 64 units more than 8", "difference", minus(later(64), later(8)), 0.0, "above", NAKKIRAN),
    Claim(
        "With right labels it does not: that share of 64 units stays within 0.02",
        "difference",
        minus(right("test_last", 64), right("test_chosen", 64)),
        0.02,
        "within",
    ),
    Claim(
        "With right labels 64 units end better than 8",
        "difference",
        minus(right("test_last", 64), right("test_last", 8)),
        0.0,
        "below",
    ),
    Claim(
        "From the update that validation chooses to the end the spectral radius of 64 units grows more with wrong "
        "labels than with right ones",
        "difference",
        minus(grown(wrong), grown(right)),
        0.0,
    ),
    Claim(
        "‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ of 64 units more than doubles along training with wrong labels",
        "difference",
        doublings(wrong),
        1.0,
    ),
    Claim(
        "It grows as much with right labels, within a doubling",
        "difference",
        minus(doublings(wrong), doublings(right)),
        1.0,
        "within",
    ),
)
"""Of 1,000 training sequences after 4,000 updates."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), then draws; the verdicts."""
    given = data(config)
    parts = launch_all({name: experiment(config, name, examples) for name, examples in given.items()}, config, given)
    out = next(iter(parts.values())).parent
    return claims.report(
        CLAIMS, list(parts.values()), lambda found: analysis.show(out, list(parts), found), analysis.columns
    )


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(config, SMOKE, PAPER)
    check(config)
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
