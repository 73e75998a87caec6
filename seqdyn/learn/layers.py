"""The recurrent layers of a spec: cells by their names, what normalises and drops them, and one's own."""

from typing import Any

from seqdyn.data.tasks import task_of
from seqdyn.fields import Fields
from seqdyn.learn import dropout, precision
from seqdyn.learn.own_cells import levels, made_cell, said
from seqdyn.nets import cells
from seqdyn.nets.levels import RNN, Dense, DensePerPosition
from seqdyn.nets.normalised import RENEWED
from seqdyn.nets.wrappers import BatchNorm, BatchNormDrive, LayerNorm, Wrapper
from seqdyn.parts import Part
from seqdyn.types import ConfigError, whole


def layers(spec: Fields, training: bool = False) -> tuple[cells.Cell, ...]:
    """The recurrent layers, bottom first; their initialisers carry the run's gain and biases. The two of a level that
    is read in both directions follow each other. In `training` a batch is normalised by its own mean and variance, and
    a recurrence that drops reads its masks beside its inputs."""
    ways, real = 2 if spec.bidirectional else 1, precision.trained(spec.dtype)
    inputs = (spec.embedding or spec.vocabulary or task_of(spec).inputs, *(ways * h for h in spec.hidden))

    def cell(i: int, d: int, level: Any) -> cells.Cell:
        around = _normalised(spec, dropout.wrapped(spec, level))
        return precision.computing(spec.dtype, made_cell(f"layers[{i}]", around, d, real, training))

    stack = enumerate(zip(inputs, levels(spec), strict=False))
    return tuple(cell(i, d, level) for i, (d, level) in stack for _ in range(ways))


def _normalised(spec: Fields, level: Part) -> Part:
    """A level with the normalisation of `Spec.normalise` around it."""
    gain = spec.numbers.norm_gain
    match spec.normalise:
        case "layer":
            return LayerNorm(level, gain)
        case "batch_drive":
            return BatchNormDrive(level, gain, RENEWED)
        case "batch":
            return BatchNorm(level, BatchNorm.gain * gain, RENEWED, spec.steps)
    return level


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
    normal = said(spec, BatchNormDrive) if spec.normalise == "none" else f"normalise is '{spec.normalise}'"
    if normal and 1 in (spec.hidden if name == "hidden" else (spec.batch,)):
        raise ConfigError(
            f"{name} is {getattr(spec, name)} and {normal}; minus its mean a single value is 0, whatever was read, so "
            "it must be at least 2."
        )
    if spec.normalise != "none" and dense:
        raise ConfigError(f"normalise is '{spec.normalise}' and {dense}; it takes rnn, lstm and gru.")
    if spec.normalise != "none" and (inside := said(spec, Wrapper)):
        raise ConfigError(f"normalise is '{spec.normalise}' and {inside}; say it in layers alone, as LayerNorm(…).")
    gated = any(not isinstance(level, RNN) for level in levels(spec))
    if "omega" in spec.penalties and (gated or spec.normalise != "none"):
        raise ConfigError(
            f"penalties has 'omega' for the cell {spec.label}; Ω is of an rnn that is not normalised, with nothing "
            "dropped inside."
        )
    if spec.segment and spec.steps % spec.segment:
        raise ConfigError(f"segment is {spec.segment}; it must divide steps, {spec.steps}, or be 0.")
    if spec.segment and dense:
        raise ConfigError(f"segment is {spec.segment} and {dense}, which sees all steps at once; it must be 0.")
    for level in levels(spec):
        if isinstance(level, DensePerPosition) and spec.task == "stream":
            raise ConfigError(f"{said(spec, DensePerPosition)} for the task 'stream', which has no positions.")
        if isinstance(level, DensePerPosition | BatchNorm) and level.steps != spec.steps:
            name = type(level).__name__
            raise ConfigError(f"{name}.steps is {level.steps}; it must be those of the task, {spec.steps}.")


def check_statistics(spec: Fields) -> None:
    """Raises ConfigError for layers, each of which can be, that keep running statistics of what has none."""
    if spec.network is not None:
        return
    pairs = zip(levels(spec), layers(spec, training=True)[:: 2 if spec.bidirectional else 1], strict=True)
    kept = next((f"layers has {type(level).__name__}" for level, cell in pairs if cell.update_batch_stats), None)
    if not kept:
        return
    batched = kept if spec.normalise == "none" else f"normalise is '{spec.normalise}'"
    if spec.segment:
        raise ConfigError(f"segment is {spec.segment} and {batched}, which sees all steps at once; it must be 0.")
    if spec.shortest or (spec.task in ("labelled", "next_step") and spec.mask):
        raise ConfigError(
            f"{batched} for sequences of several lengths, whose padding a batch would count; set mask to False and "
            "shortest to 0."
        )
    if spec.dtype == "bfloat16":
        raise ConfigError(
            f"dtype is 'bfloat16' and {batched}, whose running mean moves by less than its digits; take 'float32'."
        )
    if spec.monte_carlo:
        raise ConfigError(
            f"monte_carlo is {spec.monte_carlo} and {batched}; with dropout on, a batch would be normalised by its own "
            "mean and variance."
        )
