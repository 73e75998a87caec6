"""What all frameworks share: which networks of ours they have, and parameters on the way out and in."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.backend import check_settings
from seqdyn.data.arrays import from_tensor
from seqdyn.data.tasks import DATA_SETS, padding, task_of
from seqdyn.io import parents
from seqdyn.learn import validate
from seqdyn.learn.model import Dense, Model, acting_params
from seqdyn.learn.own_cells import levels, own, said
from seqdyn.learn.spec import Spec
from seqdyn.learn.start import fitted, named, tree
from seqdyn.nets.conventions import Layer
from seqdyn.nets.wrappers import BatchNormDrive, LayerNorm, Zoneout
from seqdyn.runs.axes import shapes
from seqdyn.types import ConfigError

ACTIVATIONS = ("tanh", "relu")
"""Of an rnn, that all frameworks have and mean the same by."""
NORMS = LayerNorm | BatchNormDrive


class Stack(NamedTuple):
    """A network as other frameworks speak of it: embedding → levels of one kind of cell → readout."""

    kind: str
    activation: str
    """Of an rnn."""
    vocabulary: int
    """Of ids; 0 where numbers are read."""
    embedding: int
    inputs: int
    """Numbers a step that the first level reads."""
    hidden: tuple[int, ...]
    directions: int
    readout: str
    outputs: int
    pad: str
    """On which side of a sequence padding lies, 'before' or 'after'."""
    mask: bool
    """Is padding left out where lengths are given?"""
    real: Any
    """The parameters' type."""

    @property
    def widths(self) -> list[int]:
        """What each level reads."""
        return [self.inputs, *(self.directions * h for h in self.hidden[:-1])]


def stack(spec: Spec, of: str, kinds: Mapping[str, str] | Sequence[str], out: bool = False) -> Stack:
    """The network of a spec, for a framework called `of` that has `kinds` of cells; `out` says that it is to compute
    there what it computes here.

    Raises ConfigError for what has no counterpart: other cells and activations, normalisation, networks that are no
    stack, and on the way out zoneout, whose expectation stands in each step.
    """
    check_spec(spec)
    strange = own(spec) or (type(spec.network).__name__ if spec.network else None)
    if strange:
        raise ConfigError(f"{of} has no counterpart of {strange}, a part of one's own; seqdyn.io.save keeps it.")
    if inside := said(spec, NORMS | Zoneout if out else NORMS):
        raise ConfigError(f"{inside}, which {of} has no counterpart of; seqdyn.io.save keeps it.")
    cell, activation = levels(spec)[0].word, levels(spec)[0].activation
    if any((level.word, level.activation) != (cell, activation) for level in levels(spec)):
        raise ConfigError(f"layers has {spec.label}; for {of} all must be of one kind. seqdyn.io.save keeps them.")
    if cell not in kinds:
        resets = {"gru": "the reset after the product; take 'gru_reset_before'"}
        resets["gru_reset_before"] = "the reset before the product; take 'gru'"
        why = f", with {resets[cell]}" if cell in resets else ""
        raise ConfigError(f"cell is {cell!r}{why}; for {of} it must be one of {', '.join(kinds)}.")
    if cell == "rnn" and activation not in ACTIVATIONS:
        raise ConfigError(f"activation is {activation!r}; for {of} it must be one of {', '.join(ACTIVATIONS)}.")
    if spec.normalise != "none":
        raise ConfigError(f"normalise is {spec.normalise!r}, which {of} has no counterpart of; it must be 'none'.")
    if out and spec.dropout == "zoneout":
        raise ConfigError(f"dropout is 'zoneout', which acts in each step, also in evaluation; {of} has none of it.")
    return Stack(
        kind=cell,
        activation=activation,
        vocabulary=spec.vocabulary,
        embedding=spec.embedding,
        inputs=spec.embedding or spec.vocabulary or task_of(spec).inputs,
        hidden=spec.hidden,
        directions=2 if spec.bidirectional else 1,
        readout=spec.readout,
        outputs=task_of(spec).outputs,
        pad=padding(spec),
        mask=spec.mask or spec.task not in DATA_SETS,
        real=np.float64 if spec.dtype == "float64" else np.float32,
    )


def check_lengths(of: Stack, lengths: Any) -> None:
    """ConfigError for lengths where they mean nothing, and for a `lengths` that is neither True nor False."""
    if np.ndim(lengths) or lengths not in (True, False):
        raise ConfigError(f"lengths is {lengths!r:.60}; it must be True or False: are lengths an input of the network?")
    if lengths and not of.mask:
        raise ConfigError("lengths is True and mask is False: padding is read like anything else; leave lengths out.")


def pair(params: Any, spec: Any) -> tuple[Any, Spec]:
    """(params, spec) of what was given: those, or one thing that holds both, as `seqdyn.trained` returns it."""
    if spec is None and hasattr(params, "params") and hasattr(params, "spec"):
        params, spec = params.params, params.spec
    if spec is None:
        raise ConfigError("spec is missing; give it after params, or what seqdyn.trained or seqdyn.io.load returns.")
    check_spec(spec)
    return params, spec


def check_spec(spec: Any) -> None:
    """ConfigError for what is no spec, for a field of it that cannot be right, and where JAX cannot hold its
    parameters."""
    if not isinstance(spec, Spec):
        raise ConfigError(f"spec is {spec!r:.60}; it must be a Spec.")
    validate.check_spec(spec)
    if spec.dtype == "float64":
        check_settings(double=True)


def outgoing(params: Any, spec: Spec) -> Any:
    """The `Model` as it computes, of NumPy's arrays: weights behind gates of l0 have met them. Readout and embedding
    are None where they are not given. Raises ConfigError if it is not a model of the spec."""
    wanted = shapes(spec).params
    if isinstance(params, Model) and params.log_alpha is not None and wanted.log_alpha is not None:
        fitted(wanted, named(params), "params", spec.label)
        params = acting_params(spec, params)
    found = fitted(wanted, named(params), "params", spec.label)
    return tree(wanted, found)


def incoming(spec: Spec, of: str, layers: Sequence[Layer], readout: tuple[Any, Any] | None, embedding: Any) -> Model:
    """The `Model` of these weights, in the type that the spec trains in."""
    given: Any = Model(embedding, tuple(layers), None if readout is None else Dense(*readout))  # type: ignore
    wanted = shapes(spec).params
    found = tree(wanted, fitted(wanted, named(given), f"what {of} gives", spec.label))
    return parents.noted(jax.tree.map(jnp.asarray, found), {"framework": of})


def check_whole(of: Stack, model: Any, what: str) -> None:
    """ConfigError if a part of the network is not given."""
    missing = "readout" if model.readout is None else "embedding" if of.embedding and model.embedding is None else ""
    if missing:
        raise ConfigError(f"params has no {missing}; {what} holds a whole network.")


def taken(left: dict[str, Any], name: str | None, what: str, fits: Callable[[Any], bool]) -> Any:
    """What is taken of the modules that are left, by its name, or as the only one that it can be; None where there is
    none. ConfigError where there are several, or none of the name."""
    if name is not None:
        if not isinstance(name, str) or name.rstrip(".") not in left:
            there = ", ".join(map(repr, left)) or "no other module"
            raise ConfigError(f"{what} is {name!r}, where there is nothing; there is {there}.")
        return left.pop(name.rstrip("."))
    found = [module for module, one in left.items() if fits(one)]
    if len(found) > 1:
        raise ConfigError(f"each of {', '.join(map(repr, found))} may be the {what}; say {what}=.")
    return left.pop(found[0]) if found else None


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """What the file system says of a file that is written within, in a sentence."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror or error}); choose another place.") from None


def plain(value: Any, where: str = "a weight") -> np.ndarray:
    """A copy as NumPy has it, which nobody else changes, of arrays and of tensors with a gradient or on a device.
    ConfigError, naming `where`, for what is no array: a tensor without numbers, say."""
    try:
        return np.array(from_tensor(where, value), copy=True, order="C")
    except (TypeError, ValueError, RuntimeError) as error:  # a tuple of quantized tensors
        why = " ".join(str(error).split())
        raise ConfigError(f"{where} is a {type(value).__name__} that is no array ({why:.80}); leave it out.") from None
