"""Laws of `seqdyn.learn.train`: a step against loops by hand, chunks against steps, what becomes of diverged runs."""

import dataclasses
import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _training import having, over, start

from seqdyn.backend import compiled
from seqdyn.data.tasks import TASKS, Batch
from seqdyn.data.text import Examples
from seqdyn.learn import model, optim, train
from seqdyn.learn.config import Spec
from seqdyn.nets import cells
from seqdyn.nets.bptt import Tap
from seqdyn.numbers import Numbers

X64 = False
T = 6
ADDING = Spec(steps=T, batch=4, holdout=10, hidden=(4,), u_init="uniform")
TEXT = dataclasses.replace(
    ADDING, task="labelled", vocabulary=9, embedding=2, hidden=(3, 2), readout="mean", optimizer="sgd"
)
SIZES = {"train": 10, "validation": 6, "test": 6}


def numbers(**changes):
    return Numbers(**changes).arrays()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)

    def examples(n):
        lengths = rng.permutation(1 + np.arange(n) % T).astype(np.int32)
        mask = np.arange(T)[None] >= T - lengths[:, None]
        ids = np.where(mask, rng.integers(1, TEXT.vocabulary, (n, T)), 0).astype(np.int32)
        return Examples(ids, lengths, rng.integers(0, 2, n).astype(np.int32))

    return {split: jax.tree.map(jnp.asarray, examples(n)) for split, n in SIZES.items()}


# One compiled function of each kind per spec, for all tests. Strict promotion has a test of its own.


@cache
def _step(spec):
    return compiled(over(train.step, spec))


@cache
def _chunk(spec):
    return compiled(over(train.chunk, spec), static_argnums=3)


def step(spec, h, state, batch):
    with jax.numpy_dtype_promotion("standard"):
        return _step(spec)(h, state, batch)


def chunk(spec, h, state, data, updates):
    with jax.numpy_dtype_promotion("standard"):
        return _chunk(spec)(h, state, data, updates)


@cache
def _init(spec):
    return compiled(over(train.init, spec))


def init(spec, h):
    """The state of update 0."""
    return _init(spec)(h)


@cache
def _batch(spec):
    return compiled(
        lambda h, data, n: train.sample(having(spec, h), data, train.batch_index(having(spec, h), data, n), n)
    )


def drawn(spec, h, data=None, n=0):
    """The batch of update n: what `train.training_batch` gives, says a law of tasks."""
    return _batch(spec)(h, data, n)


def first(spec, data=None):
    """A state before the first update, drawn by NumPy, and the batch of update 0."""
    return start(spec), drawn(spec, numbers(), data)


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def assert_close(ours, theirs, rtol=1e-5, atol=1e-7):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), ours, theirs)


def joined(*metrics):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *metrics)


# --- chunks -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def six():
    """Six updates of the adding run in one chunk."""
    h = numbers(lr=0.05, clip=0.5)
    return h, *chunk(ADDING, h, init(ADDING, h), None, 6)


@pytest.mark.parametrize("length", [3, 1])
def test_chunking_changes_no_bit(length, six):
    h, state, metrics = six
    again, parts = init(ADDING, h), []
    for _ in range(6 // length):
        again, part = chunk(ADDING, h, again, None, length)
        parts.append(part)
    assert_equal(again, state)
    assert_equal(joined(*parts), metrics)
    assert int(state.step) == 6 and bool(state.alive)
    assert len(np.unique(metrics["loss"])) == 6


def test_a_chunk_is_steps_on_the_batches_of_seed_and_update(six):
    h, state, metrics = six
    again = init(ADDING, h)
    for n in range(6):
        again, one = step(ADDING, h, again, drawn(ADDING, h, n=n))
        assert_close(one, jax.tree.map(lambda leaf: leaf[n], metrics))  # noqa: B023
    assert_close(again, state)


def test_the_data_of_an_update_is_a_function_of_seed_and_update_alone():
    xs = [drawn(ADDING, h, n=3).xs for h in (numbers(seed=5), numbers(seed=5, lr=0.5, gain=2.0), numbers(seed=6))]
    assert_equal(xs[0], xs[1])
    assert not np.array_equal(xs[0], xs[2])
    assert not np.array_equal(xs[0], drawn(ADDING, numbers(seed=5), n=4).xs)


def test_the_seed_decides_the_parameters():
    a, b, c = (init(ADDING, numbers(seed=s, lr=r)).params for s, r in [(1, 0.1), (1, 0.2), (2, 0.1)])
    assert_equal(a, b)
    assert not np.array_equal(a.layers[0].w, c.layers[0].w) and not np.array_equal(a.readout.w, c.readout.w)


# --- divergence ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "at, changes",
    [(0, dict(lr=math.inf)), (0, dict(gain=math.inf)), (0, dict(gain=math.nan)), (1, dict(lr=1e30))],
    ids=["infinite update", "infinite weights", "nan weights", "infinite loss"],
)
def test_a_run_that_diverges_is_flagged_there_and_frozen_before_it(at, changes):
    h = numbers(**changes)
    begun = init(ADDING, h)
    end, metrics = chunk(ADDING, h, begun, None, 6)
    np.testing.assert_array_equal(metrics["finite"], np.arange(6) < at)
    assert not end.alive and int(end.step) == 6
    before = begun
    for _ in range(at):
        before, _ = chunk(ADDING, h, before, None, 1)
    assert bool(before.alive)
    assert_equal((end.params, end.opt), (before.params, before.opt))
    if "lr" in changes:
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(end.params))
        assert np.all(np.isfinite(np.asarray(metrics["loss"])[:at]))
    for name, values in metrics.items():
        for half in jax.tree.leaves(values):
            later = np.asarray(half)[at + 1 :]
            assert not np.any(later) if name == "finite" else np.all(np.isnan(later)), name


def test_a_dead_run_stays_dead_and_counts_on():
    h = numbers(lr=0.01)
    dead = init(ADDING, h)._replace(alive=jnp.bool_(False), step=jnp.int32(12))
    end, metrics = chunk(ADDING, h, dead, None, 3)
    assert_equal(end, dead._replace(step=jnp.int32(15)))
    assert not np.any(metrics["finite"]) and np.all(np.isnan(metrics["loss"]))


def test_an_infinite_second_moment_is_a_divergence_not_a_plateau():
    """Loss, gradient and update are floats yet, the square of a gradient of 10^20 is none."""
    h = numbers(lr=1e-3)
    state, batch = first(ADDING)
    loud = state.params.readout._replace(w=100 * state.params.readout.w)
    state = state._replace(params=state.params._replace(readout=loud))
    after, metrics = step(ADDING, h, state, batch._replace(ys=jnp.full(4, 1e18, jnp.float32)))
    assert all(np.all(np.isfinite(metrics[name])) for name in ("loss", "grad_norm", "group_update_norm"))
    assert not metrics["finite"] and not after.alive and after.step == 1
    assert step(ADDING, h, state, batch)[1]["finite"]


# --- one step, by hand --------------------------------------------------------------------------------------


def by_hand(spec, params, xs, y):
    """Of one sequence alone, a Python loop: loss, its gradient, and λ at each [layer][step].

    Zeros are added to each output and each carry; their gradients are what arrives there. An output is read by the
    layer above and the readout, a carry by the next step: λ of h is the sum, 'carried' the carry's alone.
    """
    stack = model.layers(having(spec, numbers()))
    steps = range(xs.shape[0])
    rest = [cell.initial_carry(()) for cell in stack]
    zeros = [[(jnp.zeros_like(r.h), jax.tree.map(jnp.zeros_like, r)) for _ in steps] for r in rest]

    def loss(params, zeros):
        inputs = xs if params.embedding is None else params.embedding[xs]
        carries, tops = list(rest), []
        for t in steps:
            x = inputs[t]
            for i, (cell, p) in enumerate(zip(stack, params.layers, strict=True)):
                new = cells.step(cell, p, carries[i], x)
                x = new.h + zeros[i][t][0]
                carries[i] = jax.tree.map(jnp.add, new, zeros[i][t][1])
            tops.append(x)
        read = tops[-1] if spec.readout == "last" else sum(tops) / np.float32(len(tops))
        return model.losses(spec, read @ params.readout.w + params.readout.b, y[None])

    value, (grads, arrived) = jax.value_and_grad(loss, argnums=(0, 1))(params, zeros)
    return value, grads, arrived


STEPS_BY_HAND = {
    "rnn, last": ADDING,
    "rnn, last, padded": dataclasses.replace(TEXT, batch=2, hidden=(3,), readout="last"),
    "lstm in two layers, mean, padded": dataclasses.replace(TEXT, cell="lstm", batch=2),
}


@pytest.mark.parametrize("name", STEPS_BY_HAND)
def test_a_step_records_the_norms_of_a_loop_by_hand(name, data):
    spec, h = STEPS_BY_HAND[name], numbers()
    state, batch = first(spec, data)
    lengths = np.full(spec.batch, T) if batch.mask is None else np.asarray(batch.mask).sum(axis=0)
    assert spec.task == "adding" or len(set(lengths)) > 1
    _, metrics = step(spec, h, state, batch)

    def each(params, batch):
        return [by_hand(spec, params, batch.xs[T - n :, b], batch.ys[b]) for b, n in enumerate(lengths)]

    alone = compiled(each)(state.params, batch)
    np.testing.assert_allclose(metrics["loss"], np.mean([a[0] for a in alone]), rtol=1e-5)

    grads = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *[a[1] for a in alone])
    norms = [_norm(group) for group in model.groups(grads).values()]
    np.testing.assert_allclose(metrics["group_grad_norm"], norms, rtol=1e-4)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(norms), rtol=1e-4)

    parts = {"adjoint_norm": lambda out, c: out + c.h, "carried_norm": lambda out, c: c.h}
    if spec.cell == "lstm":
        parts["adjoint_norm_c"] = lambda out, c: c.c
    assert set(parts) == {k for k in metrics if k.startswith(("adjoint_norm", "carried_norm"))}
    for key, part in parts.items():
        squares, count = np.zeros((len(spec.hidden), T)), np.zeros(T)
        for (_, _, arrived), n in zip(alone, lengths, strict=True):
            count[T - n :] += 1
            for i, layer in enumerate(arrived):
                squares[i, T - n :] += [np.sum(np.square(np.float64(part(*zero)))) for zero in layer]
        np.testing.assert_allclose(metrics[key], np.sqrt(squares / np.maximum(count, 1)), rtol=1e-4, atol=1e-9)
        np.testing.assert_array_equal(metrics["adjoint_count"], count)
    logs = np.zeros((len(spec.hidden), T))
    for (_, _, arrived), n in zip(alone, lengths, strict=True):
        for i, layer in enumerate(arrived):
            logs[i, T - n :] += [np.log2(_norm(out + c.h)) for out, c in layer]
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(sum(metrics["adjoint_log_norm"]), logs / count, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(metrics["adjoint_nonzero"], np.broadcast_to(count / count, logs.shape))
    assert np.all(np.asarray(metrics["carried_norm"])[:, -1] == 0)
    assert np.all(np.asarray(metrics["adjoint_norm"])[:, 1:] > 0)


def _norm(tree):
    return np.sqrt(sum(np.sum(np.square(np.float64(leaf))) for leaf in jax.tree.leaves(tree)))


SGD = dataclasses.replace(ADDING, optimizer="sgd", schedule="exponential")


def test_an_update_is_minus_the_rate_times_the_clipped_gradient():
    h = numbers(lr=0.2, clip=1e-2, warmup=2, decay_steps=5, decay_rate=0.5)
    state, batch = first(SGD)
    free, _ = step(SGD, numbers(lr=1.0), state, batch)
    grads = jax.tree.map(jnp.subtract, state.params, free.params)
    for n in range(4):
        state = state._replace(step=jnp.int32(n))
        moved, metrics = step(SGD, h, state, batch)
        rate = optim.of_words(having(SGD, h)).rate(jnp.int32(n))
        factor = rate * np.float32(1e-2 / _norm(grads))
        assert_close(moved.params, jax.tree.map(lambda p, g: p - factor * g, state.params, grads))  # noqa: B023
        np.testing.assert_allclose(metrics["clip_scale"], 1e-2 / _norm(grads), rtol=1e-5)
        np.testing.assert_allclose(
            metrics["group_update_norm"], rate * metrics["clip_scale"] * metrics["group_grad_norm"], rtol=1e-5
        )
        assert float(metrics["clipped"]) == 1 and int(moved.step) == n + 1


def test_log_norms_leave_out_zeros_and_reach_where_norms_underflow():
    """Half of a ReLU layer is dead in one example, all of it in the other; and 2^−150 a step leaves floats at once."""
    watch = Tap(*[None] * 5)
    whole = jnp.array([[0.0, 0.5, 2.0], [4.0, 0.0, 0.0]], jnp.float32)  # [t, b] mantissas
    exponent = jnp.array([[0.0, -600.0, -600.0], [-2000.0, 0.0, 0.0]], jnp.float32)
    reading = watch._replace(adjoint_norm=cells.Hidden(whole), from_next_norm=cells.Hidden(whole), exponent=exponent)
    batch = Batch(jnp.zeros((2, 3, 1)), jnp.zeros(3))
    metrics = train.read(ADDING, batch, (reading,))
    log_norm = np.asarray(metrics["adjoint_log_norm"].high, np.float64) + np.asarray(metrics["adjoint_log_norm"].low)
    np.testing.assert_allclose(log_norm[0], [-600 + np.log2(3), -1998 + np.log2(3)], rtol=1e-7)
    np.testing.assert_allclose(metrics["adjoint_nonzero"][0], [2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_array_equal(metrics["adjoint_norm"][0], [0, 0])  # 2^−599 is not a float
    small = train.read(ADDING, batch, (reading._replace(exponent=exponent / 10),))
    expected = 3 * np.sqrt((0.25 + 4) / 3) * 2.0**-60
    np.testing.assert_allclose(small["adjoint_norm"][0, 0], expected, rtol=1e-5)


# --- adjoint clipping and truncation ------------------------------------------------------------------------

ADJOINT = dataclasses.replace(TEXT, clip="adjoint")


def twice(batch):
    return Batch(*(None if leaf is None else jnp.concatenate([leaf, leaf], axis=-1) for leaf in batch))


@pytest.mark.slow
def test_adjoints_and_their_clipping_do_not_depend_on_the_batch_size(data):
    h = numbers(clip=0.05)
    state, batch = first(ADJOINT, data)
    one, metrics = step(ADJOINT, h, state, batch)
    two, doubled = step(dataclasses.replace(ADJOINT, batch=8), h, state, twice(batch))
    np.testing.assert_array_equal(doubled.pop("adjoint_count"), 2 * metrics.pop("adjoint_count"))
    assert_close(doubled, metrics)
    assert_close(two.params, one.params)
    assert 0 < float(metrics["clipped"]) < 1 and 0 < float(metrics["clip_scale"]) < 1


def test_adjoint_clipping_tells_how_much_it_clipped(data):
    state, batch = first(ADJOINT, data)
    run = {bound: step(ADJOINT, numbers(clip=bound), state, batch) for bound in (1e-6, 0.1, 0.2, math.inf)}
    scales = [float(metrics["clip_scale"]) for _, metrics in run.values()]
    shares = [float(metrics["clipped"]) for _, metrics in run.values()]
    assert 0 < scales[0] < scales[1] < scales[2] < scales[3] == 1
    assert 1 >= shares[0] >= shares[1] > shares[2] > shares[3] == 0 and shares[0] >= 0.5  # all of the top layer
    through = [np.max(metrics["group_grad_norm"][:-1]) for _, metrics in run.values()]
    assert through[0] < 1e-3 * through[3]
    # The readout's gradient passes through no adjoint.
    for _, metrics in run.values():
        np.testing.assert_allclose(metrics["group_grad_norm"][-1], run[math.inf][1]["group_grad_norm"][-1], rtol=1e-5)


@pytest.mark.parametrize("clip", ["norm", "value", "adjoint"])
def test_a_step_mixes_no_dtypes(clip, data):
    spec = dataclasses.replace(TEXT, clip=clip)
    state, batch = first(TEXT, data)
    jax.eval_shape(over(train.step, spec), numbers(), state, batch)


def test_clipping_by_value_records_the_share_of_entries_it_changed():
    spec = dataclasses.replace(SGD, clip="value")
    h = numbers(lr=1.0, decay_rate=1.0)
    state, batch = first(spec)

    def moves(h):
        moved, metrics = step(spec, h, state, batch)
        pairs = zip(jax.tree.leaves(moved.params), jax.tree.leaves(state.params), strict=True)
        return np.concatenate([np.ravel(a - b) for a, b in pairs]), metrics

    free, _ = moves(h)
    bound = np.quantile(np.abs(free), 0.6)
    bitten = np.abs(free) > bound
    clipped, metrics = moves(dataclasses.replace(h, clip=jnp.float32(bound)))
    np.testing.assert_allclose(clipped, np.clip(free, -bound, bound), atol=1e-6)
    np.testing.assert_allclose(metrics["clipped"], bitten.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["clip_scale"], np.linalg.norm(clipped) / np.linalg.norm(free), rtol=1e-4)


# --- held-out splits ----------------------------------------------------------------------------------------


def test_evaluation_counts_each_held_out_example_once(data):
    h = numbers(seed=2)
    state = start(TEXT)
    metrics = compiled(over(train.evaluate, TEXT))(h, state, data)
    assert set(metrics) == {"validation_loss", "validation_accuracy", "test_loss", "test_accuracy"}
    task, predict = TASKS["labelled"](TEXT), compiled(over(model.predict, TEXT))
    for split, n in SIZES.items():
        if split == "train":
            continue
        batch = task.batch(data, split, (jnp.arange(n), jnp.ones(n)))
        p = predict(h, state.params, batch)
        np.testing.assert_allclose(metrics[f"{split}_loss"], np.mean(model.losses(TEXT, p, batch.ys)), rtol=1e-5)
        right = (np.asarray(p[:, 0]) > 0) == (np.asarray(batch.ys) == 1)
        np.testing.assert_allclose(metrics[f"{split}_accuracy"], right.mean(), rtol=1e-6)


def test_evaluation_of_a_synthetic_task_is_the_loss_on_its_test_set_whatever_the_seed():
    evaluate = compiled(over(train.evaluate, ADDING))
    state = start(ADDING)
    one, two = (evaluate(numbers(seed=s), state, None) for s in (0, 1))
    assert_equal(one, two)
    task = TASKS["adding"](ADDING)
    batches = [task.batch(None, "test", ticket) for ticket in task.eval_batches(None, "test")]
    assert len(batches) == 3 and set(one) == {"test_loss"}
    losses = [step(ADDING, numbers(), state, batch)[1]["loss"] for batch in batches]
    np.testing.assert_allclose(one["test_loss"], np.mean(losses), rtol=1e-5)
