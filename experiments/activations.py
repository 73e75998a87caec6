"""Which activation lets the gradient through, and what becomes of its units?

Hypothesis: a sigmoid, whose slope is at most ¼, forgets within a few steps; tanh and its relatives keep the
gradient near their critical gain; rectifiers (Glorot, Bordes & Bengio 2011; Le, Jaitly & Hinton 2015) let it
through, at the price of dead units. Each runs at several recurrent gains, and the figure shows which suits it.
Task: temporal order, T = 50. Saturated units have |φ'| below 0.1; dead ones a slope of 0 at every step of every
example.
Cost: 96 runs × 3,000 updates, under seven minutes on two cores.
Expect: ELU and the identity learn at gains 1 and 1.4 with every seed, tanh at 1 and softsign at 1.4 with one of
three, sigmoid and the rectifiers never. Where the horizon at the start is below about 30 lags, only the linear
network ever learned.
"""

from dataclasses import dataclass

from analysis import cures as analysis
from experiments import _cures as cures
from seqdyn import backend
from seqdyn.learn.config import Experiment
from seqdyn.nets.activations import Activation
from seqdyn.runs.script import Seeds, launch, script


@dataclass(frozen=True, kw_only=True)
class Config(cures.Common):
    """The grid is activations × gains × seeds."""

    seeds: Seeds = 3
    activations: tuple[Activation, ...] = (
        "sigmoid",
        "tanh",
        "softsign",
        "relu",
        "leaky_relu",
        "elu",
        "gelu",
        "identity",
    )
    """φ of the rnn."""
    gains: tuple[float, ...] = (0.7, 1.0, 1.4, 4.0)
    """Of the orthogonal recurrence: 1.4 is critical for a rectifier, 4 for a sigmoid."""
    clip: float = 1.0


def experiment(c: Config) -> Experiment:
    """One spec an activation."""
    specs = tuple(cures.spec(c, a.replace("_", " "), c.steps[0], activation=a) for a in c.activations)
    return cures.experiment(c, "activations", specs, ("units",), gain=c.gains, clip=c.clip)


def main(config: Config) -> None:
    """Trains (or goes on), then draws."""
    config = cures.sized(config, smoke=dict(activations=config.activations[1:3], gains=config.gains[:2]))
    backend.start()
    measures = {"saturated": analysis.probed("saturated"), "dead units": analysis.probed("dead_fraction")}
    analysis.show(launch(experiment(config), config), "Activations at their gains", "gain", measures)


if __name__ == "__main__":
    script(Config, main, __doc__)
