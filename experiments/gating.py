"""How far does the gradient reach in an rnn, a GRU and an LSTM, at equal width and at equal size?

Hypothesis: gates open a path (c of the LSTM, z ⊙ h of the GRU) along which the gradient is multiplied by numbers
near 1 and not by a matrix (Hochreiter & Schmidhuber 1997; Cho et al. 2014), so they learn what lies hundreds of
steps back. At equal size the rnn has twice the LSTM's units: if width were the reason, it would keep up.
Task: temporal order at T = 50 and 100; `--steps 200 400` for longer, which takes more updates. The dashed ∂L/∂c_t of
the LSTM's figure is the path through c.
Cost: 400 runs × 1,500 updates, 14 minutes of processor time.
Expect, by the claims that are printed at the end: at the start gates open nothing, the gradient of the GRU reaches less
far than that of an rnn with as many parameters, the LSTM's no further. At T = 50 LSTM and GRU learn; at T = 100 more
than a third of the LSTMs do, and few rnns with as many parameters: with most seeds that let only one of the two learn,
it is the LSTM, and its gradient ends further back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis import cures as analysis
from analysis.claims import Claim, minus, of, prevails
from experiments import _cures as cures
from seqdyn import backend
from seqdyn.learn.config import Experiment
from seqdyn.runs.script import Seeds, launch_all, replicated, script
from seqdyn.types import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """The grid is cells × lengths × seeds."""

    seeds: Seeds = 40
    steps: tuple[int, ...] = (50, 100)
    """T, time steps of a sequence: one experiment each."""
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


CLAIMS = (
    Claim("At T = 50 most LSTMs learn", "proportion", of("learned", label="lstm", steps=50), 0.5),
    Claim("At T = 50 most GRUs learn", "proportion", of("learned", label="gru", steps=50), 0.5),
    Claim(
        "At T = 100 more than a third of the LSTMs learn", "proportion", of("learned", label="lstm", steps=100), 1 / 3
    ),
    Claim(
        "At T = 100 few rnns with as many parameters as the LSTM learn",
        "proportion",
        of("learned", label="rnn as lstm", steps=100),
        0.5,
        "below",
    ),
    Claim(
        "Of the seeds with which either the LSTM or an rnn of equal width learns T = 50, most are the LSTM's",
        "proportion",
        prevails(of("learned", label="lstm", steps=50), of("learned", label="rnn", steps=50)),
        0.5,
    ),
    Claim(
        "At T = 100 it is not width: of those with which the LSTM or an rnn of as many parameters learns, most are the "
        "LSTM's",
        "proportion",
        prevails(of("learned", label="lstm", steps=100), of("learned", label="rnn as lstm", steps=100)),
        0.5,
    ),
    Claim(
        "At initialisation the GRU's gradient reaches less far than that of an rnn of as many parameters, at T = 100",
        "difference",
        minus(of("horizon_start", label="gru", steps=100), of("horizon_start", label="rnn as gru", steps=100)),
        0.0,
        "below",
    ),
    Claim(
        "Nor does the LSTM's reach further than that of its rnn, by five lags or more",
        "difference",
        minus(of("horizon_start", label="lstm", steps=100), of("horizon_start", label="rnn as lstm", steps=100)),
        5.0,
        "below",
    ),
    Claim(
        "Trained at T = 100, the LSTM's gradient reaches further than that of its rnn",
        "difference",
        minus(of("horizon_end", label="lstm", steps=100), of("horizon_end", label="rnn as lstm", steps=100)),
        0.0,
    ),
)
"""At the default lengths and width."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), then draws, length by length; the verdicts."""
    parts = launch_all({f"T_{steps}": experiment(config, steps) for steps in config.steps}, config)
    measures = {"test loss": analysis.probed("test_loss")}
    return cures.report(
        CLAIMS, parts, lambda name, out, found: analysis.show(out, f"Gating, {name}", None, measures, found)
    )


def main(config: Config) -> None:
    """As often as was asked for."""
    config = cures.with_preset(config, smoke=dict(cells=config.cells[2:4]))
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
