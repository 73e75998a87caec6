"""Early stopping: a run ends when its validation metric no longer improves, and keeps its best parameters.

At each look the metric, a loss or minus an accuracy, is held against the best one so far. An improvement of more than
`min_improvement` makes these parameters the best and the patience new; a run that has not improved at `patience`
looks in a row is stopped: it is frozen, and costs nothing where runs are mapped. Goodfellow, Bengio & Courville 2016,
algorithm 7.1. All that decides is in the state, so a run that was killed decides the same.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.building import called
from seqdyn.data.tasks import DATA_SETS
from seqdyn.learn import precision
from seqdyn.learn.spec import Spec
from seqdyn.types import Array, Bool, ConfigError, Float, Int, Metrics, Tree


class Stopping(NamedTuple):
    """What early stopping remembers of a run."""

    best: Tree
    """The parameters at the best look."""
    value: Float[Array, ""]
    """The metric there; an accuracy with a minus."""
    at: Int[Array, ""]
    """Updates done by then."""
    waited: Float[Array, ""]
    """Looks since."""
    stopped: Bool[Array, ""]


def init(spec: Spec, params: Tree) -> Stopping | None:
    """Before the first look; None where nothing is to be stopped."""
    if spec.stop == "none":
        return None
    real = precision.trained(spec.dtype)
    return Stopping(params, real(jnp.inf), jnp.int32(0), real(0), jnp.bool_(False))


def update(spec: Spec, kept: Stopping, params: Tree, step: Int[Array, ""], metrics: Metrics) -> Stopping:
    """After a look with these metrics at `params`. A metric that is NaN changes nothing."""
    value = metrics[f"validation_{spec.stop}"] * (-1 if spec.stop == "accuracy" else 1)
    better, seen = value < kept.value - spec.numbers.min_improvement, ~jnp.isnan(value)
    waited = jnp.where(better, 0, kept.waited + seen.astype(kept.waited.dtype))
    new = Stopping(params, value, step, waited, waited >= spec.numbers.patience)
    old = kept._replace(waited=waited, stopped=kept.stopped | (waited >= spec.numbers.patience))
    return jax.tree.map(lambda n, o: jnp.where(better, n, o), new, old)


def check(spec: Spec) -> None:
    """Raises ConfigError for looks at splits or metrics that a task does not have."""
    if spec.evaluate_train and spec.task not in DATA_SETS:
        raise ConfigError(f"evaluate_train is True for the task '{spec.task}'; only a data set has a training split.")
    if spec.stop != "none" and spec.task not in DATA_SETS:
        raise ConfigError(f"stop is '{spec.stop}' for the task '{spec.task}'; only a data set has a validation split.")
    if spec.stop == "accuracy" and spec.loss is not None and not hasattr(spec.loss, "correct"):
        raise ConfigError(
            f"stop is 'accuracy' and loss is {called(spec.loss)}, which has no correct(); it must be 'loss'."
        )
    without = spec.loss is None and (spec.task == "next_step" or (spec.task == "labelled" and not spec.classes))
    if spec.stop == "accuracy" and without:
        raise ConfigError(f"stop is 'accuracy' for the task '{spec.task}', which has no classes; it must be 'loss'.")
