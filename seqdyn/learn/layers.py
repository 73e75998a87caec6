"""The recurrent layers of a spec: cells by their names, what normalises and drops them, and one's own."""

from typing import get_args

from seqdyn.data.tasks import task_of
from seqdyn.fields import CellName, Fields
from seqdyn.learn import dropout, precision
from seqdyn.learn.hypers import Hypers
from seqdyn.learn.own_cells import made_cell
from seqdyn.nets import cells, memoryless
from seqdyn.nets.inits import INITS, chrono, constant
from seqdyn.nets.normalised import normalised
from seqdyn.types import ConfigError, whole


def layers(spec: Fields, hypers: Hypers, training: bool = False) -> tuple[cells.Cell, ...]:
    """The recurrent layers, bottom first; their initialisers carry the run's gain and biases. The two of a level that
    is read in both directions follow each other. In `training` a batch is normalised by its own mean and variance, and
    a recurrence that drops reads its masks beside its inputs."""
    ways = 2 if spec.bidirectional else 1
    inputs = (spec.embedding or spec.vocabulary or task_of(spec).inputs, *(ways * h for h in spec.hidden))
    if spec.layers:
        own = enumerate(zip(inputs, spec.layers, strict=False))
        made = (made_cell(f"layers[{i}]", layer, d) for i, (d, layer) in own for _ in range(ways))
        return tuple(precision.computing(spec.dtype, c) for c in made)
    w, u = INITS[spec.w_init](hypers.input_gain), INITS[spec.u_init](hypers.gain)
    zero, real = constant(0.0), precision.trained(spec.dtype)

    def cell(d: int, h: int) -> cells.Cell:
        match spec.cell:
            case "rnn":
                return cells.rnn(d, h, spec.activation, w=w, u=u, dtype=real)
            case "lstm":
                bias = {"i": zero, "f": constant(hypers.forget_bias), "o": zero, "g": zero}
                return cells.lstm(d, h, w=w, u=u, b=bias, longest=hypers.longest if spec.chrono else None, dtype=real)
            case "gru" | "gru_reset_before":
                make = cells.gru if spec.cell == "gru" else cells.gru_reset_before
                z = chrono(hypers.longest) if spec.chrono else zero
                return make(d, h, w=w, u=u, b={"r": zero, "z": z, "n": zero}, dtype=real)
            case "dense":
                return memoryless.dense(d, h, spec.activation, w=w, dtype=real)
            case "dense_per_position":
                return memoryless.dense_per_position(spec.steps, d, h, spec.activation, w=w, dtype=real)
        raise ConfigError(f"cell is {spec.cell!r}; it must be one of {', '.join(get_args(CellName))}.")

    made = tuple(
        precision.computing(spec.dtype, cell(d, h))
        for d, h in zip(inputs, spec.hidden, strict=False)
        for _ in range(ways)
    )
    if spec.normalise == "none":
        return tuple(dropout.cell(spec, hypers, c, training) for c in made)
    by = (spec.normalise, spec.steps, hypers.norm_gain, spec.activation, training)
    return tuple(normalised(c, *by) for c in made)


def backwards(spec: Fields) -> tuple[bool, ...]:
    """Which of the recurrent layers read from the last step to the first."""
    return tuple(spec.bidirectional and i % 2 == 1 for i in range(len(spec.widths)))


def check(spec: Fields) -> None:
    """Raises ConfigError for layers that cannot be, and for what their cells do not have."""
    if not isinstance(spec.hidden, tuple):
        raise ConfigError(f"hidden is {spec.hidden!r}; it must be a tuple of widths, one per level.")
    if not spec.hidden:
        raise ConfigError("hidden is empty; give one width per level.")
    for width in spec.hidden:
        whole("hidden", width)
    if spec.chrono and spec.cell not in ("lstm", "gru", "gru_reset_before"):
        raise ConfigError(f"chrono is True for an {spec.cell}; it sets the biases of gates, so choose lstm or gru.")
    if spec.bidirectional and spec.cell.startswith("dense"):
        raise ConfigError(f"bidirectional is True for the cell '{spec.cell}', which has no direction.")
    name = "hidden" if spec.normalise == "layer" else "batch"
    if spec.normalise != "none" and 1 in (spec.hidden if name == "hidden" else (spec.batch,)):
        raise ConfigError(
            f"{name} is {getattr(spec, name)} and normalise is '{spec.normalise}'; minus its mean a single value is 0, "
            "whatever was read, so it must be at least 2."
        )
    if spec.normalise != "none" and spec.cell.startswith("dense"):
        raise ConfigError(f"normalise is '{spec.normalise}' for the cell '{spec.cell}'; it takes rnn, lstm and gru.")
    padded = spec.shortest or (spec.task in ("labelled", "next_step") and spec.mask)
    if spec.normalise.startswith("batch") and padded:
        raise ConfigError(
            f"normalise is '{spec.normalise}' for sequences of several lengths, whose padding a batch would count; "
            "set mask to False and shortest to 0."
        )
    if "omega" in spec.penalties and (spec.cell != "rnn" or spec.normalise != "none"):
        raise ConfigError(f"penalties has 'omega' for the cell {spec.label}; Ω is of an rnn that is not normalised.")
    if spec.segment and spec.steps % spec.segment:
        raise ConfigError(f"segment is {spec.segment}; it must divide steps, {spec.steps}, or be 0.")
    if spec.segment and (spec.cell.startswith("dense") or spec.normalise.startswith("batch")):
        odd = f"normalise is '{spec.normalise}'" if spec.normalise.startswith("batch") else f"cell is '{spec.cell}'"
        raise ConfigError(f"segment is {spec.segment} and {odd}, which sees all steps at once; it must be 0.")
    if spec.cell == "dense_per_position" and spec.task == "stream":
        raise ConfigError("cell is 'dense_per_position' for the task 'stream', which has no positions.")
