"""Models of Keras 3: `SimpleRNN`, `LSTM` and `GRU`, in `Bidirectional` or not, between an `Embedding` and a `Dense`."""

import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from seqdyn.data.extras import needed
from seqdyn.io.stacks import Stack, check_lengths, incoming, outgoing, pair, plain, stack
from seqdyn.learn.model import Model
from seqdyn.learn.spec import Spec
from seqdyn.nets.conventions import KERAS, Layer
from seqdyn.nets.conventions import from_keras as ours
from seqdyn.nets.conventions import to_keras as theirs
from seqdyn.types import ConfigError

FOR = "Keras"
_CALLED = {"rnn": "SimpleRNN", "lstm": "LSTM", "gru": "GRU", "gru_reset_before": "GRU"}


def to_keras(params: Any, spec: Any = None, *, bias: bool = True, lengths: bool = False) -> Any:
    """A `keras.Model` that computes what the network does: [batch, time, features], or ids [batch, time], to the
    predictions as the readout gives them. Of ids without an embedding it reads their one-hot vectors.

    A `gru` has `reset_after=True` and a bias [2, 3 h] with b_hn in its second row; a `gru_reset_before` has
    `reset_after=False`. With `lengths` the model is one of [xs, mask], its mask [batch, time] being True at steps that
    count and False on padding, on whichever side; without, padding is read like anything else. Weights of float64 stay
    so, but Keras 3.15 on JAX has its tanh in float32, and its SimpleRNN fails there.

    Raises ConfigError for what Keras has no counterpart of: see `stacks.stack`; for a readout of the sum; for lengths
    where `Spec.mask` is False; and with `bias=False`, which makes layers without, for biases that are not 0.
    """
    params, spec = pair(params, spec)
    of, model = stack(spec, FOR, KERAS, out=True), outgoing(params, spec)
    if of.readout == "sum":
        raise ConfigError("readout is 'sum', for which Keras has no layer; it must be last, mean or every.")
    check_lengths(of, lengths)
    keras, kept = _imported(), {"dtype": np.dtype(of.real).name}
    reads_ids = of.embedding > 0 and model.embedding is not None
    made = _made(keras, of, kept, reads_ids, bias, model.readout is not None, lengths)
    weights = [model.embedding] if reads_ids else []
    for layer in model.layers:
        kernel, recurrent, b = theirs(of.kind, layer)
        if not bias and np.any(b):
            raise ConfigError("bias is False and the biases are not 0; without them it is another network.")
        weights += [kernel, recurrent, *([b] if bias else [])]
    made.set_weights([*weights, *([model.readout.w, model.readout.b] if model.readout is not None else [])])
    return made


def _made(keras: Any, of: Stack, kept: dict[str, Any], reads_ids: bool, bias: bool, head: bool, lengths: bool) -> Any:
    xs = keras.Input((None,), dtype="int32") if reads_ids else keras.Input((None, of.inputs), **kept)
    layers: list[Any] = []
    if reads_ids:
        layers.append(keras.layers.Embedding(of.vocabulary, of.embedding, **kept))
    for level, width in enumerate(of.hidden):
        more: dict[str, Any] = kept | {"use_bias": bias}
        more["return_sequences"] = level + 1 < len(of.hidden) or of.readout != "last"
        more |= {"activation": of.activation} if of.kind == "rnn" else {}
        more |= {"reset_after": of.kind == "gru"} if "gru" in of.kind else {}
        one = getattr(keras.layers, _CALLED[of.kind])(width, **more)
        layers.append(keras.layers.Bidirectional(one, **kept) if of.directions == 2 else one)
    if head:
        layers += [keras.layers.GlobalAveragePooling1D(**kept)] if of.readout == "mean" else []
        layers.append(keras.layers.Dense(of.outputs, **kept))
    if not lengths:
        return keras.Sequential([xs, *layers])
    # Said to each layer: an embedding that hides no id hands no mask on.
    mask, ys = keras.Input((None,), dtype="bool", name="mask"), xs
    for layer in layers:
        takes = isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional | keras.layers.GlobalAveragePooling1D)
        ys = layer(ys, mask=mask) if takes else layer(ys)
    return keras.Model([xs, mask], ys)


def from_keras(model: Any, spec: Spec, *, bias: bool = True) -> Model:
    """The parameters of a model, of one of its layers or of a list of them, as a spec's: what `seqdyn.run` takes as
    `init`.

    A readout or an embedding that is not there stays None, and begins as always. `bias=False` takes biases that are not
    there as 0, where they are trained from then on. Raises ConfigError for another kind of layer, `reset_after`,
    activation, direction or shape than the spec's, for a bias that is missing, and for other layers with weights.
    """
    of = stack(spec, FOR, KERAS)
    layers: list[Layer] = []
    readout = embedding = None
    for layer in _flat(model):
        kind = type(layer).__name__
        if kind == "Bidirectional" or hasattr(layer, "cell"):
            if readout is not None:
                raise ConfigError(f"model has {layer.name} behind a Dense, which {spec.label} has no place for.")
            layers += _level(layer, of, bias)
        elif kind == "Embedding" and of.embedding and embedding is None:
            embedding = _there(layer, _weights(layer), 1)[0]
        elif kind == "Dense" and readout is None:
            readout = _dense(layer, of, bias)
        elif layer.weights:
            raise ConfigError(f"model has {layer.name}, a {kind} with weights, which {spec.label} has no place for.")
    return incoming(spec, FOR, layers, readout, embedding)


def _imported() -> Any:
    if importlib.util.find_spec("keras") is None:
        return needed("keras", "seqdyn.io.to_keras")
    try:
        return importlib.import_module("keras")
    except ImportError as error:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        raise ConfigError(f"Keras cannot be imported on {backend} ({error}); set KERAS_BACKEND=jax.") from None


def _flat(model: Any) -> Iterator[Any]:
    """The layers within, without what only wraps them."""
    if isinstance(model, list | tuple):
        for one in model:
            yield from _flat(one)
    elif type(model).__name__ == "TimeDistributed":
        yield from _flat(model.layer)
    elif not hasattr(model, "weights"):
        raise ConfigError(f"model is a {type(model).__name__}; it must be a model or a layer of Keras.")
    elif hasattr(model, "layers"):
        yield from _flat(list(model.layers))
    else:
        yield model


def _weights(layer: Any) -> list[np.ndarray]:
    # Not get_weights(): Keras 3.15 on JAX asks NumPy 2 for them in a way that warns.
    return [plain(variable.value) for variable in layer.weights]


def _level(layer: Any, of: Stack, bias: bool) -> list[Layer]:
    both = type(layer).__name__ == "Bidirectional"
    if both != (of.directions == 2):
        raise ConfigError(f"{layer.name} is a {type(layer).__name__} and bidirectional is {of.directions == 2}.")
    if both and layer.merge_mode != "concat":
        raise ConfigError(f"{layer.name} has merge_mode {layer.merge_mode!r}; it must be 'concat'.")
    directions = [layer.forward_layer, layer.backward_layer] if both else [layer]
    if directions[0].go_backwards:
        raise ConfigError(f"{layer.name} has go_backwards=True; only the second of two directions may read backwards.")
    return [_one(one, of, bias) for one in directions]


def _one(layer: Any, of: Stack, bias: bool) -> Layer:
    cell, called = layer.cell, _CALLED[of.kind]
    if type(cell).__name__ != f"{called}Cell":
        raise ConfigError(f"{layer.name} is a {type(layer).__name__}; for cell {of.kind!r} it must be a {called}.")
    if called == "GRU" and cell.reset_after != (of.kind == "gru"):
        right = "gru" if cell.reset_after else "gru_reset_before"
        raise ConfigError(f"{layer.name} has reset_after={cell.reset_after} and cell is {of.kind!r}; take {right!r}.")
    wanted = {"activation": of.activation if of.kind == "rnn" else "tanh"}
    wanted |= {"recurrent_activation": "sigmoid"} if called != "SimpleRNN" else {}
    for name, right in wanted.items():
        there = getattr(getattr(cell, name), "__name__", "another")
        if there != right:
            raise ConfigError(f"{layer.name} has the {name} {there!r}; {of.kind} has {right!r}.")
    weights = _weights(layer)
    if len(weights) == 2 and bias:
        raise ConfigError(f"{layer.name} has no bias; of layers with use_bias=False say bias=False.")
    if len(weights) == 2:
        gates = len(KERAS[of.kind]) * cell.units
        weights.append(np.zeros((2, gates) if of.kind == "gru" else gates, of.real))
    return ours(of.kind, *_there(layer, weights, 3))


def _there(layer: Any, weights: list[np.ndarray], count: int) -> list[np.ndarray]:
    """The weights, if all of them have been made."""
    if len(weights) != count:
        raise ConfigError(f"{layer.name} has {len(weights)} arrays of weights; call the model once, which makes them.")
    return weights


def _dense(layer: Any, of: Stack, bias: bool) -> tuple[Any, Any]:
    activation = getattr(layer.activation, "__name__", type(layer.activation).__name__)
    if activation not in ("linear", "sigmoid", "softmax"):  # the last two are the loss's business here
        raise ConfigError(f"{layer.name} has the activation {activation!r}; a readout has none.")
    weights = _weights(layer)
    if len(weights) == 1 and bias:
        raise ConfigError(f"{layer.name} has no bias; of layers with use_bias=False say bias=False.")
    if len(weights) == 1:
        weights.append(np.zeros(of.outputs, of.real))
    kernel, b = _there(layer, weights, 2)
    return kernel, b
