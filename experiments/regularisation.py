"""Which penalty keeps the gradient alive?

Hypothesis: L1 and L2 shrink the recurrence and make the gradient vanish sooner; orthogonality holds every singular
value of U near 1; Pascanu's Ω (Pascanu, Mikolov & Bengio 2013, eq. 9) asks of U only to keep the norm of the
gradients there are. A penalty on activity keeps tanh away from saturation.
Task: temporal order, T = 50, of a tanh rnn with a Gaussian recurrence at gain 1, which alone rarely learns. One
weight λ is swept for each penalty over the same decades; test error, norms through time and the spectrum of U are
shown.
Cost: 1,000 runs × 1,500 updates, 17 minutes of processor time.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis import cures as analysis
from analysis.claims import Claim, Statistic, prevails
from experiments import _cures as cures
from experiments._cures import of
from seqdyn import backend
from seqdyn.fields import PenaltyName
from seqdyn.learn.config import Experiment
from seqdyn.runs.script import Seeds, launch_all, replicated, script


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """Each penalty is an experiment: λ × seeds."""

    seeds: Seeds = 40
    tile: int = 12
    penalties: tuple[PenaltyName, ...] = ("l1", "l2", "activity", "orthogonality", "omega")
    """What is added to the loss."""
    weights: tuple[float, ...] = (0.0, 0.001, 0.01, 0.1, 10.0)
    """λ; 0 is the network alone."""
    clip: float = 1.0


def experiment(c: Config, name: PenaltyName) -> Experiment:
    """One spec: λ is a number."""
    one = cures.spec(c, f"tanh, {name}", c.steps[0], u_init="gaussian", penalties=(name,))
    axes: dict[str, Any] = {"clip": c.clip, name: c.weights}
    return cures.experiment(c, f"regularisation_{name}", (one,), **axes)


PASCANU = "Pascanu et al. 2013, §3.3"


def _of(column: str, name: PenaltyName, *weights: float) -> Statistic:
    """With one penalty."""
    return of(column, label=f"tanh, {name}", **{name: weights})


CLAIMS = (
    Claim(
        "An L1 penalty of 0.01 blinds the network: its gradient ends within 10 lags",
        "median",
        _of("horizon_end", "l1", 0.01),
        10.0,
        "below",
    ),
    Claim("So does an L2 penalty of 0.01", "median", _of("horizon_end", "l2", 0.01), 10.0, "below"),
    Claim("With an L1 penalty of 0.001 few networks learn", "proportion", _of("learned", "l1", 0.001), 0.5, "below"),
    Claim(
        "Ω of weight 10 does what it says: the gradient ends with more than half of the lags",
        "median",
        _of("horizon_end", "omega", 10.0),
        25.0,
    ),
    Claim(
        "Of the seeds that differ, most learn with Ω of weight 10 and not without",
        "proportion",
        prevails(_of("learned", "omega", 10.0), _of("learned", "omega", 0.0)),
        0.5,
        source=PASCANU,
    ),
    Claim(
        "Of the seeds that differ, most learn with an orthogonality penalty of 0.1 and not without",
        "proportion",
        prevails(_of("learned", "orthogonality", 0.1), _of("learned", "orthogonality", 0.0)),
        0.5,
    ),
    Claim(
        "With a penalty of 0.1 on activity the gradient ends with more than half of the lags",
        "median",
        _of("horizon_end", "activity", 0.1),
        25.0,
    ),
    Claim("With one of 10 few networks learn", "proportion", _of("learned", "activity", 10.0), 0.5, "below"),
)
"""At the default length and width."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), then draws, penalty by penalty; the verdicts."""
    measures = {
        "test loss": analysis.probed("test_loss"),
        "spectral radius": analysis.probed("spectral_radius"),
        "largest σ of U": analysis.probed("largest_singular_value"),
    }
    parts = launch_all({name: experiment(config, name) for name in config.penalties}, config)
    return cures.report(
        CLAIMS, parts, lambda name, out, found: analysis.show(out, f"Regularisation: {name}", name, measures, found)
    )


def main(config: Config) -> None:
    """As often as was asked for."""
    config = cures.with_preset(config, smoke=dict(weights=config.weights[::3], penalties=config.penalties[::4]))
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
