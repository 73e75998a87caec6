"""Which directions of the state outlive a window: the singular values of ∂state_T/∂state_t, before and along training.

Hypothesis: an rnn's window products lose all but a few directions geometrically, so that their condition number grows
exponentially with the lag T − t; LSTM and GRU keep a slowly decaying bulk; learning opens a few long-lived directions
rather than lifting the whole spectrum. The start matters where nothing opens: an orthogonal U keeps the singular
values of a window together for as long as φ' is near 1 (dynamical isometry: Saxe, McClelland & Ganguli 2014;
Pennington, Schoenholz & Ganguli 2017), a Gaussian one of the same scale spreads them from the first step. The product
of the steps' largest singular values, by which vanishing and exploding are bounded (Pascanu, Mikolov & Bengio 2013),
says little about the window's.
Task: the adding problem, T = 50, drawn anew at every update; learned below a mean squared error of 0.01. The window
of T − 1 steps begins before the first number has come, so that a network may learn without keeping it open.
Cost: 80 runs × 4,000 updates and 9 looks at each, about six minutes of processor time, much of it for the 64 × 64
products of the LSTM.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from analysis import claims, jacobian_windows
from analysis import jacobian_spectra as analysis
from analysis.claims import Claim, Statistic, minus, of
from seqdyn import backend
from seqdyn.fields import CellName
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.nets.activations import Activation
from seqdyn.nets.inits import InitName
from seqdyn.runs.script import Claiming, Seeds, launch_all, replicated, script, with_preset
from seqdyn.types import ConfigError

CELLS: dict[str, tuple[CellName, Activation]] = {
    "tanh": ("rnn", "tanh"),
    "relu": ("rnn", "relu"),
    "lstm": ("lstm", "tanh"),
    "gru": ("gru", "tanh"),
}


@dataclass(frozen=True, kw_only=True)
class Config(Claiming):
    """Initialisations × cells × seeds. The run directory is the first initialisation's; it holds the others'."""

    cells: tuple[Literal["tanh", "relu", "lstm", "gru"], ...] = ("tanh", "relu", "lstm", "gru")
    """tanh and relu are simple rnns."""
    inits: tuple[InitName, ...] = ("orthogonal", "gaussian")
    """Of the recurrent weights, gate by gate; one to three."""
    gain: float = 1.0
    """Of the recurrent initialisation: a Gaussian U of gain g has entries of variance g²/H."""
    seeds: Seeds = 10
    steps: int = 50
    """T, time steps of a sequence; the longest window has T − 1."""
    hidden: int = 32
    """H: the state has as many directions, that of an LSTM, (c, h), twice as many."""
    batch: int = 16
    lr: float = 3e-3
    clip: float = 1.0
    diagnostic: int = 4
    """Test sequences along which Jacobians are taken, the same at every probe."""
    updates: int = 4000
    chunk: int = 500
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


SAXE = "Saxe et al. 2014"
GATED = ("lstm", "gru")


def _of(column: str, *cells: str, **where: Any) -> Statistic:
    """At the default length, of both initialisations unless one is named."""
    return of(column, cell=cells, steps=50, **where)


def _tanh(column: str, init: str) -> Statistic:
    """Of the tanh rnn."""
    return _of(column, "rnn", activation="tanh", u_init=init)


CLAIMS = (
    Claim(
        "An untrained GRU's window is closed: its largest singular value is below a thousandth (mean of decades)",
        "median",
        _of("first_untrained", "gru"),
        -3.0,
        "below",
    ),
    Claim(
        "Training opens the LSTM's: the largest singular value grows",
        "difference",
        minus(_of("first_trained", "lstm"), _of("first_untrained", "lstm")),
        0.0,
    ),
    Claim(
        "Trained LSTMs and GRUs keep more than a tenth in their slowest direction",
        "median",
        _of("first_trained", *GATED),
        jacobian_windows.ALIVE,
    ),
    Claim(
        "They keep as much in few: in fewer than four directions of 64 and 32",
        "median",
        _of("alive_trained", *GATED),
        4.0,
        "below",
    ),
    Claim(
        "Before training a Gaussian U spreads the tanh rnn's window by ten decades more than an orthogonal one",
        "difference",
        minus(_tanh("condition_untrained", "gaussian"), _tanh("condition_untrained", "orthogonal")),
        10.0,
        "above",
        SAXE,
    ),
    Claim(
        "Training spreads that of the orthogonal one by ten decades, too",
        "difference",
        minus(_tanh("condition_trained", "orthogonal"), _tanh("condition_untrained", "orthogonal")),
        10.0,
    ),
    Claim(
        "The product of the steps' norms is more than tenfold the largest singular value of trained LSTMs and GRUs",
        "median",
        _of("excess_trained", *GATED),
        1.0,
    ),
    Claim(
        "Training brings singular values nearer to what the slowest forget gates alone would keep (both cut at 10⁻²⁴)",
        "difference",
        minus(_of("apart_trained", *GATED), _of("apart_untrained", *GATED)),
        0.0,
        "below",
    ),
)
"""Of the window of 49 steps, within 4,000 updates."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), one initialisation after the other, then draws; the verdicts."""
    first, *others = config.inits
    parts = {"": experiment(config, first)} | {init: experiment(config, init) for init in others}
    done = launch_all(parts, config)
    made = list(done.values())
    return claims.report(CLAIMS, made, lambda found: analysis.show(done[""], found), jacobian_windows.columns)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(config, dict(seeds=2, steps=12, hidden=6, batch=4, diagnostic=2, updates=20, chunk=10, tile=2))
    backend.start()
    if not 1 <= len(set(config.inits)) == len(config.inits) <= 3:
        raise ConfigError(f"inits is {config.inits}; name one to three, each once.")
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
