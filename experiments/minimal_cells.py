"""Whose gradient vanishes, before and after training: that of rnn, GRU, LSTM, sLSTM, minGRU, minLSTM, LRU or IndRNN?

Hypothesis: what multiplies the adjoint at a step decides. minGRU and minLSTM (Feng et al. 2024) begin with gates half
open, so that ‖∂L/∂h_t‖ falls by about a half a lag, faster than in the GRU and LSTM they are to replace, and open them
by learning. The LRU (Orvieto et al. 2023) and the IndRNN (Li et al. 2018) are built so that some unit begins near 1.
The sLSTM (Beck et al. 2024) begins like the other gated cells.
Task: the adding problem, T = 50, drawn anew at every update; a test error below 0.01 counts as learned. The LRU alone,
without the nonlinear layers that its paper puts between, cannot multiply a value by its marker: it is here for its
gradient.
Setting: one layer, h of 16 numbers (8 complex ones of the LRU), Adam, gradient clipped at 1. Each part at its defaults;
U of rnn and gates orthogonal, forget bias of LSTM and sLSTM 1, the IndRNN's u between 2^(−1/T) and 2^(1/T).
Cost: 160 runs × 2,000 updates, two minutes.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import seqdyn as sd
from analysis import claims
from analysis import minimal_cells as analysis
from analysis.claims import Claim, Statistic, minus, of
from seqdyn import backend
from seqdyn.runs.script import Claiming, Seeds, launch, replicated, script, with_preset

Kind = Literal["rnn", "GRU", "LSTM", "sLSTM", "minGRU", "minLSTM", "LRU", "IndRNN"]


@dataclass(frozen=True, kw_only=True)
class Config(Claiming):
    """The grid is cells × seeds."""

    cells: tuple[Kind, ...] = get_args(Kind)
    seeds: Seeds = 20
    steps: int = 50
    hidden: int = 16
    batch: int = 8
    lr: float = 5e-3
    clip: float = 1.0
    """Of the gradient's global norm"""
    updates: int = 2000
    chunk: int = 250
    tile: int = 20


def fields(c: Config) -> dict[str, dict[str, Any]]:
    """Cell -> fields of its spec."""
    near = 2.0 ** (1 / c.steps)
    words = {"rnn": dict(cell="rnn"), "GRU": dict(cell="gru"), "LSTM": dict(cell="lstm")}
    parts = {
        "sLSTM": sd.SLSTM(c.hidden),
        "minGRU": sd.MinGRU(c.hidden),
        "minLSTM": sd.MinLSTM(c.hidden),
        "LRU": sd.LRU(c.hidden),
        "IndRNN": sd.IndRNN(c.hidden, low=1 / near, high=near, bound=near),
    }
    return {name: of | {"hidden": (c.hidden,)} for name, of in words.items()} | {
        name: {"layers": (part,)} for name, part in parts.items()
    }


def experiment(c: Config) -> sd.Experiment:
    """A spec a cell."""
    runs = tuple(
        sd.grid(
            sd.Spec("adding", name=name, steps=c.steps, batch=c.batch, **fields(c)[name]),
            seeds=c.seeds,
            lr=c.lr,
            clip=c.clip,
        )
        for name in c.cells
    )
    return sd.Experiment(
        "minimal_cells", runs, updates=c.updates, chunk=c.chunk, probe_every=2 * c.chunk, tile=c.tile, probes=()
    )


ORVIETO, LI = "Orvieto et al. 2023", "Li et al. 2018"


def _of(column: str, *cells: Kind) -> Statistic:
    """At the default length."""
    return of(column, label=cells, steps=50)


CLAIMS = (
    Claim(
        "minGRU begins blind: its gradient reaches fewer than 15 lags",
        "median",
        _of("horizon_start", "minGRU"),
        15.0,
        "below",
    ),
    Claim("minLSTM does, too", "median", _of("horizon_start", "minLSTM"), 15.0, "below"),
    Claim(
        "At initialisation ‖∂L/∂h_t‖ of minGRU falls by at least a quarter a lag",
        "slope",
        _of("slope_start", "minGRU"),
        math.log(0.75),
        "below",
    ),
    Claim(
        "minGRU begins with a shorter reach than the GRU",
        "difference",
        minus(_of("horizon_start", "minGRU"), _of("horizon_start", "GRU")),
        0.0,
        "below",
    ),
    Claim(
        "minLSTM begins with a shorter reach than the LSTM",
        "difference",
        minus(_of("horizon_start", "minLSTM"), _of("horizon_start", "LSTM")),
        0.0,
        "below",
    ),
    Claim("Learning opens minGRU: it ends reaching nearly all lags", "median", _of("horizon_end", "minGRU"), 45.0),
    Claim("It opens minLSTM", "median", _of("horizon_end", "minLSTM"), 45.0),
    Claim("It opens the sLSTM", "median", _of("horizon_end", "sLSTM"), 45.0),
    Claim("The sLSTM begins with fewer than 25", "median", _of("horizon_start", "sLSTM"), 25.0, "below"),
    Claim("The tanh rnn ends with less than half of the lags", "median", _of("horizon_end", "rnn"), 25.0, "below"),
    Claim(
        "GRU, LSTM and sLSTM learn (share of a seed's three)",
        "median",
        _of("learned", "GRU", "LSTM", "sLSTM"),
        0.9,
    ),
    Claim("The IndRNN begins with nearly all lags", "median", _of("horizon_start", "IndRNN"), 45.0, "above", LI),
    Claim("It does not keep them", "median", _of("horizon_end", "IndRNN"), 45.0, "below"),
    Claim(
        "The LRU begins with a longer reach than minGRU",
        "difference",
        minus(_of("horizon_start", "LRU"), _of("horizon_start", "minGRU")),
        0.0,
        "above",
        ORVIETO,
    ),
    Claim("Few LRUs learn to add", "proportion", _of("learned", "LRU"), 0.5, "below"),
)
"""At T = 50, within 2,000 updates."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), then draws; the verdicts."""
    out = launch(experiment(config), config)
    return claims.report(CLAIMS, [out], lambda verdicts: analysis.show(out, verdicts))


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(config, dict(seeds=2, steps=10, hidden=4, batch=4, updates=10, chunk=5, tile=2))
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
