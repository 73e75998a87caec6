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
Cost: 45 runs × 4,000 updates, 15 minutes of one core at most: seven or eight minutes on two cores. A third of it looks.
Expect: every rnn that does not diverge (13 of 15) ends within 3% of 2/η, over a factor of 16 in η; so do most LSTMs
and GRUs (12 and 10 of 15 within 20%, steps bouncing). The others sharpen too slowly for 4,000 updates at the smallest
rates (a tenth to a half of 2/η at η = 0.0125), or are just arriving (two GRUs at η = 0.025: before a GRU settles it
slides and bounces in turn for a thousand updates); one LSTM at η = 0.2 hovers 44% above. Runs that start at up to 4.2
times 2/η survive by becoming flatter; the two that diverge start at 3.2 and 8.3. The edge does not keep the gradient
from reaching back: ‖∂L/∂h_t‖ at the first step over that at the last grows 26-, 5- and 14-fold (rnn, LSTM, GRU; runs
that meet it) until the sharpness meets 2/η, and 3-, 3- and 31-fold after, to 1, 0.3 and 0.3. The rnn memorises (test
error 0.2 to 0.4, chance is 0.167); LSTM and GRU learn to add at the larger rates, two seeds of three (0.003 to 0.04).
"""

from dataclasses import dataclass

from analysis import edge_of_stability as analysis
from seqdyn import backend
from seqdyn.fields import CellName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.script import Options, Seeds, launch, script, with_preset


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """The grid is cells × learning rates × seeds."""

    cells: tuple[CellName, ...] = ("rnn", "lstm", "gru")
    """The rnn's activation is tanh."""
    lrs: tuple[float, ...] = (0.0125, 0.025, 0.05, 0.1, 0.2)
    """η, learning rates of gradient descent without momentum, schedule or clipping."""
    seeds: Seeds = 3
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


def main(config: Config) -> None:
    """Trains (or goes on), then draws."""
    config = with_preset(
        config, dict(lrs=(0.05, 0.2, 100.0), seeds=2, steps=6, sequences=8, hidden=4, updates=40, every=10, tile=6)
    )
    backend.start()
    analysis.show(launch(experiment(config), config))


if __name__ == "__main__":
    script(Config, main, __doc__)
