"""Our cells' weights as other libraries keep them, and back: which way a matrix acts, the order of gates, the biases.

    ours      x @ w + h @ u + b, gates i f o g (LSTM), r z n (GRU); b_hn of a GRU apart
    PyTorch   weights act from the left, i f g o; two biases a gate, which add up but for a GRU's candidate
    Keras     from the right, i f g o, z r h; of a GRU whose reset is after the product two biases a gate, [2, 3h]
    ONNX      from the left, i o f c, z r h; two biases a gate, side by side
    Linen     from the right, a kernel for each gate; the bias on one side
    NNX       the same, or all gates in one, i f g o and r z n; its GRU has no b_hn

Every function takes arrays of NumPy, which keeps all bits, or of JAX, also while it traces. Where two biases add up,
ours goes to the input's, and the other is −0: that is what adds to nothing, not even to the sign of a zero.
"""

from collections.abc import Mapping
from typing import Any

from seqdyn.nets.cells import GRUWeights, Weights

Layer = Weights | GRUWeights
OURS = {"rnn": "h", "lstm": "ifog", "gru": "rzn", "gru_reset_before": "rzn"}
"""Kind -> a letter for each gate, in our order."""
PYTORCH = {"rnn": "h", "lstm": "ifgo", "gru": "rzn"}
KERAS = {"rnn": "h", "lstm": "ifgo", "gru": "zrn", "gru_reset_before": "zrn"}
ONNX = {"rnn": "h", "lstm": "iofg", "gru": "zrn", "gru_reset_before": "zrn"}
NNX = {"rnn": "h", "lstm": "ifgo", "gru": "rzn"}


def gates(x: Any, order: str) -> dict[str, Any]:
    """The blocks of the last axis, by gate."""
    h = x.shape[-1] // len(order)
    return {gate: x[..., i * h : (i + 1) * h] for i, gate in enumerate(order)}


def ordered(x: Any, have: str, want: str) -> Any:
    """The blocks of the last axis in another order."""
    return x if have == want else _beside([gates(x, have)[gate] for gate in want])


def _beside(blocks: list[Any]) -> Any:
    return blocks[0].__array_namespace__().concat(blocks, axis=-1)


def _minus_zero(like: Any) -> Any:
    return like.__array_namespace__().full_like(like, -0.0)


def summed(kind: str, w: Any, u: Any, b_x: Any, b_h: Any) -> Layer:
    """Ours of gates in our order with two biases, which act from the right."""
    if kind != "gru":
        return Weights(w, u, b_x + b_h)
    n = 2 * u.shape[0]
    return GRUWeights(w, u, _beside([b_x[:n] + b_h[:n], b_x[n:]]), b_h[n:])


def apart(kind: str, layer: Layer) -> tuple[Any, Any]:
    """The two biases of a layer of ours, gates in our order: `summed` of them is ours."""
    zero = _minus_zero(layer.b)
    if kind != "gru":
        return layer.b, zero
    assert isinstance(layer, GRUWeights)
    return layer.b, _beside([zero[: 2 * layer.u.shape[0]], layer.bn])


def from_pytorch(kind: str, w: Any, u: Any, b_x: Any, b_h: Any) -> Layer:
    """Ours of weight_ih, weight_hh, bias_ih and bias_hh."""
    have, want = PYTORCH[kind], OURS[kind]
    return summed(kind, *(ordered(part, have, want) for part in (w.T, u.T, b_x, b_h)))


def to_pytorch(kind: str, layer: Layer) -> tuple[Any, Any, Any, Any]:
    """weight_ih, weight_hh, bias_ih and bias_hh."""
    have, want = OURS[kind], PYTORCH[kind]
    w, u, *b = (ordered(part, have, want) for part in (layer.w, layer.u, *apart(kind, layer)))
    return w.T, u.T, *b


def from_keras(kind: str, w: Any, u: Any, b: Any) -> Layer:
    """Ours of kernel, recurrent_kernel and bias."""
    have, want = KERAS[kind], OURS[kind]
    w, u, b = (ordered(part, have, want) for part in (w, u, b))
    return summed(kind, w, u, *b) if kind == "gru" else Weights(w, u, b)


def to_keras(kind: str, layer: Layer) -> tuple[Any, Any, Any]:
    """kernel, recurrent_kernel and bias."""
    have, want = OURS[kind], KERAS[kind]
    b = layer.b
    if kind == "gru":
        b = b.__array_namespace__().stack(apart(kind, layer))
    return ordered(layer.w, have, want), ordered(layer.u, have, want), ordered(b, have, want)


def to_onnx(kind: str, layer: Layer) -> tuple[Any, Any, Any]:
    """W [k h, d], R [k h, h] and B [2 k h] of one direction."""
    have, want = OURS[kind], ONNX[kind]
    w, u, *b = (ordered(part, have, want) for part in (layer.w, layer.u, *apart(kind, layer)))
    return w.T, u.T, _beside(b)


def from_linen(kind: str, cell: Mapping[str, Any]) -> Layer:
    """Ours of the parameters of a SimpleCell, LSTMCell, OptimizedLSTMCell or GRUCell."""
    if kind == "rnn":
        return Weights(cell["i"]["kernel"], cell["h"]["kernel"], cell["i"]["bias"])
    names = OURS[kind]
    w, u = (_beside([cell[f"{side}{gate}"]["kernel"] for gate in names]) for side in "ih")
    b = _beside([cell[f"{'h' if kind == 'lstm' else 'i'}{gate}"]["bias"] for gate in names])
    return GRUWeights(w, u, b, cell["hn"]["bias"]) if kind == "gru" else Weights(w, u, b)


def to_linen(kind: str, layer: Layer) -> dict[str, Any]:
    """The parameters of a SimpleCell, LSTMCell, OptimizedLSTMCell or GRUCell."""
    if kind == "rnn":
        return {"i": {"kernel": layer.w, "bias": layer.b}, "h": {"kernel": layer.u}}
    w, u, b = (gates(part, OURS[kind]) for part in (layer.w, layer.u, layer.b))
    made = {f"i{gate}": {"kernel": w[gate]} for gate in w} | {f"h{gate}": {"kernel": u[gate]} for gate in u}
    for gate in b:
        made[f"{'h' if kind == 'lstm' else 'i'}{gate}"]["bias"] = b[gate]
    if isinstance(layer, GRUWeights):
        made["hn"]["bias"] = layer.bn
    return made


def from_nnx(kind: str, cell: Mapping[str, Any]) -> Layer:
    """Ours of the parameters of an NNX SimpleCell, LSTMCell, OptimizedLSTMCell or GRUCell; without b_hn it is 0."""
    if "ii" in cell:
        return from_linen(kind, {name.rstrip("_"): part for name, part in cell.items()})
    i, h = cell["dense_i"], cell["dense_h"]
    have, want = NNX[kind], OURS[kind]
    w, u = ordered(i["kernel"], have, want), ordered(h["kernel"], have, want)
    b_x, b_h = (ordered(side["bias"], have, want) if "bias" in side else None for side in (i, h))
    b: Any = b_h if b_x is None else b_x
    if kind == "gru":
        return summed(kind, w, u, b, b.__array_namespace__().zeros_like(b) if b_h is None else b_h)
    return Weights(w, u, b)


def to_nnx(kind: str, layer: Layer) -> dict[str, Any]:
    """The parameters of an NNX SimpleCell, OptimizedLSTMCell or GRUCell, the last with a bias in its `dense_h`."""
    have, want = OURS[kind], NNX[kind]
    w, u, *b = (ordered(part, have, want) for part in (layer.w, layer.u, *apart(kind, layer)))
    made: dict[str, Any] = {"dense_i": {"kernel": w}, "dense_h": {"kernel": u}}
    if kind == "lstm":
        made["dense_h"]["bias"] = b[0]
    else:
        made["dense_i"]["bias"] = b[0]
    if kind == "gru":
        made["dense_h"]["bias"] = b[1]
    return made
