"""Saxe, McClelland & Ganguli 2014, and Le, Jaitly & Hinton 2015: initialisations that keep ‖∂L/∂h_t‖ flat.

Claim: in a linear recurrence the gradient's norm is the same at every lag if U is orthogonal (the identity is), and not
if its entries are independent Gaussians of the same scale; so it is, at first, in a ReLU rnn that begins as the
identity.
Setting: the adding problem, T = 200, 100 units, gain 1, at initialisation and after 500 updates of Adam. Exact by
theory: ‖Uᵀ λ‖ = ‖λ‖ for an orthogonal U; a ReLU of independent signs passes half of ‖λ‖², a factor 1/√2 a step.
Cost: 45 runs × 500 updates, five minutes of processor time.
Expect: the claims at initialisation: over 199 lags the norm keeps to rounding in linear networks but the Gaussian one
(2·10⁶), and to 1.4 in the ReLU network of the identity; the other ReLU networks lose 10²⁷ to 10²⁹. Training bends all:
after 500 updates the flat ones are at 4·10⁴, 200 and 200, and 3 of 5 runs of ReLU and identity have diverged.
"""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from analysis import published
from analysis.cures import STAGES
from analysis.lags import number, relative, stage
from analysis.published import Claim
from analysis.style import median
from experiments.reproduce import _cases
from seqdyn import backend
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.nets.activations import Activation
from seqdyn.nets.inits import InitName
from seqdyn.runs.records import load
from seqdyn.runs.script import script, with_preset

FLAT = 2.0
"""The norm counts as flat while its extremes over the lags are within this factor of each other."""


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Trained):
    """Activations × initialisations × seeds."""

    steps: int = 200
    activations: tuple[Activation, ...] = ("identity", "relu", "tanh")
    """φ; identity is the linear recurrence."""
    inits: tuple[InitName, ...] = ("orthogonal", "identity", "gaussian")
    """Of U."""
    updates: int = 500
    chunk: int = 50
    probe_every: int = 50
    hidden: int = 100
    batch: int = 16
    lr: float = 1e-3
    clip: float = 1.0


def experiment(c: Config, activation: Activation, init: InitName) -> Experiment:
    """Seeds of one initialisation under one activation."""
    shape: dict[str, Any] = dict(steps=c.steps, batch=c.batch, hidden=(c.hidden,))
    spec = Spec(task="adding", **shape, activation=activation, u_init=init, name=init)
    return _cases.case(c, f"flat_{activation}", spec, grid(seeds=c.seeds, lr=c.lr, clip=c.clip))


def spread(norms: np.ndarray) -> float:
    """Largest over smallest norm over the lags, the median over runs: 1 is flat."""
    ratio = relative(norms)
    return float(median(ratio.max(axis=-1) / np.maximum(ratio.min(axis=-1), np.finfo(float).tiny)))


def claims(c: Config, panels: _cases.Panels) -> list[Claim]:
    """Which norms are flat at initialisation."""
    expected = {
        ("identity", "orthogonal"): ("flat, exactly", True),
        ("identity", "identity"): ("flat, exactly", True),
        ("identity", "gaussian"): ("not flat", False),
        ("relu", "identity"): ("flat while units stay positive", True),
        ("relu", "orthogonal"): ("not flat (√2 a step, by theory)", False),
        ("relu", "gaussian"): ("not flat (√2 a step, by theory)", False),
    }
    found = []
    for activation, (panel, cases) in zip(c.activations, panels.items(), strict=True):
        for init, out in cases.items():
            if (activation, init) in expected:
                paper, flat = expected[activation, init]
                at = {when: spread(stage(load(out), "adjoint_norm", x)[:, 0]) for when, x in STAGES.items()}
                ours = f"max/min over lags {number(at['start'])}, trained {number(at['end'])}"
                found.append(Claim(f"{panel}, {init}", paper, ours, (at["start"] < FLAT) == flat))
    return found


def main(config: Config) -> None:
    """Trains (or goes on), draws, and holds the papers against it."""
    config = with_preset(
        config,
        smoke=_cases.TINY
        | dict(steps=12, hidden=6, batch=4, activations=("identity",), inits=("orthogonal", "gaussian")),
        paper=dict(steps=1000, hidden=200, updates=2000, activations=get_args(Activation)),
    )
    backend.start()
    names = {"identity": "linear"}
    wanted = {names.get(a, a): {i: experiment(config, a, i) for i in config.inits} for a in config.activations}
    out, panels = _cases.launch_cases(wanted, config)
    figures = {
        "norms_by_lag": (
            lambda: published.norms_by_lag(panels),
            published.BY_LAG,
        ),
        "learning": (
            lambda: published.learning(panels, "test_loss", "test error", {"the mean": 1 / 6}, log=True),
            "Mean squared error on fresh sequences; medians and quartiles over seeds.",
        ),
    }
    published.show(out, "Flat gradients: Saxe et al. 2014, Le et al. 2015", claims(config, panels), figures, panels)


if __name__ == "__main__":
    script(Config, main, __doc__)
