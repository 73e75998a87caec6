"""Flax's Linen and NNX: `SimpleCell`, `LSTMCell`, `OptimizedLSTMCell` and `GRUCell`, in `RNN` and `Bidirectional`.

NNX's GRU has no b_hn. A trained one of ours has, so the GRU that leaves for NNX has a bias in its `dense_h`, which acts
where b_hn does.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from seqdyn.io.stacks import Stack, check_whole, incoming, outgoing, pair, plain, stack, taken
from seqdyn.learn.model import Model
from seqdyn.learn.spec import Spec
from seqdyn.nets.conventions import NNX
from seqdyn.nets.conventions import from_linen as ours_of_linen
from seqdyn.nets.conventions import from_nnx as ours_of_nnx
from seqdyn.nets.conventions import to_linen as linens
from seqdyn.nets.conventions import to_nnx as nnxs
from seqdyn.parts import is_many
from seqdyn.types import Array, ConfigError

FOR = "Flax"
_CELLS = {
    "rnn": [{"i", "h"}, {"dense_i", "dense_h"}],
    "lstm": [{f"{side}{gate}" for side in "ih" for gate in "ifgo"}, {"dense_i", "dense_h"}],
    "gru": [{f"{side}{gate}" for side in "ih" for gate in "rzn"}, {"dense_i", "dense_h"}],
}
"""Kind -> names of what its cells hold."""
_MARKS = [{"i", "h"}, {"dense_i", "dense_h"}, {"ii", "hi"}, {"ir", "hr"}, {"if", "hf"}]
"""What tells a cell of any kind, those that we have not among them."""


# --- Linen --------------------------------------------------------------------------------------------------


class LinenNetwork(nn.Module):
    """What `to_linen` returns: embedding → levels → readout."""

    of: Stack

    @nn.compact
    def __call__(self, xs: Array, seq_lengths: Array | None = None) -> Array:
        """[batch, time, features], or ids [batch, time], to predictions [batch, outputs] or [batch, time, outputs].

        `seq_lengths` [batch] say how many steps of each sequence count, the last ones where `Spec.pad` is 'before',
        else the first. Raises ConfigError for lengths of another shape, for one below 1 or above time (not under jit,
        where numbers are not known), and where `Spec.mask` is False.
        """
        of, kept = self.of, {"dtype": self.of.real, "param_dtype": self.of.real}
        lengths = _lengths(of, xs, seq_lengths)
        xs = _moved(of, xs, lengths)
        if of.embedding:
            xs = nn.Embed(of.vocabulary, of.embedding, name="embedding", **kept)(xs)
        elif of.vocabulary:
            xs = jax.nn.one_hot(xs, of.vocabulary, dtype=of.real)
        for level, width in enumerate(of.hidden):

            def layer(i: int, width: int = width) -> nn.RNN:
                cell: Any = {"rnn": nn.SimpleCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}[of.kind]
                more = {"activation_fn": getattr(jax.nn, of.activation)} if of.kind == "rnn" else {}
                return nn.RNN(cell(width, name=f"layer{i}", **kept, **more))

            i = of.directions * level
            level_of: Any = nn.Bidirectional(layer(i), layer(i + 1)) if of.directions == 2 else layer(i)
            xs = level_of(xs, seq_lengths=lengths)
        return nn.Dense(of.outputs, name="readout", **kept)(_read(of, xs, lengths))


def _lengths(of: Stack, xs: Array, given: Any) -> Array | None:
    if given is None:
        return None
    if not of.mask:
        raise ConfigError("seq_lengths is given and mask is False: padding is read like anything else; leave them out.")
    lengths = jnp.asarray(given)
    if lengths.shape != xs.shape[:1] or not jnp.issubdtype(lengths.dtype, jnp.integer):
        found = f"{lengths.dtype} of the shape {lengths.shape}"
        raise ConfigError(f"seq_lengths is {found}; it must be whole numbers, one for each of {xs.shape[0]} sequences.")
    if not isinstance(lengths, Tracer):  # under jit nobody knows them yet
        for length in np.asarray(lengths).tolist():
            if not 1 <= length <= xs.shape[1]:
                raise ConfigError(f"seq_lengths has {length}; each must be from 1 to the {xs.shape[1]} steps of xs.")
    return lengths.astype(jnp.int32)


def _moved(of: Stack, xs: Array, lengths: Array | None, back: bool = False) -> Array:
    """Flax has padding after sequences: [batch, time, …] with what is before them behind them, or `back` again."""
    if lengths is None or of.pad == "after":
        return xs
    steps = xs.shape[1]
    by = (steps - lengths)[:, None]
    rows = (jnp.arange(steps, dtype=jnp.int32)[None] + (-by if back else by)) % steps
    return jnp.take_along_axis(xs, rows.reshape(*rows.shape, *[1] * (xs.ndim - 2)), axis=1)


def _read(of: Stack, hs: Array, lengths: Array | None) -> Array:
    if of.readout == "every":
        return _moved(of, hs, lengths, back=True)
    if of.readout in ("mean", "sum"):
        if lengths is None:
            return (jnp.mean if of.readout == "mean" else jnp.sum)(hs, axis=1)
        mask = jnp.arange(hs.shape[1], dtype=jnp.int32)[None] < lengths[:, None]
        total = jnp.sum(jnp.where(mask[..., None], hs, jnp.zeros_like(hs)), axis=1)
        return total / lengths[:, None].astype(hs.dtype) if of.readout == "mean" else total
    # The second direction ends at the first step.
    h = of.hidden[-1]
    ends = hs[:, -1] if lengths is None else jnp.take_along_axis(hs, (lengths - 1)[:, None, None], axis=1)[:, 0]
    return jnp.concatenate([ends[:, :h], hs[:, 0, h:]], axis=-1)


def to_linen(params: Any, spec: Any = None) -> tuple[LinenNetwork, dict[str, Any]]:
    """(module, variables): `module.apply(variables, xs)` computes what the network does, of xs [batch, time, features]
    or ids [batch, time], and `module.apply(variables, xs, seq_lengths)` of padded sequences, as they are padded here.
    In `variables["params"]`, layer0, layer1, … are the parameters of cells, readout those of a
    `Dense`, embedding those of an `Embed`, to be moved to modules of other names.

    Raises ConfigError for what Flax has no counterpart of: see `stacks.stack`.
    """
    params, spec = pair(params, spec)
    of, model = stack(spec, FOR, NNX, out=True), outgoing(params, spec)
    made: dict[str, Any] = {f"layer{i}": linens(of.kind, layer) for i, layer in enumerate(model.layers)}
    if model.embedding is not None:
        made["embedding"] = {"embedding": model.embedding}
    if model.readout is not None:
        made["readout"] = {"kernel": model.readout.w, "bias": model.readout.b}
    return LinenNetwork(of), {"params": jax.tree.map(lambda leaf: jnp.asarray(plain(leaf)), made)}


def from_linen(
    variables: Mapping[str, Any],
    spec: Spec,
    *,
    layers: Sequence[str] | None = None,
    readout: str | None = None,
    embedding: str | None = None,
) -> Model:
    """The parameters of a Linen module, `variables` or their "params", as a spec's: what `seqdyn.run` takes as `init`.

    Cells are found by what they hold, and ordered by the numbers in their names, forward before backward; where names
    do not say it, `layers` are their paths, 'Encoder_0/LSTMCell_0', both directions of a level after each other. So are
    `readout` and `embedding`, which stay None where they are not there, and begin as always. Activations are not in
    variables: they are taken to be the spec's. Raises ConfigError for cells of another kind, number or shape, a bias
    that is missing, and other parameters.
    """
    of = stack(spec, FOR, NNX)
    if not isinstance(variables, Mapping):
        raise ConfigError(f"variables is a {type(variables).__name__}; it must be what module.init returns.")
    params = variables.get("params", variables)
    if not isinstance(params, Mapping):
        raise ConfigError(f"variables has params that are a {type(params).__name__}; they must be a dict of modules.")
    return _incoming(dict(params), spec, of, ours_of_linen, layers, readout, embedding)


# --- NNX ----------------------------------------------------------------------------------------------------


class NNXNetwork(nnx.Module):
    """What `to_nnx` returns: embedding → levels → readout."""

    def __init__(self, of: Stack):
        rngs, kept = nnx.Rngs(0), {"param_dtype": of.real}
        self.of = of
        if of.embedding:
            self.embedding = nnx.Embed(of.vocabulary, of.embedding, rngs=rngs, **kept)
        cell: Any = {"rnn": nnx.SimpleCell, "lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}[of.kind]
        more: dict[str, Any] = kept | ({"activation_fn": getattr(jax.nn, of.activation)} if of.kind == "rnn" else {})
        more |= {"dtype": of.real} if of.kind == "rnn" else {}
        levels = []
        for inputs, width in zip(of.widths, of.hidden, strict=True):
            made: list[Any] = [nnx.RNN(cell(inputs, width, rngs=rngs, **more)) for _ in range(of.directions)]
            if of.kind == "gru":
                for one in made:
                    one.cell.dense_h = nnx.Linear(width, 3 * width, rngs=rngs, **kept)
            levels.append(nnx.Bidirectional(*made) if of.directions == 2 else made[0])
        self.levels = nnx.List(levels)
        self.readout = nnx.Linear(of.directions * of.hidden[-1], of.outputs, rngs=rngs, **kept)

    def __call__(self, xs: Array, seq_lengths: Array | None = None) -> Array:
        """As `LinenNetwork.__call__`."""
        of = self.of
        lengths = _lengths(of, xs, seq_lengths)
        xs = _moved(of, xs, lengths)
        if of.embedding:
            xs = self.embedding(xs)
        elif of.vocabulary:
            xs = jax.nn.one_hot(xs, of.vocabulary, dtype=of.real)
        for level in list(self.levels):
            xs = level(xs, seq_lengths=lengths)
        return self.readout(_read(of, xs, lengths))


def to_nnx(params: Any, spec: Any = None) -> NNXNetwork:
    """An NNX module that computes what the network does, of [batch, time, features] or ids [batch, time], and, of
    padded sequences, their `seq_lengths`. Its levels are `levels[i].cell`, or `levels[i].forward_rnn.cell` and
    `.backward_rnn.cell`.

    Raises ConfigError for what Flax has no counterpart of: see `stacks.stack`; and for a model without a readout or an
    embedding that its spec has.
    """
    params, spec = pair(params, spec)
    of, model = stack(spec, FOR, NNX, out=True), outgoing(params, spec)
    check_whole(of, model, "a module of NNX")
    made = NNXNetwork(of)
    rnns = [level for level in made.levels]
    if of.directions == 2:
        rnns = [rnn for both in rnns for rnn in (both.forward_rnn, both.backward_rnn)]
    for rnn, layer in zip(rnns, model.layers, strict=True):
        for side, linear in nnxs(of.kind, layer).items():
            for name, value in linear.items():
                setattr(getattr(rnn.cell, side), name, nnx.Param(jnp.asarray(plain(value))))
    if of.embedding:
        made.embedding.embedding = nnx.Param(jnp.asarray(plain(model.embedding)))
    made.readout.kernel = nnx.Param(jnp.asarray(plain(model.readout.w)))
    made.readout.bias = nnx.Param(jnp.asarray(plain(model.readout.b)))
    return made


def from_nnx(
    model: Any,
    spec: Spec,
    *,
    layers: Sequence[str] | None = None,
    readout: str | None = None,
    embedding: str | None = None,
) -> Model:
    """The parameters of an NNX module as a spec's: what `seqdyn.run` takes as `init`. Cells are found and ordered as
    `from_linen` does, by paths as 'encoder/0/cell'; a GRU without b_hn has 0 there, which is trained from then on.

    Raises ConfigError as `from_linen`, and for cells with another activation than the spec's, or residual.
    """
    of = stack(spec, FOR, NNX)
    if not isinstance(model, nnx.Module):
        raise ConfigError(f"model is a {type(model).__name__}; it must be a module of NNX.")
    for path, module in nnx.iter_modules(model):
        if hasattr(module, "activation_fn"):
            _check_cell("/".join(map(str, path)) or "the cell", module, of)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return _incoming(_named(params), spec, of, ours_of_nnx, layers, readout, embedding)


def _named(tree: Any) -> Any:
    """With texts as keys."""
    return {str(k): _named(v) for k, v in tree.items()} if isinstance(tree, Mapping) else tree


def _check_cell(where: str, cell: Any, of: Stack) -> None:
    z = jnp.asarray([-2.0, -0.5, 0.5, 2.0], jnp.float32)
    wanted = {"activation_fn": of.activation if of.kind == "rnn" else "tanh"}
    wanted |= {"gate_fn": "sigmoid"} if of.kind != "rnn" else {}
    for name, right in wanted.items():
        if not np.allclose(getattr(cell, name, jnp.zeros_like)(z), getattr(jax.nn, right)(z), atol=1e-6):
            raise ConfigError(f"{where} has another {name} than {right}, which {of.kind} has here.")
    if getattr(cell, "residual", False):
        raise ConfigError(f"{where} has residual=True, which {of.kind} has not.")


# --- what is found in a tree of parameters ------------------------------------------------------------------


def _incoming(
    params: Any,
    spec: Spec,
    of: Stack,
    ours: Any,
    layers: Sequence[str] | None,
    readout: str | None,
    embedding: str | None,
) -> Model:
    if layers is not None and not (is_many(layers) and all(isinstance(name, str) for name in layers)):
        raise ConfigError(f"layers is {layers!r:.60}; it must be a list of the paths of cells.")
    left = dict(_modules(params))
    names = _ordered([path for path, one in left.items() if _is_cell(one)]) if layers is None else list(layers)
    expected = len(of.hidden) * of.directions
    if len(names) != expected:
        raise ConfigError(
            f"there are {len(names)} cells ({', '.join(names)}); {spec.label} with hidden {of.hidden} has {expected}."
        )
    cells = []
    for name in names:
        cell = left.pop(name, None)
        if cell is None:
            raise ConfigError(f"layers has {name!r}, where there is no module; there are {', '.join(left)}.")
        cells.append(_cell(name, cell, of, ours))
    head = taken(left, readout, "readout", lambda one: "kernel" in one)
    words = taken(left, embedding, "embedding", lambda one: {*one} == {"embedding"}) if of.embedding else None
    if left:
        raise ConfigError(f"there are parameters {next(iter(left))!r}, which {spec.label} has no place for.")
    if head is not None and "bias" not in head:
        raise ConfigError("the readout has no bias; a network of ours has one.")
    of_head = None if head is None else (head["kernel"], head["bias"])
    return incoming(spec, FOR, cells, of_head, None if words is None else words["embedding"])


def _is_cell(one: Any) -> bool:
    return any(isinstance(part, Mapping) for part in one.values())


def _modules(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(path, parameters) of every cell and every layer that is none."""
    names = {str(name).rstrip("_") for name in tree}
    cell = any(names >= one for one in _MARKS)
    if tree and (cell or not any(isinstance(part, Mapping) for part in tree.values())):
        yield "/".join(path), jax.tree.map(plain, dict(tree))
        return
    for name, part in tree.items():
        if isinstance(part, Mapping):
            yield from _modules(part, (*path, str(name)))
        else:
            yield "/".join((*path, str(name))), {str(name): plain(part)}


def _ordered(paths: list[str]) -> list[str]:
    """By the numbers in their names, forward before backward. ConfigError where their names differ in more."""
    alike = {re.sub(r"\d+", "0", path.replace("backward", "forward")) for path in paths}
    if len(alike) > 1:
        raise ConfigError(
            f"the order of the cells {', '.join(paths)} is not in their names; give their paths in order as layers=."
        )

    def key(path: str) -> list[Any]:
        return [int(piece) if piece.isdigit() else piece.replace("forward", "a") for piece in re.split(r"(\d+)", path)]

    return sorted(paths, key=key)


def _cell(name: str, cell: Any, of: Stack, ours: Any) -> Any:
    held, where = {part.rstrip("_") for part in cell}, name or "the module"
    kernels = {part: np.shape(one["kernel"]) for part, one in cell.items() if "kernel" in one}
    for part in cell:
        if len(kernels.get(part, ())) != 2:
            found = f"of the shape {kernels[part]}" if part in kernels else "missing"
            raise ConfigError(
                f"{where} has a {part}/kernel that is {found}; it must be that of a cell of Flax, [_, _]."
            )
    kinds = [kind for kind, sets in _CELLS.items() if held in sets]
    if held == {"dense_i", "dense_h"}:
        ratio = kernels["dense_h"][1] // max(1, kernels["dense_h"][0])
        kinds = [kind for kind, order in NNX.items() if len(order) == ratio]
    if of.kind not in kinds:
        found = f"a cell of kind {kinds[0]!r}" if kinds else f"a cell with {', '.join(sorted(held))}"
        raise ConfigError(f"{where} is {found}; cell is {of.kind!r}.")
    try:
        return ours(of.kind, cell)
    except KeyError as error:
        raise ConfigError(f"{where} has no {error.args[0]!r}, which a cell of Flax has.") from None
    except ValueError as error:  # gates of several widths
        raise ConfigError(f"{where} has kernels {kernels}, which are of no one cell ({error}).") from None
