"""What the two generators of sequences share: the sequences they learn, the draw of a batch, one step of Adam, what is
read of the adjoint, and a training loop that survives a kill.

The batch of update n is a function of (seed, n). At the end of a chunk the state and all that was recorded so far are
written together: whatever the moment of a kill, the same call ends with the same bits.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqdyn import backend
from seqdyn.data.splits import balanced_order
from seqdyn.data.text import Examples
from seqdyn.learn.model import Dense
from seqdyn.nets.bptt import Watch, at_end, live_steps
from seqdyn.nets.inits import glorot_uniform
from seqdyn.norms import rms
from seqdyn.runs import checkpoint
from seqdyn.types import Array, Bool, ConfigError, Device, Float, Int, Key, Tree

# --- sequences ------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """What the sequences are: decides shapes and the likelihood."""

    steps: int
    features: int
    classes: int
    trials: int = 0
    """Each number is a share of so many trials, in [0, 1] (a pixel of scikit-learn's digits: of 16 dots); 0: it is a
    real number, seen standardised."""
    pad: Literal["before", "after"] = "before"


class Data(NamedTuple):
    """A training split as the generators see it; each beginning of it holds the classes in proportion."""

    xs: Any
    """[n, s, d], on the host or a device, as are the other two, [n]."""
    lengths: Any
    ys: Any


class Sequences(NamedTuple):
    """A batch, steps first. `xs` is 0 on padding."""

    xs: Float[Array, "t b d"]
    ys: Int[Array, " b"]
    live: Bool[Array, "t b"]


class Scale(NamedTuple):
    """Mean and deviation of each feature over the live steps of what was trained on."""

    mean: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]


def ordered(examples: Examples, seed: int) -> Examples:
    """In `balanced_order`: the first n are a smaller training set with the same classes."""
    return examples.take(balanced_order(np.asarray(examples.ys), seed))


def live_of(kind: Kind, lengths: np.ndarray) -> Bool[np.ndarray, "n s"]:
    """Which steps are not padding."""
    t = np.arange(kind.steps)[None]
    lengths = np.asarray(lengths)[:, None]
    return t < lengths if kind.pad == "after" else t >= kind.steps - lengths


def scaling(kind: Kind, examples: Examples, size: int) -> Scale:
    """Of the first `size` examples; of shares, 0 and 1."""
    d = kind.features
    if kind.trials:
        return Scale(np.zeros(d, np.float32), np.ones(d, np.float32))
    steps = examples.xs[:size][live_of(kind, examples.lengths[:size])]
    return Scale(steps.mean(axis=0), np.maximum(steps.std(axis=0), 1e-6))


def scaled(kind: Kind, examples: Examples, scale: Scale) -> Data:
    """As the generators see them."""
    xs = (examples.xs - scale.mean) / scale.deviation * live_of(kind, examples.lengths)[..., None]
    return Data(xs.astype(np.float32), np.asarray(examples.lengths), np.asarray(examples.ys))


def unscaled(kind: Kind, scale: Scale, xs: np.ndarray, lengths: np.ndarray, ys: np.ndarray) -> Examples:
    """What a generator drew [n, s, d], as it would lie in a data set."""
    xs = (np.asarray(xs) * scale.deviation + scale.mean) * live_of(kind, lengths)[..., None]
    return Examples(xs.astype(np.float32), lengths.astype(np.int32), ys.astype(np.int32))


def wanted(kind: Kind, examples: Examples, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels, lengths) of n sequences to draw: classes as equal as n allows, lengths as they are in each class."""
    rng, there = np.random.default_rng(seed), np.asarray(examples.ys)
    absent = set(range(kind.classes)) - set(there.tolist())
    if absent:
        raise ConfigError(f"the training split has no example of class {min(absent)}; a generator needs one of each.")
    ys = np.arange(n, dtype=np.int32) % kind.classes
    lengths = np.asarray(examples.lengths)
    return ys, np.array([rng.choice(lengths[there == y]) for y in ys], np.int32)


def rows(kind: Kind, data: Data, at: Int[Array, " b"]) -> Sequences:
    """The examples at these indices."""
    live = live_steps(data.lengths[at], kind.steps, kind.pad)
    return Sequences(jnp.moveaxis(data.xs[at], 1, 0), data.ys[at], live)


def drawn(kind: Kind, data: Data, key: Key[Array, ""], size: Int[Array, ""], batch: int) -> Sequences:
    """`batch` of the first `size` examples, drawn independently."""
    return rows(kind, data, jax.random.randint(key, (batch,), 0, size))


# --- parts of networks ----------------------------------------------------------------------------------------


def dense(key: Key[Array, ""], inputs: int, outputs: int, dtype: Any = jnp.float32) -> Dense:
    """Glorot's initialisation."""
    return Dense(glorot_uniform()(key, (inputs, outputs), dtype), jnp.zeros((outputs,), dtype))


def affine(layer: Dense, h: Float[Array, "*s h"]) -> Float[Array, "*s k"]:
    """y = h w + b."""
    y = h @ layer.w
    return y + jnp.broadcast_to(layer.b, y.shape)


def beside(steps: int, parts: tuple[Array, ...]) -> Float[Array, "t b d"]:
    """The inputs of a cell: [t, b, ·] as they are, [b, ·] the same at every step."""
    full = [p if p.ndim == 3 else jnp.broadcast_to(p[None], (steps, *p.shape)) for p in parts]
    return jnp.concatenate(full, axis=-1)


def label(kind: Kind, ys: Int[Array, " b"], dtype: Any) -> Float[Array, "b k"]:
    """One-hot: the condition that every network here is given."""
    return jax.nn.one_hot(ys, kind.classes, dtype=dtype)


def adam(grads: Tree, opt: Any, params: Tree, lr: Array, b1: float = 0.9, b2: float = 0.999) -> tuple[Tree, Any]:
    """(params, opt) after a step of Adam."""
    with jax.numpy_dtype_promotion("standard"):
        updates, opt = optax.scale_by_adam(b1=b1, b2=b2).update(grads, opt)
        return jax.tree.map(lambda p, u: (p - lr * u).astype(p.dtype), params, updates), opt


def adam_state(params: Tree) -> Any:
    """Before the first step."""
    return optax.scale_by_adam().init(params)


def through_time(reading: Watch, live: Bool[Array, "t b"]) -> dict[str, Float[Array, " t"]]:
    """Root mean square over the examples that reach a lag of ‖λ_t‖, and of the part of λ_t that came from t + 1.

    The readings are those of a sum over examples of each one's own loss; the last entry is the last live step.
    """
    count = jnp.sum(at_end(live.astype(jnp.float32), live), axis=1)
    assert reading.whole is not None and reading.travelled is not None
    norms = {"whole": reading.whole.h, "travelled": reading.travelled.h}
    return {name: rms(at_end(r, live), count.astype(r.dtype)) for name, r in norms.items()}


# --- training -------------------------------------------------------------------------------------------------


class Program(NamedTuple):
    """A compiled generator: pure functions of its numbers (scalars), its data and the number of an update."""

    init: Any
    """numbers -> state"""
    chunk: Any
    """(numbers, state, data, first update, updates) -> (state, metrics)"""


class Job(NamedTuple):
    """One generator to be trained."""

    program: Program
    numbers: Any
    data: Any
    facts: Any
    """What else decides the result, as JSON: the sizes of the program."""
    updates: int
    chunk: int
    """Updates in one compiled call; divides `updates`."""


class Trained(NamedTuple):
    """The last state and, for each chunk, what its first update said of itself, and what was looked at after it."""

    state: Any
    records: dict[str, np.ndarray]


def program(
    init: Callable[..., Any],
    update: Callable[..., Any],
    look: Callable[..., Any] = lambda numbers, state, data: (state, {}),
) -> Program:
    """From `init(numbers) -> state` and `update(numbers, state, data, n) -> (state, metrics)`; after a chunk comes
    `look(numbers, state, data) -> (state, metrics)`.

    A run whose state would no longer be finite stays as it was.
    """

    def chunk(numbers: Any, state: Any, data: Any, first: Array, updates: int) -> Any:
        def body(state: Any, n: Array) -> Any:
            moved, metrics = update(numbers, state, data, n)
            finite = jnp.bool_(True)
            for leaf in jax.tree.leaves(moved):
                finite &= jnp.all(jnp.isfinite(leaf))
            state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
            return state, metrics | {"finite": finite}

        state, metrics = jax.lax.scan(body, state, first + jnp.arange(updates))
        state, seen = look(numbers, state, data)
        return state, jax.tree.map(lambda leaf: leaf[0], metrics) | seen

    return Program(backend.compiled(init), backend.compiled(chunk, static_argnums=4))


def train(job: Job, folder: Path | None = None, seconds: float = 20.0, device: Device | None = None) -> Trained:
    """A generator after its last update, from where `folder` left it, where it is saved every `seconds` and at the
    end; None saves nothing."""
    numbers, data = jax.device_put((job.numbers, job.data), device)
    init, chunk = job.program
    like = init.eval_shape(numbers)
    looked = chunk.eval_shape(numbers, like, data, jnp.int32(0), job.chunk)[1]
    records = {k: np.zeros((job.updates // job.chunk, *leaf.shape), leaf.dtype) for k, leaf in looked.items()}
    step, state = 0, None
    if folder is not None:
        folder = (folder / _digest(job)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.sweep_up(folder)
        found = checkpoint.latest(folder, (like, records), device)
        if found is not None:
            step, (state, kept) = found
            records = {name: np.array(values) for name, values in kept.items()}
    state, saved = init(numbers) if state is None else state, time.monotonic()
    while step < job.updates:
        state, metrics = chunk(numbers, state, data, jnp.int32(step), job.chunk)
        for name, value in metrics.items():
            records[name][step // job.chunk] = value
        step += job.chunk
        if folder is not None and (step == job.updates or time.monotonic() - saved >= seconds):
            checkpoint.save(folder, step, (state, records))
            saved = time.monotonic()
    return Trained(jax.tree.map(np.asarray, state), records)


def train_all(jobs: Mapping[Any, Job], folder: Path | None = None, seconds: float = 20.0) -> dict[Any, Trained]:
    """`train` of each, on all devices: the jobs of one program on one of them, so that it is compiled once."""
    free: SimpleQueue[Device] = SimpleQueue()
    for device in jax.local_devices():
        free.put(device)
    lanes: dict[Any, dict[Any, Job]] = {}
    for name, job in jobs.items():
        lanes.setdefault(job.program, {})[name] = job

    def lane(jobs: dict[Any, Job]) -> dict[Any, Trained]:
        device = free.get()
        try:
            return {name: train(job, folder, seconds, device) for name, job in jobs.items()}
        finally:
            free.put(device)

    with ThreadPoolExecutor(len(jax.local_devices())) as pool:
        done = {name: trained for part in pool.map(lane, lanes.values()) for name, trained in part.items()}
    return {name: done[name] for name in jobs}


def _digest(job: Job) -> str:
    told = [job.facts, job.updates, job.chunk, checkpoint.digest((job.numbers, job.data))]
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:16]
