"""Arjovsky, Shah & Bengio 2016, §5.1 and figure 1, and Henaff, Szlam & LeCun 2016: the copy problem.

Claims: without memory the best loss is 10 log 8 / (T + 20) a step, and an LSTM stays there for thousands of updates; a
recurrence that keeps every direction leaves it: the unitary network of Arjovsky et al., and, with T fixed, a plain
linear recurrence that begins orthogonal (Henaff et al.), less so one that begins as the identity.
Setting: RMSProp, rate 0.001, decay 0.9, batches of 20; 80 units for the linear recurrence, 40 for the LSTM, about 6,500
parameters each; T = 50 (the paper: 100, 200, 300, 500). Learned is a tenth of the loss without memory.
Cost: 48 runs × 5,000 updates, about 9 minutes of processor time.
Expect: the claims; their verdicts are printed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from analysis import published
from analysis.claims import Claim, Statistic, minus, of
from analysis.reproduced import less
from experiments.reproduce import _cases
from seqdyn import backend
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.script import replicated, script, with_preset

Cell = Literal["linear, orthogonal", "linear, identity", "tanh, orthogonal", "LSTM"]
CASES: dict[str, dict[str, Any]] = {
    "linear, orthogonal": dict(activation="identity"),
    "linear, identity": dict(activation="identity", u_init="identity"),
    "tanh, orthogonal": {},
    "LSTM": dict(cell="lstm"),
}


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Claimed):
    """Lengths × cells × seeds."""

    lengths: tuple[int, ...] = (50,)
    """T, blanks between the symbols and their copy; a sequence has T + 20 steps."""
    cells: tuple[Cell, ...] = get_args(Cell)
    """Networks, with their initialisation."""
    hidden: int = 80
    """Units of an rnn; an LSTM has half as many."""
    batch: int = 20
    lr: float = 1e-3
    """RMSProp's learning rate."""
    clip: float = 1.0


def memoryless(blanks: int) -> float:
    """The best loss without memory, nats a step: 10 log 8 / (T + 20). Arjovsky et al. 2016, §5.1."""
    return 10 * math.log(8) / (blanks + 20)


def experiment(c: Config, name: str, blanks: int) -> Experiment:
    """Seeds of one cell at one length."""
    hidden = c.hidden // 2 if name == "LSTM" else c.hidden
    usual: dict[str, Any] = dict(task="copy", steps=blanks + 20, batch=c.batch, readout="every", optimizer="rmsprop")
    spec = Spec(**usual, hidden=(hidden,), holdout=10 * c.batch, **CASES[name], name=name)
    return _cases.case(c, f"copy_{blanks}", spec, grid(seeds=c.seeds, lr=c.lr, clip=c.clip, momentum=0.9))


ARJOVSKY, HENAFF = "Arjovsky et al. 2016", "Henaff et al. 2016"


def _left(cell: str) -> Statistic:
    """The last test loss over that of a network without memory."""
    return of("loss_share", label=cell)


CLAIMS = (
    Claim(
        "A linear recurrence that begins orthogonal ends below half of the loss without memory",
        "median",
        _left("linear, orthogonal"),
        0.5,
        "below",
        HENAFF,
        paper="far below",
    ),
    Claim(
        "It learns with most seeds (share of a seed's lengths)",
        "median",
        of("learned", label="linear, orthogonal"),
        0.5,
        source=HENAFF,
        paper="learns",
    ),
    Claim(
        "One that begins as the identity ends at a larger loss",
        "difference",
        minus(_left("linear, identity"), _left("linear, orthogonal")),
        0.0,
        source=HENAFF,
        paper="worse",
    ),
    *(
        Claim(
            f"{said} stays at the loss without memory, to a tenth of it (the share less 1)",
            "median",
            less(_left(cell), 1.0),
            0.1,
            "within",
            ARJOVSKY,
            paper="stays at it",
        )
        for said, cell in (("An LSTM", "LSTM"), ("A tanh network that begins orthogonal", "tanh, orthogonal"))
    ),
)
"""What the papers say; of several lengths a seed has the mean."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), draws, and holds the papers against it; the verdicts."""
    wanted = {f"T = {t}": {name: experiment(config, name, t) for name in config.cells} for t in config.lengths}
    out, panels = _cases.launch_cases(wanted, config)
    figures = {
        "learning": (
            lambda: published.learning(
                panels,
                "test_loss",
                "test loss (nats a step)",
                {"without memory": [memoryless(t) for t in config.lengths]},
                log=True,
            ),
            "Cross entropy a step on fresh sequences; medians and quartiles over seeds.",
        ),
        "norms_by_lag": (
            lambda: published.norms_by_lag(panels),
            "‖∂L/∂h_t‖ over its value at lag 0, against the lag; every step has a loss. Medians over seeds, quartiles.",
        ),
    }
    return published.show(out, "The copy problem: Arjovsky et al. 2016", CLAIMS, figures, panels)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(
        config,
        smoke=_cases.TINY | dict(lengths=(5,), cells=("linear, orthogonal", "LSTM"), hidden=8, batch=4),
        paper=dict(lengths=(100, 200, 300, 500), updates=50_000),
    )
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
