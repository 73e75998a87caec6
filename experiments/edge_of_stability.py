"""Does full-batch gradient descent on a recurrent network sharpen its loss to 2/η and then hover there, and where does
that leave the gradient through time?

Hypothesis: with a fixed training set and no clipping the sharpness λ_max(∇²L) rises (progressive sharpening) until it
meets 2/η, where a step along its eigenvector no longer shrinks the error; from there on it hovers about 2/η, steps
bounce from wall to wall (successive gradients are opposed, gᵀHg/‖g‖² ≈ 2/η), and the loss still falls over many
updates (the edge of stability; Cohen, Kaur, Li, Kolter & Talwalkar 2021, on fully connected and convolutional networks
and a Transformer; Damian, Nichani & Lee 2023 explain what holds it there). A run that starts above 2/η first jumps to
where the loss is flatter, or diverges (the catapult; Lewkowycz et al. 2020). The same in rnn, LSTM and GRU, although a
recurrent loss owes its curvature to products of T Jacobians.
Task: the adding problem, T = 20, the same 64 sequences at every update, mean squared error.
The gradient at the first step, over that at the last, should grow while the loss sharpens: what makes a recurrent loss
sharp is what lets it reach back.
Cost: 90 runs × 4,000 updates, ten and a half minutes of processor time. A third of it looks.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis import claims, stability_sharpness
from analysis import edge_of_stability as analysis
from analysis.claims import Claim, Statistic, minus, of, prevails
from seqdyn import backend
from seqdyn.fields import CellName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.script import Claiming, Seeds, launch, replicated, script, with_preset


@dataclass(frozen=True, kw_only=True)
class Config(Claiming):
    """The grid is cells × learning rates × seeds."""

    cells: tuple[CellName, ...] = ("rnn", "lstm", "gru")
    """The rnn's activation is tanh."""
    lrs: tuple[float, ...] = (0.0125, 0.05, 0.2)
    """η, learning rates of gradient descent without momentum, schedule or clipping."""
    seeds: Seeds = 10
    """Seeds of parameters and of the training set."""
    gain: float = 0.8
    """Of the orthogonal recurrent initialisation; at 1 the rnn starts so sharp that most of these rates diverge."""
    steps: int = 20
    sequences: int = 64
    """The training set; every update sees all of it, and so does the sharpness."""
    hidden: int = 32
    updates: int = 4000
    every: int = 50
    """Updates between looks at the curvature; a look costs about as much as 40 of them."""
    tile: int = 8


def experiment(c: Config) -> Experiment:
    """One spec a cell; curvature of exactly the loss that is descended, and what the next updates do, at every look."""
    shapes = dict(steps=c.steps, batch=c.sequences, training_set=c.sequences, hidden=(c.hidden,))
    specs = tuple(Spec(task="adding", cell=cell, optimizer="sgd", **shapes) for cell in c.cells)  # type: ignore[arg-type]
    return Experiment(
        "edge_of_stability",
        specs,
        grid(seeds=c.seeds, lr=c.lrs, gain=c.gain),
        updates=c.updates,
        chunk=c.every,
        probe_every=c.every,
        tile=c.tile,
        probes=("curvature", "updates"),
        diagnostic=c.sequences,
        diagnostic_from="train",
    )


COHEN = "Cohen et al. 2021"
GATED = ("lstm", "gru")


def _of(column: str, **where: Any) -> Statistic:
    """At the default length."""
    return of(column, steps=20, **where)


def _away(cell: str, *lrs: float) -> Statistic:
    """How far sharpness over 2/η ends from 1, on either side, in the mean over these rates."""

    def values(runs: Any) -> Any:
        first, *others = (abs(_of("off", cell=cell, lr=lr)(runs)) for lr in lrs)
        return sum(others, first) / len(lrs)

    return values


CLAIMS = (
    Claim(
        "The rnn's sharpness ends less than a tenth away from 2/η (mean of η = 0.0125 and 0.05)",
        "median",
        _away("rnn", 0.0125, 0.05),
        0.1,
        "below",
        COHEN,
    ),
    Claim(
        "Most LSTMs and GRUs end at the edge at η = 0.05 and 0.2 (share of a seed's four)",
        "median",
        _of("edge", cell=GATED, lr=(0.05, 0.2)),
        0.5,
        "above",
        COHEN,
    ),
    Claim(
        "At η = 0.05 of what starts below 2/η most rises past it (share of a seed's cells)",
        "median",
        _of("met", lr=0.05),
        0.5,
        "above",
        COHEN,
    ),
    Claim(
        "At η = 0.0125 the GRU's sharpness ends more than a tenth below 2/η",
        "median",
        _of("off", cell="gru", lr=0.0125),
        -0.1,
        "below",
    ),
    Claim(
        "At η = 0.2 the rnn diverges more often than the LSTM: of the seeds that differ, in most the rnn alone does",
        "proportion",
        prevails(_of("diverged", cell="rnn", lr=0.2), _of("diverged", cell="lstm", lr=0.2)),
        0.5,
    ),
    Claim(
        "Until the sharpness meets 2/η the gradient at the first step, over that at the last, at least doubles "
        "(η up to 0.05, mean of a seed's logarithms)",
        "median",
        _of("grown_before", lr=(0.0125, 0.05)),
        math.log10(2),
    ),
    Claim(
        "It goes on growing at the edge (η = 0.05)",
        "median",
        _of("grown_after", lr=0.05),
        0.0,
    ),
    Claim(
        "At η = 0.05 LSTM and GRU end with a smaller test error than the rnn",
        "difference",
        minus(_of("test_loss", cell=GATED, lr=0.05), _of("test_loss", cell="rnn", lr=0.05)),
        0.0,
        "below",
    ),
)
"""At T = 20, within 4,000 updates."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), then draws; the verdicts."""
    out = launch(experiment(config), config)
    return claims.report(CLAIMS, [out], lambda verdicts: analysis.show(out, verdicts), stability_sharpness.columns)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(
        config, dict(lrs=(0.05, 0.2, 100.0), seeds=2, steps=6, sequences=8, hidden=4, updates=40, every=10, tile=6)
    )
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
