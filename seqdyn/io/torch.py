"""The weights of PyTorch's `nn.RNN`, `nn.LSTM` and `nn.GRU`, with an `nn.Linear` above and an `nn.Embedding` below."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqdyn.data.extras import needed
from seqdyn.io.stacks import Stack, incoming, outgoing, pair, plain, stack, taken
from seqdyn.learn.model import Model
from seqdyn.learn.spec import Spec
from seqdyn.nets.conventions import OURS, PYTORCH, Layer, from_pytorch, to_pytorch
from seqdyn.types import ConfigError

FOR = "PyTorch"
_MATRICES, _BIASES = ("weight_ih", "weight_hh"), ("bias_ih", "bias_hh")
_CALLED = {"rnn": "nn.RNN", "lstm": "nn.LSTM", "gru": "nn.GRU"}


def to_torch(
    params: Any,
    spec: Any = None,
    *,
    rnn: str | None = "rnn",
    readout: str | None = "readout",
    embedding: str | None = "embedding",
    bias: bool = True,
) -> dict[str, Any]:
    """The state_dict of a module that holds an `nn.RNN`, `nn.LSTM` or `nn.GRU` as its `rnn`, an `nn.Linear` as its
    `readout` and, of ids, an `nn.Embedding`: other names may be given, "" for the module itself, None leaves it out.

        net.load_state_dict(sd.io.to_torch(sd.trained("runs/a", run=3)))
        lstm.load_state_dict(sd.io.to_torch(params, spec, rnn="", readout=None))

    Where PyTorch has two biases that add up, ours is the first. With `bias=False` those of an rnn made without are left
    out. Raises ConfigError for what PyTorch has no counterpart of: see `stacks.stack`; levels of several widths; the
    reset before the product; and biases that are not 0 where they would be left out.
    """
    _check_names(rnn, readout, embedding)
    params, spec = pair(params, spec)
    of, model = _stack(spec, out=True), outgoing(params, spec)
    torch, state = needed("torch", "seqdyn.io.to_torch"), {}
    if rnn is not None:
        for end, layer in zip(_ends(of), model.layers, strict=True):
            values = to_pytorch(of.kind, layer)
            if not bias and any(np.any(value) for value in values[2:]):
                raise ConfigError(
                    f"bias is False and the biases of {end} are not 0; without them it is another network."
                )
            of_layer = zip((*_MATRICES, *_BIASES), values, strict=True)
            state |= {f"{_dotted(rnn)}{n}_{end}": value for n, value in of_layer if bias or n in _MATRICES}
    if readout is not None and model.readout is not None:
        state[f"{_dotted(readout)}weight"], state[f"{_dotted(readout)}bias"] = model.readout.w.T, model.readout.b
    if embedding is not None and model.embedding is not None:
        state[f"{_dotted(embedding)}weight"] = model.embedding
    return {name: torch.from_numpy(plain(value)) for name, value in state.items()}


def from_torch(
    state: Any,
    spec: Spec,
    *,
    rnn: str | None = None,
    readout: str | None = None,
    embedding: str | None = None,
    bias: bool = True,
) -> Model:
    """The parameters of a module, or of its state_dict, as a spec's: what `seqdyn.run` takes as `init`.

    The names of the modules inside are found, or given where several could be meant. A readout or an embedding that is
    not there stays None, and begins as always. The two biases of a gate are added. `bias=False` takes biases that are
    not there as 0, where they are trained from then on. Raises ConfigError for an array that is missing, of another
    shape or of no use, another kind or activation than the spec's, and what has no counterpart: see `to_torch`.
    """
    of = _stack(spec)
    module, state = (state, state.state_dict()) if _has_state(state) else (None, state)
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise ConfigError(f"state is a {type(state).__name__}; it must be a module of PyTorch or its state_dict.")
    _check_names(rnn, readout, embedding)
    _check_parametrised(state)
    state = {name: plain(value, f"{name} of state") for name, value in state.items()}
    prefix = _recurrent(state) if rnn is None else _dotted(rnn)
    _check_activation(module, prefix, of)
    layers = [_layer(state, prefix, end, of, i // of.directions, bias) for i, end in enumerate(_ends(of))]
    used = {f"{prefix}{name}_{end}" for name in (*_MATRICES, *_BIASES) for end in _ends(of)}
    left = _modules({name: value for name, value in state.items() if name not in used})
    found = None
    if of.embedding:
        shape = (of.vocabulary, of.embedding)
        found = taken(left, embedding, "embedding", lambda one: {*one} == {"weight"} and one["weight"].shape == shape)
    if readout is None:
        _check_above(state, prefix, left, of)
    head = taken(left, readout, "readout", lambda one: {"weight"} <= {*one} <= {"weight", "bias"})
    if left:
        name = next(f"{module}.{end}".lstrip(".") for module, one in left.items() for end in one)
        raise ConfigError(f"state has {name}, which {spec.label} has no place for; leave it out.")
    return incoming(spec, FOR, layers, _linear(head, of, bias), None if found is None else found["weight"])


def _has_state(state: Any) -> bool:
    return hasattr(state, "state_dict") and not isinstance(state, type)


def _check_parametrised(state: Mapping[str, Any]) -> None:
    """ConfigError where a weight is made of others at every call (weight norm, pruning), so that no array is the
    weight."""
    pairs = (("_v", "_g"), ("_orig", "_mask"), ("_orig", "_u"))
    for name in state:
        beside = any(name.endswith(end) and name.removesuffix(end) + other in state for end, other in pairs)
        if beside or ".parametrizations." in f".{name}":
            raise ConfigError(
                f"state has {name}, of which PyTorch makes a weight at every call; put the weight in its place "
                "(torch.nn.utils.parametrize.remove_parametrizations, remove_weight_norm, prune.remove)."
            )


def _check_names(*names: Any) -> None:
    if not all(name is None or isinstance(name, str) for name in names):
        raise ConfigError(f"rnn, readout, embedding are {names!r:.80}; each must be a module's name.")


def _stack(spec: Spec, out: bool = False) -> Stack:
    of = stack(spec, FOR, PYTORCH, out)
    if len(set(of.hidden)) > 1:
        raise ConfigError(f"hidden is {of.hidden}; {_CALLED[of.kind]} has one width for all its layers.")
    return of


def _ends(of: Stack) -> list[str]:
    return [f"l{level}{way}" for level in range(len(of.hidden)) for way in ("", "_reverse")[: of.directions]]


def _dotted(name: str) -> str:
    return name if not name or name.endswith(".") else f"{name}."


def _recurrent(state: Mapping[str, Any]) -> str:
    found = [name.removesuffix("weight_ih_l0") for name in state if name.endswith("weight_ih_l0")]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError("state has no weight_ih_l0; it must be that of a module with an nn.RNN, nn.LSTM or nn.GRU.")
    raise ConfigError(f"state has weight_ih_l0 of {', '.join(map(repr, found))}; say which with rnn=.")


def _check_activation(module: Any, prefix: str, of: Stack) -> None:
    """A module says what its state_dict does not."""
    if module is None:
        return
    rnn = dict(module.named_modules()).get(prefix.rstrip("."))
    there = getattr(rnn, "nonlinearity", of.activation)
    if of.kind == "rnn" and there != of.activation:
        raise ConfigError(f"the module's nonlinearity is {there!r} and activation is {of.activation!r}; make them one.")


def _layer(state: dict[str, np.ndarray], prefix: str, end: str, of: Stack, level: int, bias: bool) -> Layer:
    h, k = of.hidden[level], len(OURS[of.kind])
    columns, found = {"ih": of.widths[level], "hh": h}, []
    for name in (*_MATRICES, *_BIASES):
        key, side = f"{prefix}{name}_{end}", name[-2:]
        shape = (k * h, columns[side]) if name in _MATRICES else (k * h,)
        if key not in state and name in _BIASES and not bias:
            state[key] = np.zeros(shape, of.real)
        if key not in state:
            cure = "; of a module without biases say bias=False" if name in _BIASES else ""
            raise ConfigError(f"state has no {key}; {_CALLED[of.kind]} of hidden {of.hidden} has one{cure}.")
        if state[key].shape != shape:
            gates = f"{', '.join(PYTORCH[of.kind])} of width {h}"
            raise ConfigError(
                f"state has {key} of the shape {state[key].shape}; {_CALLED[of.kind]} has {shape}, the gates {gates}."
            )
        found.append(state[key])
    return from_pytorch(of.kind, *found)


def _modules(state: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """By the names of modules."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, value in state.items():
        module, _, end = name.rpartition(".")
        found.setdefault(module, {})[end] = value
    return found


def _check_above(state: Mapping[str, Any], prefix: str, left: Mapping[str, Any], of: Stack) -> None:
    """ConfigError where the only Linear may as well stand below the recurrent layer: it was made before it, and what it
    gives fits what that reads."""
    names = list(state)
    before = {name.rpartition(".")[0] for name in names[: names.index(f"{prefix}weight_ih_l0")]} & {*left}
    for module in before if len(left) == 1 else ():
        if "weight" in left[module] and left[module]["weight"].shape[:1] == (of.widths[0],):
            raise ConfigError(
                f"{module!r} stands before {prefix.rstrip('.') or 'the recurrent layer'!r} in state and may be a layer "
                f"below it, which no spec has; if it is the readout, say readout={module!r}."
            )


def _linear(found: dict[str, np.ndarray] | None, of: Stack, bias: bool) -> tuple[Any, Any] | None:
    if found is None:
        return None
    shape = (of.outputs, of.directions * of.hidden[-1])
    if found["weight"].shape != shape:
        raise ConfigError(f"state has a readout of the shape {found['weight'].shape}; the spec's is {shape}.")
    if "bias" not in found and bias:
        raise ConfigError("state has no bias of its readout; of a module without biases say bias=False.")
    return found["weight"].T, found.get("bias", np.zeros(of.outputs, of.real))
