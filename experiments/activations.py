"""Which activation lets the gradient through, and what becomes of its units?

Hypothesis: a sigmoid, whose slope is at most ¼, forgets within a few steps; tanh and its relatives keep the
gradient near their critical gain; rectifiers (Glorot, Bordes & Bengio 2011; Le, Jaitly & Hinton 2015) let it
through, at the price of dead units. Each runs at several recurrent gains, and the figure shows which suits it.
Task: temporal order, T = 50. Saturated units have |φ'| below 0.1; dead ones a slope of 0 at every step of every
example.
Cost: 294 runs × 1,500 updates, under four minutes of processor time.
Expect: what `CLAIMS` says; its verdicts are printed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from analysis import cures as analysis
from analysis.claims import Claim, minus, prevails
from experiments import _cures as cures
from experiments._cures import of
from seqdyn import backend
from seqdyn.learn.config import Experiment
from seqdyn.nets.activations import Activation
from seqdyn.runs.script import Seeds, launch, replicated, script


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """The grid is activations × gains × seeds."""

    seeds: Seeds = 14
    tile: int = 14
    activations: tuple[Activation, ...] = (
        "sigmoid",
        "tanh",
        "softsign",
        "relu",
        "elu",
        "gelu",
        "identity",
    )
    """φ of the rnn."""
    gains: tuple[float, ...] = (1.0, 1.4, 4.0)
    """Of the orthogonal recurrence: 1.4 is critical for a rectifier, 4 for a sigmoid."""
    clip: float = 1.0


def experiment(c: Config) -> Experiment:
    """One spec an activation."""
    specs = tuple(cures.spec(c, a.replace("_", " "), c.steps[0], activation=a) for a in c.activations)
    return cures.experiment(c, "activations", specs, ("units",), gain=c.gains, clip=c.clip)


CLAIMS = (
    Claim("At gain 1 most ELU networks learn", "proportion", of("learned", label="elu", gain=1.0), 0.5),
    Claim("At gain 1.4 most ELU networks learn", "proportion", of("learned", label="elu", gain=1.4), 0.5),
    Claim(
        "Linear networks learn from gains 1 and 1.4 (share of a seed's two)",
        "median",
        of("learned", label="identity", gain=(1.0, 1.4)),
        0.6,
    ),
    Claim(
        "Of the seeds with which either ELU or tanh learns from gain 1, most are ELU's",
        "proportion",
        prevails(of("learned", label="elu", gain=1.0), of("learned", label="tanh", gain=1.0)),
        0.5,
    ),
    Claim(
        "A sigmoid learns from hardly any gain (share of a seed's gains)",
        "median",
        of("learned", label="sigmoid"),
        0.2,
        "below",
    ),
    Claim(
        "Nor do ReLU and GELU (share of a seed's settings)",
        "median",
        of("learned", label=("relu", "gelu")),
        0.2,
        "below",
    ),
    Claim("From gain 4 hardly any φ learns (share of a seed's φ)", "median", of("learned", gain=4.0), 0.15, "below"),
    Claim(
        "From gain 1 a sigmoid's gradient begins with less than 5 lags",
        "median",
        of("horizon_start", label="sigmoid", gain=1.0),
        5.0,
        "below",
    ),
    Claim(
        "From gain 1.4, which is critical for it, a ReLU's gradient begins further back than from 1",
        "difference",
        minus(of("horizon_start", label="relu", gain=1.4), of("horizon_start", label="relu", gain=1.0)),
        0.0,
    ),
)
"""At the default length, width and gains."""


def once(config: Config) -> Mapping[str, str]:
    """Trains (or goes on), then draws; the verdicts."""
    measures = {"saturated": analysis.probed("saturated"), "dead units": analysis.probed("dead_fraction")}
    title, parts = "Activations at their gains", {"": launch(experiment(config), config)}
    return cures.report(CLAIMS, parts, lambda _, out, found: analysis.show(out, title, "gain", measures, found))


def main(config: Config) -> None:
    """As often as was asked for."""
    config = cures.with_preset(config, smoke=dict(activations=config.activations[1:3], gains=config.gains[:2]))
    backend.start()
    replicated(config, once)


if __name__ == "__main__":
    script(Config, main, __doc__)
