"""Arjovsky, Shah & Bengio 2016, §5.1 and figure 1, and Henaff, Szlam & LeCun 2016: the copy problem.

Claims: without memory the best loss is 10 log 8 / (T + 20) a step, and an LSTM stays there for thousands of updates; a
recurrence that keeps every direction leaves it: the unitary network of Arjovsky et al., and, with T fixed, a plain
linear recurrence that begins orthogonal (Henaff et al.), less so one that begins as the identity.
Setting: RMSProp, rate 0.001, decay 0.9, batches of 20; 80 units for the linear recurrence, 40 for the LSTM, about 6,500
parameters each; T = 50 and 100 (the paper: 100, 200, 300, 500). Learned is a tenth of the loss without memory.
Cost: 40 runs × 5,000 updates, 12 minutes of processor time.
Expect: the claims. The linear orthogonal recurrence ends at 0.001 of the loss without memory at T = 50 (5 of 5 seeds
learn) and at 0.19 of it at T = 100 (2 of 5 at some look), the one that begins as the identity at 0.77 and 0.91, the
LSTM at 0.93 and 1.00; a tanh network from the same orthogonal start does not move at all.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from analysis import published
from analysis.learned import latest
from analysis.published import Claim
from experiments.reproduce import _cases
from seqdyn import backend
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs.records import load
from seqdyn.runs.script import script, with_preset

Cell = Literal["linear, orthogonal", "linear, identity", "tanh, orthogonal", "LSTM"]
CASES: dict[str, dict[str, Any]] = {
    "linear, orthogonal": dict(activation="identity"),
    "linear, identity": dict(activation="identity", u_init="identity"),
    "tanh, orthogonal": {},
    "LSTM": dict(cell="lstm"),
}


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Trained):
    """Lengths × cells × seeds."""

    lengths: tuple[int, ...] = (50, 100)
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


def claims(c: Config, panels: _cases.Panels) -> list[Claim]:
    """The last test loss of each cell over that of a network without memory."""
    found = []
    for blanks, (panel, cases) in zip(c.lengths, panels.items(), strict=True):
        floor = memoryless(blanks)
        share = {name: float(np.median(latest(load(out)["test_loss"].values))) / floor for name, out in cases.items()}
        said = {name: f"{share[name]:.2g} of it, {published.outcome(out)}" for name, out in cases.items()}
        best = share.get("linear, orthogonal", math.nan)
        worse = share.get("linear, identity", math.nan) > best if "linear, orthogonal" in cases else None
        expected: dict[str, tuple[str, bool | None]] = {
            "linear, orthogonal": ("far below the loss without memory", best < 0.5),
            "linear, identity": ("worse than orthogonal", worse),
            "tanh, orthogonal": ("stays at it", share.get("tanh, orthogonal", 0) > 0.9),
            "LSTM": ("stays at it", share.get("LSTM", 0) > 0.9),
        }
        found += [Claim(f"{panel}: {name}", expected[name][0], said[name], expected[name][1]) for name in cases]
    return found


def main(config: Config) -> None:
    """Trains (or goes on), draws, and holds the papers against it."""
    config = with_preset(
        config,
        smoke=_cases.TINY | dict(lengths=(5,), cells=("linear, orthogonal", "LSTM"), hidden=8, batch=4),
        paper=dict(lengths=(100, 200, 300, 500), updates=50_000),
    )
    backend.start()
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
    published.show(out, "The copy problem: Arjovsky et al. 2016", claims(config, panels), figures, panels)


if __name__ == "__main__":
    script(Config, main, __doc__)
