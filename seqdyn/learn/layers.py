"""The recurrent layers of a spec: cells by their names, what normalises and drops them, and one's own."""

from typing import Any

from seqdyn.data.tasks import task_of
from seqdyn.fields import Fields
from seqdyn.learn import dropout, precision
from seqdyn.learn.own_cells import levels, made_cell, said
from seqdyn.nets import cells
from seqdyn.nets.levels import RNN, Dense, DensePerPosition
from seqdyn.nets.normalised import normalised
from seqdyn.nets.wrappers import Wrapper
from seqdyn.types import ConfigError, whole


def layers(spec: Fields, training: bool = False) -> tuple[cells.Cell, ...]:
    """The recurrent layers, bottom first; their initialisers carry the run's gain and biases. The two of a level that
    is read in both directions follow each other. In `training` a batch is normalised by its own mean and variance, and
    a recurrence that drops reads its masks beside its inputs."""
    ways, real = 2 if spec.bidirectional else 1, precision.trained(spec.dtype)
    inputs = (spec.embedding or spec.vocabulary or task_of(spec).inputs, *(ways * h for h in spec.hidden))

    def cell(i: int, d: int, level: Any) -> cells.Cell:
        made = made_cell(f"layers[{i}]", dropout.wrapped(spec, level), d, real, training)
        plain = precision.computing(spec.dtype, made)
        if spec.normalise == "none":
            return plain
        phi = level.activation if isinstance(level, RNN) else "tanh"
        return normalised(plain, spec.normalise, spec.steps, spec.numbers.norm_gain, phi, training)

    stack = enumerate(zip(inputs, levels(spec), strict=False))
    return tuple(cell(i, d, level) for i, (d, level) in stack for _ in range(ways))


def gates(spec: Fields) -> tuple[str, ...]:
    """Names of the cells' blocks, in the order in which they lie in U; of several kinds those of the lower first."""
    return tuple(dict.fromkeys(gate for cell in layers(spec) for gate in cell.gates))


def is_reversed(spec: Fields) -> tuple[bool, ...]:
    """Which of the recurrent layers read from the last step to the first."""
    return tuple(spec.bidirectional and i % 2 == 1 for i in range(len(spec.widths)))


def check_widths(spec: Fields) -> None:
    """Raises ConfigError for widths that are none."""
    if not isinstance(spec.hidden, tuple):
        raise ConfigError(f"hidden is {spec.hidden!r}; it must be a tuple of widths, one per level.")
    if not spec.hidden:
        raise ConfigError("hidden is empty; give one width per level.")
    for width in spec.hidden:
        whole("hidden", width)


def check(spec: Fields) -> None:
    """Raises ConfigError for layers that cannot be, and for what their cells do not have."""
    if spec.chrono and spec.cell not in ("lstm", "gru", "gru_reset_before"):
        raise ConfigError(f"chrono is True for an {spec.cell}; it sets the biases of gates, so choose lstm or gru.")
    dense = said(spec, Dense)
    if spec.bidirectional and dense:
        raise ConfigError(f"bidirectional is True and {dense}, which has no direction.")
    name = "hidden" if spec.normalise == "layer" else "batch"
    if spec.normalise != "none" and 1 in (spec.hidden if name == "hidden" else (spec.batch,)):
        raise ConfigError(
            f"{name} is {getattr(spec, name)} and normalise is '{spec.normalise}'; minus its mean a single value is 0, "
            "whatever was read, so it must be at least 2."
        )
    if spec.normalise != "none" and dense:
        raise ConfigError(f"normalise is '{spec.normalise}' and {dense}; it takes rnn, lstm and gru.")
    if spec.normalise != "none" and (inside := said(spec, Wrapper)):
        raise ConfigError(f"normalise is '{spec.normalise}' and {inside}; say it in layers alone, as LayerNorm(…).")
    padded = spec.shortest or (spec.task in ("labelled", "next_step") and spec.mask)
    if spec.normalise.startswith("batch") and padded:
        raise ConfigError(
            f"normalise is '{spec.normalise}' for sequences of several lengths, whose padding a batch would count; "
            "set mask to False and shortest to 0."
        )
    gated = any(not isinstance(level, RNN) for level in levels(spec))
    if "omega" in spec.penalties and (gated or spec.normalise != "none"):
        raise ConfigError(
            f"penalties has 'omega' for the cell {spec.label}; Ω is of an rnn that is not normalised, with nothing "
            "dropped inside."
        )
    if spec.segment and spec.steps % spec.segment:
        raise ConfigError(f"segment is {spec.segment}; it must divide steps, {spec.steps}, or be 0.")
    batched = f"normalise is '{spec.normalise}'" if spec.normalise.startswith("batch") else None
    if spec.segment and (dense or batched):
        raise ConfigError(
            f"segment is {spec.segment} and {dense or batched}, which sees all steps at once; it must be 0."
        )
    for level in levels(spec):
        if isinstance(level, DensePerPosition) and spec.task == "stream":
            raise ConfigError(f"{said(spec, DensePerPosition)} for the task 'stream', which has no positions.")
        if isinstance(level, DensePerPosition) and level.steps != spec.steps:
            raise ConfigError(f"DensePerPosition.steps is {level.steps}; it must be those of the task, {spec.steps}.")
