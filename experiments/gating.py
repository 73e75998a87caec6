"""How far does the gradient reach in an rnn, a GRU and an LSTM, at equal width and at equal size?

Hypothesis: gates open a path (c of the LSTM, z ⊙ h of the GRU) along which the gradient is multiplied by numbers
near 1 and not by a matrix (Hochreiter & Schmidhuber 1997; Cho et al. 2014), so they learn what lies hundreds of
steps back. At equal size the rnn has twice the LSTM's units: if width were the reason, it would keep up.
Task: temporal order at T = 50 … 400. The dashed ∂L/∂c_t of the LSTM's figure is the path through c.
Cost: 60 runs × 1,500 updates, six and a half minutes on two cores.
Expect: at the start the horizon says nothing of gates: 13 lags for the GRU, 35 for the LSTM and 42 to 45 for the wide
rnns. At T = 50 LSTM and GRU learn with every seed, and so does an rnn of the GRU's size, one of the LSTM's with two of
three, that of equal width with one; at T = 100 the LSTM alone (two of three), and then its gradient reaches the first
step. Nobody learns 200 or 400 steps in 1,500 updates: without learning, what gates open stays shut.
"""

from dataclasses import dataclass
from typing import Any

from analysis import cures as analysis
from experiments import _cures as cures
from seqdyn import backend
from seqdyn.learn.config import Experiment
from seqdyn.runs.script import Seeds, launch_all, script
from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """The grid is cells × lengths × seeds."""

    seeds: Seeds = 3
    steps: tuple[int, ...] = (50, 100, 200, 400)
    """T, time steps of a sequence: one experiment each."""
    updates: int = 1500
    lr: float = 3e-3
    cells: tuple[str, ...] = ("rnn", "gru", "lstm", "rnn as gru", "rnn as lstm")
    """The last two are rnns with the parameters of the GRU and of the LSTM."""
    clip: float = 1.0


def wide(hidden: int, inputs: int, gates: int) -> int:
    """The width at which an rnn has about the parameters of a cell of `gates` gates: h² + (d + 1) h = its count."""
    target = gates * (hidden**2 + (inputs + 1) * hidden)
    return round((-(inputs + 1) + ((inputs + 1) ** 2 + 4 * target) ** 0.5) / 2)


def experiment(c: Config, steps: int) -> Experiment:
    """One spec a cell. Raises ConfigError for a cell that there is not."""
    made: dict[str, dict[str, Any]] = {
        "rnn": {},
        "gru": {"cell": "gru"},
        "lstm": {"cell": "lstm"},
        "rnn as gru": {"hidden": (wide(c.hidden, 6, 3),)},
        "rnn as lstm": {"hidden": (wide(c.hidden, 6, 4),)},
    }
    for name in c.cells:
        if name not in made:
            raise ConfigError(f"cells has '{name}'; it takes {', '.join(made)}.")
    specs = tuple(cures.spec(c, name, steps, **made[name]) for name in c.cells)
    return cures.experiment(c, f"gating_{steps}", specs, clip=c.clip)


def main(config: Config) -> None:
    """Trains (or goes on), then draws, length by length."""
    config = cures.sized(config, smoke=dict(cells=config.cells[2:4]))
    backend.start()
    parts = launch_all({f"T_{steps}": experiment(config, steps) for steps in config.steps}, config)
    for steps, out in zip(config.steps, parts.values(), strict=True):
        analysis.show(out, f"Gating at T = {steps}", None, {"test loss": analysis.probed("test_loss")})


if __name__ == "__main__":
    script(Config, main, __doc__)
