"""Where in time does the gradient die or explode, in which cell, at which gain, and what does clipping change?

Hypothesis: an rnn's ‖∂L/∂h_t‖ falls or grows geometrically with the lag T − t, at a rate set by the recurrent gain
(Pascanu, Mikolov & Bengio 2013); LSTM and GRU open a path along which it survives, and find it by learning even from
a gain at which they start as blind as the rnn. Clipping bounds the update, not the decay: it can save a run from
exploding and cannot reach what has vanished.
Task: the adding problem (Hochreiter & Schmidhuber 1997, in the form of Arjovsky et al. 2016), T = 100, drawn anew at
every update; a constant predictor has a mean squared error of 0.167, below 0.01 counts as learned.
Cost: 72 runs × 5,000 updates, three to four minutes on two cores.
Expect: LSTM and GRU learn from nearly every gain; the ReLU rnn gets below 0.05 only where it is clipped; the tanh rnn
nowhere, whatever its gain and threshold.
"""

import math
from dataclasses import dataclass
from typing import Literal

from analysis import gradient_flow as analysis
from seqdyn import backend
from seqdyn.fields import CellName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.nets.activations import Activation
from seqdyn.runs.script import Options, Seeds, launch, script, sized

CELLS: dict[str, tuple[CellName, Activation]] = {
    "tanh": ("rnn", "tanh"),
    "relu": ("rnn", "relu"),
    "lstm": ("lstm", "tanh"),
    "gru": ("gru", "tanh"),
}


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """The grid is cells × gains × clips × seeds."""

    cells: tuple[Literal["tanh", "relu", "lstm", "gru"], ...] = ("tanh", "relu", "lstm", "gru")
    """tanh and relu are simple rnns."""
    gains: tuple[float, ...] = (0.5, 1.0, 1.5)
    """Of the orthogonal recurrent initialisation."""
    clips: tuple[float, ...] = (0.1, math.inf)
    """Bounds on the gradient's global norm; inf does not clip."""
    seeds: Seeds = 3
    steps: int = 100
    hidden: int = 32
    batch: int = 16
    lr: float = 3e-3
    updates: int = 5000
    chunk: int = 250
    tile: int = 9


def experiment(c: Config) -> Experiment:
    """One spec a cell; a probe (test error, spectral radius) every second chunk."""
    specs = tuple(
        Spec(task="adding", steps=c.steps, batch=c.batch, hidden=(c.hidden,), cell=cell, activation=activation)
        for cell, activation in (CELLS[name] for name in c.cells)
    )
    hypers = grid(seeds=c.seeds, gain=c.gains, clip=c.clips, lr=c.lr)
    return Experiment("gradient_flow", specs, hypers, c.updates, c.chunk, 2 * c.chunk, c.tile)


def main(config: Config) -> None:
    """Trains (or goes on), then draws."""
    config = sized(
        config, dict(gains=config.gains[:2], seeds=2, steps=12, hidden=6, batch=4, updates=20, chunk=5, tile=4)
    )
    backend.start()
    analysis.show(launch(experiment(config), config))


if __name__ == "__main__":
    script(Config, main, __doc__)
