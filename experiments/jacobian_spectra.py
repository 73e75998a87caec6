"""Which directions of the state outlive a window: the singular values of ∂state_T/∂state_t, before and along training.

Hypothesis: an rnn's window products lose all but a few directions geometrically, so that their condition number grows
exponentially with the lag T − t; LSTM and GRU keep a slowly decaying bulk; learning opens a few long-lived directions
rather than lifting the whole spectrum. The start matters where nothing opens: an orthogonal U keeps the singular
values of a window together for as long as φ' is near 1 (dynamical isometry: Saxe, McClelland & Ganguli 2014;
Pennington, Schoenholz & Ganguli 2017), a Gaussian one of the same scale spreads them from the first step. The product
of the steps' largest singular values, by which vanishing and exploding are bounded (Pascanu, Mikolov & Bengio 2013),
says little about the window's.
Task: the adding problem, T = 100, drawn anew at every update; learned below a mean squared error of 0.01. The window
of T − 1 steps begins before the first number has come, so that a network may learn without keeping it open.
Cost: 24 runs × 4,000 updates and 17 looks at each, about seven minutes on two cores (770 s of processor time), half
of it for the 64 × 64 products of the LSTM.
Expect: log σ_i falls nearly on straight lines of the lag, so condition numbers are exponential, in all cells: there is
no slowly decaying bulk in LSTM and GRU either. Over 99 steps, in decades, an untrained orthogonal tanh rnn stays
within 10 (a Gaussian one spreads over 73), which does not help it: training takes it to 200, and it never learns.
LSTM and GRU start with σ_1 at −2 and −12 and learn in the very updates in which σ_1 comes up to 0, from either start:
one or two directions open, while the median stays below −12 (the LSTM's falls, from −30 to −44 and −62). Their σ_i
then follow the i-th slowest forget gate within 2 decades, having been 4 to 10 away. The product of the steps' norms is
5 to 50 decades above a trained σ_1: it explodes where the window does not. Two of three Gaussian ReLU rnns learn, too,
with σ_1 at −7 over 99 steps.
"""

from dataclasses import dataclass
from typing import Literal

from analysis import jacobian_spectra as analysis
from seqdyn import backend
from seqdyn.fields import CellName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.nets.activations import Activation
from seqdyn.nets.inits import InitName
from seqdyn.runs.script import Options, Seeds, launch_all, script, with_preset
from seqdyn.types import ConfigError

CELLS: dict[str, tuple[CellName, Activation]] = {
    "tanh": ("rnn", "tanh"),
    "relu": ("rnn", "relu"),
    "lstm": ("lstm", "tanh"),
    "gru": ("gru", "tanh"),
}


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Initialisations × cells × seeds. The run directory is the first initialisation's; it holds the others'."""

    cells: tuple[Literal["tanh", "relu", "lstm", "gru"], ...] = ("tanh", "relu", "lstm", "gru")
    """tanh and relu are simple rnns."""
    inits: tuple[InitName, ...] = ("orthogonal", "gaussian")
    """Of the recurrent weights, gate by gate; one to three."""
    gain: float = 1.0
    """Of the recurrent initialisation: a Gaussian U of gain g has entries of variance g²/H."""
    seeds: Seeds = 3
    steps: int = 100
    """T, time steps of a sequence; the longest window has T − 1."""
    hidden: int = 32
    """H: the state has as many directions, that of an LSTM, (c, h), twice as many."""
    batch: int = 16
    lr: float = 3e-3
    clip: float = 1.0
    diagnostic: int = 4
    """Test sequences along which Jacobians are taken, the same at every probe."""
    updates: int = 4000
    chunk: int = 250
    """Updates in one compiled call, and between two looks at the Jacobians."""
    tile: int = 3


def experiment(c: Config, init: InitName) -> Experiment:
    """One spec a cell; every singular value is recorded."""
    specs = tuple(
        Spec(
            task="adding",
            steps=c.steps,
            batch=c.batch,
            hidden=(c.hidden,),
            cell=cell,
            activation=activation,
            u_init=init,
        )
        for cell, activation in (CELLS[name] for name in c.cells)
    )
    return Experiment(
        "jacobian_spectra",
        specs,
        grid(seeds=c.seeds, gain=c.gain, clip=c.clip, lr=c.lr),
        c.updates,
        c.chunk,
        probe_every=c.chunk,
        tile=c.tile,
        probes=("weights", "jacobians", "units"),
        diagnostic=c.diagnostic,
        modes=2 * c.hidden,
    )


def main(config: Config) -> None:
    """Trains (or goes on), one initialisation after the other, then draws."""
    config = with_preset(config, dict(seeds=2, steps=12, hidden=6, batch=4, diagnostic=2, updates=20, chunk=10, tile=2))
    backend.start()
    if not 1 <= len(set(config.inits)) == len(config.inits) <= 3:
        raise ConfigError(f"inits is {config.inits}; name one to three, each once.")
    first, *others = config.inits
    parts = {"": experiment(config, first)} | {init: experiment(config, init) for init in others}
    analysis.show(launch_all(parts, config)[""])


if __name__ == "__main__":
    script(Config, main, __doc__)
