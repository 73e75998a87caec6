"""A call of a fused recurrent module of PyTorch, taken by hooks, and what our backward pass reads of it.

Packed sequences are padded after their ends; calls whose shapes vary share programs, by padding, too.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from seqdyn.data.arrays import from_tensor
from seqdyn.data.extras import needed
from seqdyn.watch import torch_layers
from seqdyn.watch.torch_layers import Call, Layers

torch = needed("torch", "seqdyn.watch.torch")
rnn_utils = needed("torch.nn.utils.rnn", "seqdyn.watch.torch")

for _kind in ("float32", "float64"):
    jnp.finfo(_kind)  # kept for later: under `torch.set_flush_denormal` NumPy would warn that the least number is 0

Tensor = Any
"""A `torch.Tensor`, which type checkers do not know where PyTorch is not installed."""
Steps = Any
"""A `torch.Tensor` or a `PackedSequence`."""
TOLERANCE = {"float64": 1e-6, "float32": 1e-2}
"""What we may be away from PyTorch, relative to the largest number, by the dtype of its outputs: an accelerator may
round a float32 to TF32. Other dtypes: 0.1. What is not the same function is away by as much as itself."""


def layers(rnn: Any) -> Layers:
    """What decides the program."""
    activation = getattr(rnn, "nonlinearity", "tanh")
    kind = "lstm" if isinstance(rnn, torch.nn.LSTM) else "gru" if isinstance(rnn, torch.nn.GRU) else "rnn"
    return Layers(kind, rnn.input_size, rnn.hidden_size, rnn.num_layers, 1 + rnn.bidirectional, activation)


def weights(rnn: Any) -> dict[str, Tensor]:
    """Those that the module computed with, by name. A weight that is parametrized would be made anew as an attribute:
    a spectral norm would move on, a mask be drawn again."""
    return dict(zip(rnn._flat_weights_names, rnn._flat_weights, strict=True))


def dropping(rnn: Any) -> bool:
    """Does the module drop outputs between its layers as it is called now?"""
    return rnn.dropout > 0 and rnn.num_layers > 1 and rnn.training


def data(steps: Steps) -> Tensor:
    """The tensor in a `PackedSequence`, or the tensor."""
    return steps.data if isinstance(steps, rnn_utils.PackedSequence) else steps


def is_usual(rnn: Any, x: Any, first: tuple[Any, ...], output: Any) -> bool:
    """Are these what the forward of PyTorch's own modules takes and returns? A subclass or a hook may do otherwise."""
    parts = 2 if isinstance(rnn, torch.nn.LSTM) else 1
    returned = output if isinstance(output, tuple) and len(output) == 2 else (None, ())
    last = returned[1] if isinstance(returned[1], tuple) else (returned[1],)
    if not all(map(torch.is_tensor, (data(x), data(returned[0]), *first, *last))):
        return False
    widths = [data(x).shape[-1:] == (rnn.input_size,), *(h.shape[-1:] == (rnn.hidden_size,) for h in (*first, *last))]
    return all(widths) and len(last) == parts and len(first) in (0, parts)


class Taken:
    """What hooks take of one call: copies, since an optimizer or a buffer filled again may change what was given before
    it is looked at."""

    def __init__(self, rnn: Any, x: Steps, first: tuple[Tensor, ...], outputs: Steps, random: Any) -> None:
        self.layers, self.batch_first = layers(rnn), rnn.batch_first
        self.dropout = rnn.dropout if dropping(rnn) else 0.0
        self.weights = {name: _copy(weight) for name, weight in weights(rnn).items()}
        wide = self.weights["weight_ih_l0"].dtype == torch.float64
        self._dtype = torch.float64 if wide else torch.float32
        self.x, self.first, self.outputs, self.random = _copy(x), tuple(map(_copy, first)), _copy(outputs), random
        self.d: dict[str, Tensor] = {}
        """∂L/∂outputs, ∂L/∂h_n and ∂L/∂c_n, of those that have one."""

    def hook(self, name: str, tensor: Tensor) -> None:
        """Takes ∂L/∂tensor, over all backward passes."""

        def add(grad: Tensor | None) -> None:
            if grad is not None:  # some versions of PyTorch say so of an output that the loss does not reach
                self.d[name] = self.d[name] + grad.detach() if name in self.d else grad.detach().clone()

        if tensor.requires_grad:
            tensor.register_hook(add)

    @property
    def tolerance(self) -> float:
        """See `TOLERANCE`."""
        return TOLERANCE.get(str(data(self.outputs).dtype).removeprefix("torch."), 0.1)

    def arrays(self) -> tuple[Call, Int[np.ndarray, " b"]]:
        """(the call, the lengths of its sequences)"""
        x, lengths = self._padded(self.x)
        outputs, _ = self._padded(self.outputs)
        given = "outputs" in self.d
        d_outputs = self._padded(self._like(self.outputs, self.d["outputs"]))[0] if given else np.zeros_like(outputs)
        parts = ("h", "c") if self.layers.kind == "lstm" else ("h",)
        state = (len(self.layers.suffixes), len(lengths), self.layers.hidden)
        zeros = np.zeros(state, x.dtype)
        first = tuple(self._numpy(h).reshape(state) for h in self.first) or (zeros,) * len(parts)
        d_last = tuple(self._numpy(self.d[name]).reshape(state) if name in self.d else zeros for name in parts)
        mask = None if np.all(lengths == len(x)) else _valid(lengths, len(x))
        weights = {name: self._numpy(weight, name) for name, weight in self.weights.items()}
        return Call(weights, x, mask, first, self._masks(), outputs, d_outputs, d_last), lengths

    def _like(self, steps: Steps, values: Tensor) -> Steps:
        return steps._replace(data=values) if isinstance(steps, rnn_utils.PackedSequence) else values

    def _padded(self, steps: Steps) -> tuple[np.ndarray, Int[np.ndarray, " b"]]:
        """([t, b, …] in the order of the batch, lengths)"""
        if isinstance(steps, rnn_utils.PackedSequence):
            values, lengths = rnn_utils.pad_packed_sequence(steps)
            return self._numpy(values), lengths.numpy()
        values = self._numpy(steps)
        values = values[:, None] if values.ndim == 2 else values.swapaxes(0, 1) if self.batch_first else values
        return values, np.full(values.shape[1], len(values))

    def _numpy(self, tensor: Tensor, what: str = "an input or output") -> np.ndarray:
        return from_tensor(f"{what} of the module", tensor.to(self._dtype))

    def _masks(self) -> np.ndarray | None:
        """Those that PyTorch drew: its generator draws them once more."""
        if not self.dropout:
            return None
        ones = torch.ones_like(data(self.outputs))
        if self.batch_first and not isinstance(self.outputs, rnn_utils.PackedSequence) and ones.ndim == 3:
            ones = torch.ones_like(ones.transpose(0, 1), memory_format=torch.contiguous_format)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.random)
            drawn = [torch.dropout(ones, self.dropout, True) for _ in range(self.layers.levels - 1)]
        if self.batch_first and not isinstance(self.outputs, rnn_utils.PackedSequence) and ones.ndim == 3:
            drawn = [mask.transpose(0, 1) for mask in drawn]
        return np.stack([self._padded(self._like(self.outputs, mask))[0] for mask in drawn])


def _copy(steps: Steps) -> Steps:
    return steps._replace(data=_copy(steps.data)) if not torch.is_tensor(steps) else steps.detach().clone()


class Reading(NamedTuple):
    """What is read of one call, or of several side by side. Steps are in the order of the call."""

    whole: tuple[Float[np.ndarray, "l t b"], ...]
    """Mantissas of ‖∂L/∂h_t‖ and, of an LSTM, ‖∂L/∂c_t‖."""
    from_next: tuple[Float[np.ndarray, "l t b"], ...]
    exponent: Float[np.ndarray, "l t b"]
    lengths: Int[np.ndarray, " b"]

    def times(self, factor: float) -> "Reading":
        """Of the loss times a factor."""
        scaled = [tuple(part * factor for part in parts) for parts in (self.whole, self.from_next)]
        return self._replace(whole=scaled[0], from_next=scaled[1])

    @property
    def count(self) -> Int[np.ndarray, " t"]:
        """How many sequences have a step t."""
        return np.sum(_valid(self.lengths, self.exponent.shape[1]), axis=1)


def beside(readings: Sequence[Reading]) -> Reading:
    """Of all calls, the shorter ones padded after their ends."""
    if len(readings) == 1:
        return readings[0]
    steps = max(one.exponent.shape[1] for one in readings)

    def joined(*parts: np.ndarray) -> np.ndarray:
        wide = [np.pad(part, [(0, 0), (0, steps - part.shape[1]), (0, 0)]) for part in parts]
        return np.concatenate(wide, axis=-1)

    trees = [one._replace(lengths=None) for one in readings]
    return jax.tree.map(joined, *trees)._replace(lengths=np.concatenate([one.lengths for one in readings]))


class Found(NamedTuple):
    """What is read of one call."""

    reading: Reading
    weights: dict[str, np.ndarray]
    """∂L/∂weights by name; none unless they were asked for"""
    apart: float
    """How far the outputs are from ours."""


class Begun(NamedTuple):
    """A reading on its way."""

    numbers: int
    """How many it holds."""
    found: Callable[[], Found]
    """Waits for it."""


class Reader:
    """Reads calls; those of new shapes share a program with former ones where these have room for them."""

    def __init__(self) -> None:
        self._rooms: list[tuple[int, int]] = []

    def begin(self, taken: Taken, check: bool) -> Begun:
        """Reads a call beside the loop, which goes on; ∂L/∂weights, if they are to `check`."""
        call, lengths = taken.arrays()
        steps, batch = call.xs.shape[:2]
        room = self._room(steps, batch)
        if room != (steps, batch):
            call = _widened(call._replace(mask=_valid(lengths, steps)), room[0] - steps, room[1] - batch)
        wide = jax.enable_x64(True) if call.xs.dtype == np.float64 else nullcontext()
        with wide, jax.default_matmul_precision("highest"):
            read = torch_layers.read(taken.layers, call)  # which JAX computes in a thread of its own
            grads = torch_layers.weight_gradients(taken.layers, call) if check else {}

        def found() -> Found:
            norms = (read.whole, read.from_next, read.exponent)
            whole, near, e = jax.tree.map(lambda leaf: np.asarray(leaf)[:, :steps, :batch], norms)
            weights = {name: np.asarray(grad) for name, grad in grads.items()}
            return Found(Reading(whole, near, e, lengths), weights, float(read.apart))

        return Begun(read.exponent.size * (1 + 2 * len(read.whole)), found)

    def _room(self, steps: int, batch: int) -> tuple[int, int]:
        """The first shape is its own room; later ones, without room, get it in powers of two where they are new."""
        if (steps, batch) in self._rooms:
            return steps, batch
        fits = [r for r in self._rooms if steps <= r[0] <= 2 * steps and batch <= r[1] <= 2 * batch]
        if fits:
            return min(fits, key=math.prod)
        known = [set(sizes) for sizes in zip(*self._rooms, strict=True)] or [{steps}, {batch}]
        found = [n if n in of else 1 << (n - 1).bit_length() for n, of in zip((steps, batch), known, strict=True)]
        self._rooms.append((found[0], found[1]))
        return self._rooms[-1]


def _valid(lengths: Int[np.ndarray, " b"], steps: int) -> Bool[np.ndarray, "t b"]:
    return np.arange(steps)[:, None] < lengths


def _widened(call: Call, steps: int, batch: int) -> Call:
    """With that many more steps and sequences, all of them padding."""

    def wide(values: np.ndarray, t: int | None, b: int) -> np.ndarray:
        return np.pad(values, [(0, {t: steps, b: batch}.get(axis, 0)) for axis in range(values.ndim)])

    return call._replace(
        xs=wide(call.xs, 0, 1),
        mask=wide(call.mask, 0, 1),
        first=tuple(wide(part, None, 1) for part in call.first),
        masks=None if call.masks is None else wide(call.masks, 1, 2),
        outputs=wide(call.outputs, 0, 1),
        d_outputs=wide(call.d_outputs, 0, 1),
        d_last=tuple(wide(part, None, 1) for part in call.d_last),
    )


# --- by lag ---------------------------------------------------------------------------------------------------


def records(readings: Sequence[Reading], steps: int, directions: int) -> list[dict[str, np.ndarray]]:
    """The norms that a run records of each update, [layer, time] with `steps` times: see `learn.train.read`.

    The last time is the step that a layer reads last of each sequence: a layer that reads backwards, its first.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, one in enumerate(readings):
        alike.setdefault(one.exponent.shape, []).append(i)
    made: dict[int, dict[str, np.ndarray]] = {}
    for rows in alike.values():  # at once: NumPy's calls take longer than what they compute
        found = _records(
            jax.tree.map(lambda *leaves: np.stack(leaves), *[readings[i] for i in rows]), steps, directions
        )
        made |= {row: {name: values[i] for name, values in found.items()} for i, row in enumerate(rows)}
    return [made[i] for i in range(len(readings))]


def _records(reading: Reading, steps: int, directions: int) -> dict[str, np.ndarray]:
    """Of arrays [n, l, t, b] and lengths [n, b]."""
    whole, near, lengths = reading.whole, reading.from_next, reading.lengths[:, None]
    lag = np.arange(steps)[::-1, None]
    reach = lag < lengths
    count = reach.sum(axis=-1)
    at = [np.where(reach, lengths - 1 - lag, 0), np.where(reach, lag, 0)]
    index = np.stack([at[i % directions] for i in range(reading.exponent.shape[1])], axis=1)
    in_place = directions == 1 and steps == reading.exponent.shape[2] and bool(reach.all())

    def ended(part: np.ndarray) -> np.ndarray:
        return part if in_place else np.where(reach[:, None], np.take_along_axis(part, index, axis=2), 0)

    e, over = ended(reading.exponent), count[:, None]
    of_h, nearer = ended(whole[0]), ended(near[0])
    logs, some = _mean_log2(of_h, e)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = some / over
    found = {
        "adjoint_norm": _rms(of_h, e, over),
        "carried_norm": _rms(nearer, e, over),
        "adjoint_log_norm": logs,
        "adjoint_nonzero": share,
        "adjoint_count": count,
    }
    return found | ({"adjoint_norm_c": _rms(ended(whole[1]), e, over)} if len(whole) > 1 else {})


def _split(m: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In float64: mantissas between ½ and 1, and their exponents."""
    mantissa, more = np.frexp(np.asarray(m, np.float64))
    return mantissa, e + np.where(np.isfinite(mantissa), more, 0)


def _near(m: np.ndarray, e: np.ndarray) -> bool:
    """Are m 2^e and its square numbers of float64, whatever a float32 m is?"""
    return m.dtype == np.float32 and not np.any(np.abs(e) > 300)


def _rms(m: np.ndarray, e: np.ndarray, count: np.ndarray) -> np.ndarray:
    """√(Σ_b (m 2^e)² / count); the square neither over- nor underflows."""
    if _near(m, e):
        near = m.astype(np.float64) if not e.any() else np.ldexp(m.astype(np.float64), e.astype(int))
        mean = np.einsum("...b,...b->...", near, near) / np.maximum(count, 1)
        with np.errstate(over="ignore", under="ignore"):
            return np.sqrt(mean).astype(np.float32)
    m, e = _split(m, e)
    top = np.max(np.where(m != 0, e, -np.inf), axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    near = np.ldexp(m, np.where(m != 0, e - top, 0).astype(int))
    mean = np.sum(np.square(near), axis=-1) / np.maximum(count, 1)
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(np.sqrt(mean), top[..., 0].astype(int)).astype(np.float32)


def _mean_log2(m: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean of log₂(m 2^e) over those that are not 0, how many there are); NaN over none."""
    m, e = (m.astype(np.float64), e) if _near(m, e) else _split(m, e)
    some = m != 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sum(np.where(some, e + np.log2(np.where(some, m, 1)), 0), axis=-1) / some.sum(-1), some.sum(-1)


def gain(weights: dict[str, Tensor]) -> float:
    """That of uniform recurrent matrices, U(−a, a) with a = gain / √h, as large as these: 1 as PyTorch draws them."""
    squares = [torch.mean(torch.square(w.double())).item() * w.shape[1] for k, w in weights.items() if "weight_hh" in k]
    return float(f"{math.sqrt(3 * np.mean(squares)):.2g}")


def furthest(ours: dict[str, np.ndarray], theirs: dict[str, Tensor]) -> tuple[str, float]:
    """(the weight whose two gradients are furthest apart, by how much of the largest entry); NaN if theirs are not
    finite."""
    given = {name: grad.detach().to("cpu", torch.float64).numpy() for name, grad in theirs.items()}
    largest = {name: float(np.max(np.abs(grad))) for name, grad in given.items()}
    if not all(map(math.isfinite, largest.values())):
        return next(iter(given)), math.nan
    least = max(1e-6 * max(largest.values()), np.finfo(np.float64).tiny)  # of what is 0 but for rounding
    apart = {name: float(np.max(np.abs(ours[name] - grad)) / max(largest[name], least)) for name, grad in given.items()}
    apart = {name: math.inf if math.isnan(one) else one for name, one in apart.items()}
    return max(apart.items(), key=lambda one: one[1])
