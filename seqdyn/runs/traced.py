"""Would the same run come again? It is traced twice, which finds what a user's code draws by other means than keys."""

import warnings
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from seqdyn.building import called, check_repeats, known_at_run_time
from seqdyn.described import reads
from seqdyn.learn import start, train
from seqdyn.learn.config import Experiment, Spec
from seqdyn.learn.probe_config import ProbeConfig, own_probes
from seqdyn.measure import probes
from seqdyn.parts import is_part, within
from seqdyn.runs import axes
from seqdyn.types import ConfigError

_KNOWN = ("seqdyn", "jax", "jaxlib", "optax", "flax")


def check_traces(experiment: Experiment, data: Any) -> None:
    """Raises ConfigError where the state that a run begins with, an update, an evaluation or an own probe's look is
    another program when it is traced again: no run would come again, and a run that is resumed would go on as another.
    And where two of its parameters have one name. Warns of an axis that changes nothing.

    Only specs with code of the user's are traced, once in a process for all numbers: what it trains is traced once for
    them, too.
    """
    _check_reads((*experiment.specs, *experiment.probes))
    probe_config = experiment.probe_config._replace(probes=tuple(own_probes(experiment.probes).values()))
    for spec, runs in zip(experiment.specs, experiment.runs, strict=True):
        if own := _own((spec, probe_config.probes)):
            one = runs.at(0).arrays()
            state = axes.shapes(one)
            start.names(state.params)  # a checkpoint keeps two arrays of one name, and none could be restored
            given = jax.eval_shape(lambda *given: given, one, state, data)
            leaves, structure = jax.tree.flatten(given)
            idle = _check(f"{' or '.join(own)}, in {spec.label}", probe_config, structure, tuple(leaves))
            _warn_of_axes(spec.label, runs, idle)


_READ: dict[Any, dict[str, str]] = {}
"""What the code of classes and functions read of their modules when this process traced them first."""


def _check_reads(value: Any) -> None:
    """Raises ConfigError where a part reads something else of its module than when its programs were made: they stay as
    they are as long as the process lives."""
    for one in within(value):
        code = type(one) if is_part(one) else one
        now = reads(code)
        before = _READ.setdefault(code, now)
        for name in [name for name in before if now.get(name) != before[name]]:
            raise ConfigError(
                f"{name} has changed since {called(one)}, which reads it, was traced in this process, whose programs "
                "are kept; make it a field of the part, or define the part anew."
            )


def _warn_of_axes(label: str, runs: Spec, idle: frozenset[int]) -> None:
    """Warns of numbers of parts that differ among the runs, and on which nothing trained or recorded depends."""
    for i, (path, of) in enumerate(jax.tree_util.tree_leaves_with_path(runs)):
        name = jax.tree_util.keystr(path).lstrip(".")
        if i in idle and not name.startswith("numbers.") and len(np.unique(of)) > 1:
            warnings.warn(
                f"{name} differs among the runs of {label}, and nothing that is trained or recorded depends on it: "
                "runs that differ in it alone are the same",
                stacklevel=3,
            )


@cache
def _check(
    name: str, probe_config: ProbeConfig, structure: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]
) -> frozenset[int]:
    """Which of the leaves, by their number, nothing that is trained or recorded depends on."""

    def run(spec: Any, state: Any, data: Any) -> Any:
        looks = probes.measure(spec, probe_config, state, data)
        return train.init(spec, data), train.chunk(spec, state, data, 1), train.evaluate(spec, state, data), looks

    with known_at_run_time(name):
        jaxpr = check_repeats(f"{name},", run, *jax.tree.unflatten(structure, leaves), outermost=True)
    used = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1]
    return frozenset(i for i, one in enumerate(used) if not one)


def _own(value: Any) -> list[str]:
    """The user's classes and functions in a value, each once."""
    modules = ((one, str((type(one) if is_part(one) else one).__module__)) for one in within(value))
    return list(dict.fromkeys(called(one) for one, module in modules if module.partition(".")[0] not in _KNOWN))
