"""Where in time does the gradient die or explode, in which cell, at which gain, and what does clipping change?

draft
"""
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from seqdyn import backend
from seqdyn.config import Experiment, Spec, grid
from seqdyn.run import default_out, jsonable, run, script


@dataclass(frozen=True)
class Config:
    out: Path | None = None
    """Run directory; by default runs/gradient_flow-<digest of the settings>."""
    smoke: bool = False
    """Tiny sizes: seconds, the same path."""
    steps: int = 100
    """T, time steps of a sequence."""
    batch: int = 16
    hidden: int = 32
    gains: tuple[float, ...] = (0.5, 1.0, 1.5)
    """Of the orthogonal recurrent initialisation."""
    clips: tuple[float, ...] = (0.1, math.inf)
    """Thresholds of the gradient's global norm; inf does not clip."""
    seeds: int = 3
    lr: float = 1e-3
    updates: int = 5000
    chunk: int = 250
    tile: int = 9


def experiment(c: Config) -> Experiment:
    if c.smoke:
        c = dataclasses.replace(c, steps=12, batch=4, hidden=6, updates=20, chunk=5, seeds=2, gains=c.gains[:2], tile=4)
    specs = tuple(
        Spec(task="adding", steps=c.steps, batch=c.batch, hidden=(c.hidden,), cell=cell, activation=phi)
        for cell, phi in (("rnn", "tanh"), ("rnn", "relu"), ("lstm", "tanh"), ("gru", "tanh"))
    )
    hypers = grid(seeds=c.seeds, gain=c.gains, clip=c.clips, lr=c.lr)
    return Experiment("gradient_flow", specs, hypers, c.updates, c.chunk, c.chunk * 2, c.tile)


def main(config: Config) -> None:
    backend.start()
    e = experiment(config)
    run(e, config.out or default_out(e), config=jsonable(config))


if __name__ == "__main__":
    script(Config, main, __doc__)
