"""Saxe, McClelland & Ganguli 2014, and Le, Jaitly & Hinton 2015: initialisations that keep ‖∂L/∂h_t‖ flat.

Claim: in a linear recurrence the gradient's norm is the same at every lag if U is orthogonal (the identity is), and not
if its entries are independent Gaussians of the same scale; so it is, at first, in a ReLU rnn that begins as the
identity.
Setting: the adding problem, T = 200, 100 units, gain 1, at initialisation and after 500 updates of Adam. Exact by
theory: ‖Uᵀ λ‖ = ‖λ‖ for an orthogonal U; a ReLU of independent signs passes half of ‖λ‖², a factor 1/√2 a step.
Cost: 108 runs × 500 updates, seven minutes of processor time.
Expect: the claims; their verdicts are printed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from analysis import published
from analysis.claims import Claim, Statistic, of
from analysis.reproduced import less
from experiments.reproduce import _cases
from seqdyn import backend
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.nets.activations import Activation
from seqdyn.nets.inits import InitName
from seqdyn.runs.script import replicated, script, with_preset

SAXE, LE = "Saxe et al. 2014", "Le et al. 2015"


@dataclass(frozen=True, kw_only=True)
class Config(_cases.Claimed):
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


def _spread(activation: str, init: str) -> Statistic:
    """Decades between the extremes of the norm over the lags."""
    return of("spread_start", activation=activation, label=init)


CLAIMS = (
    *(
        Claim(
            f"Linear, {said}: the norm is the same at every lag, to a thousandth of a decade",
            "median",
            _spread("identity", init),
            1e-3,
            "below",
            SAXE,
            paper="flat, exactly",
        )
        for said, init in (("orthogonal", "orthogonal"), ("the identity", "identity"))
    ),
    Claim(
        "Linear, Gaussian: its extremes are more than a decade apart",
        "median",
        _spread("identity", "gaussian"),
        1.0,
        source=SAXE,
        paper="not flat",
    ),
    Claim(
        "ReLU, the identity: they are within a factor of two (decades)",
        "median",
        _spread("relu", "identity"),
        math.log10(2),
        "below",
        LE,
        paper="flat while units stay positive",
    ),
    *(
        Claim(
            f"ReLU, {said}: a lag leaves about 1/√2 of the norm, to within 0.05 (the share less 1/√2)",
            "median",
            less(of("kept_start", activation="relu", label=init), math.sqrt(0.5)),
            0.05,
            "within",
            paper="1/√2, by theory",
        )
        for said, init in (("orthogonal", "orthogonal"), ("Gaussian", "gaussian"))
    ),
)
"""What the papers say, and theory, of initialisations."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), draws, and holds the papers against it; the verdicts."""
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
    return published.show(out, "Flat gradients: Saxe et al. 2014, Le et al. 2015", CLAIMS, figures, panels)


def main(config: Config) -> None:
    """As often as was asked for."""
    config = with_preset(
        config,
        smoke=_cases.TINY
        | dict(steps=12, hidden=6, batch=4, activations=("identity",), inits=("orthogonal", "gaussian")),
        paper=dict(steps=1000, hidden=200, updates=2000, activations=get_args(Activation)),
    )
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
