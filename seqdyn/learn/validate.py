"""What cannot be right in specs and in the numbers that they run with, said before anything is compiled."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from seqdyn.data import augment, tasks
from seqdyn.data.synthetic import Sequences
from seqdyn.data.tasks import DATA_SETS
from seqdyn.fields import HINTS, NONE_AT_0, words
from seqdyn.learn import dropout, layers, network, penalties, precision, stopping
from seqdyn.learn.fitted import unheeded
from seqdyn.learn.optim import links
from seqdyn.learn.spec import Spec
from seqdyn.measure import flossing
from seqdyn.numbers import FIELDS, Numbers, check_number
from seqdyn.parts import is_part
from seqdyn.types import ConfigError, one_of, whole


def validate(specs: Sequence[Spec], grids: Sequence[tuple[Sequence[Spec], Numbers]]) -> None:
    """Raises ConfigError, in one sentence, for the first field of the specs of an experiment that cannot be right, or
    number of the grids that they run on."""
    for spec in specs:
        check_spec(spec)
        tasks.check_reads_past(spec)
    precision.check(specs)
    first = specs[0]
    for spec in specs[1:]:
        for name in ("task", "shortest", "training_set", "features", *(["steps"] if first.task in DATA_SETS else [])):
            if not _alike(getattr(spec, name), getattr(first, name)):
                raise ConfigError(
                    f"{name} is {getattr(spec, name)!r} in one spec and {getattr(first, name)!r} in another; "
                    "the specs of one experiment share it."
                )
    if len({s.label for s in specs}) < len(specs):
        said = "name, cell or activation must differ; numbers are crossed by grid"
        right = "give each a name" if any(spec.layers or spec.network for spec in specs) else said
        raise ConfigError(f"specs have the labels {[s.label for s in specs]}; {right}.")
    for of, numbers in grids:
        for f in FIELDS:
            for value in getattr(numbers, f.name):
                check_number(f.name, value)
        _check_use(of, numbers)


def _alike(one: Any, other: Any) -> bool:
    """The same, but for the numbers of parts, and the steps of the library's."""
    if isinstance(one, Sequences) and type(one) is type(other):
        one = dataclasses.replace(one, steps=other.steps)
    return jax.tree.structure(one) == jax.tree.structure(other) if is_part(one) and is_part(other) else one == other


def _check_use(specs: Sequence[Spec], numbers: Numbers) -> None:
    """No number may be given that no spec heeds."""
    for f in FIELDS:
        switch = f.metadata["switch"]
        values = np.asarray(getattr(numbers, f.name), float)
        largest = np.max(values, where=np.isfinite(values) | (f.name != "patience"), initial=0)
        off = f.default in (0, math.inf)  # of the others a default says nothing
        if switch and off and largest > 0 and not any(map(switch.on, specs)):
            raise ConfigError(f"{f.name} is {largest:g}; no spec has {switch.missing}.")
    augment.check_strength(specs, numbers.strength)
    deaf = [unheeded(spec) for spec in specs]
    for name in [name for name in deaf[0] if all(name in one for one in deaf)]:
        odd = [v for v in np.asarray(getattr(numbers, name)).tolist() if v != getattr(Numbers, name)]
        if odd:
            raise ConfigError(
                f"{name} is {odd[0]:g}, which {type(deaf[0][name]).__name__} does not heed; leave it out."
            )


def check_spec(spec: Spec) -> None:
    """Raises ConfigError for the first field of a spec that cannot be right."""
    for name in HINTS:
        if words(name) and not is_part(getattr(spec, name)) and not (name == "optimizer" and links(spec)):
            one_of(name, getattr(spec, name), words(name))
    for name, hint in HINTS.items():
        if hint is bool and not isinstance(getattr(spec, name), bool):
            raise ConfigError(f"{name} is {getattr(spec, name)!r}; it must be True or False.")
    if not isinstance(spec.name, str):
        raise ConfigError(f"name is {spec.name!r}; it must be a string.")
    for name, hint in HINTS.items():
        if hint is int:
            whole(name, getattr(spec, name), 0 if name in NONE_AT_0 else 1)
    layers.check_widths(spec)
    penalties.check(spec)
    tasks.check_lengths(spec)
    layers.check(spec)
    tasks.check(spec)
    if spec.network is not None:
        network.check_spec(spec)
    dropout.check(spec)
    layers.check_statistics(spec)
    flossing.check(spec)
    stopping.check(spec)
    augment.check(spec)
