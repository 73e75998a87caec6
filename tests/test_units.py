"""Laws of `seqdyn.measure.units`: gates against the published equations in NumPy, paths against autodiff."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _training import having, over

from seqdyn.backend import compiled
from seqdyn.data.tasks import Batch
from seqdyn.learn import train
from seqdyn.learn.config import Spec
from seqdyn.measure import units
from seqdyn.measure.view import View
from seqdyn.nets.bptt import Backprop, Tap, unroll, valid_steps
from seqdyn.nets.cells import gru, gru_reset_before, lstm, rnn, step
from seqdyn.nets.inits import constant
from seqdyn.numbers import Numbers

D, H, T, B = 3, 4, 5, 3
F64 = dict(dtype=jnp.float64)
CELLS = {
    "rnn": lambda **kw: rnn(D, H, **kw),
    "rnn relu": lambda **kw: rnn(D, H, "relu", **kw),
    "lstm": lambda **kw: lstm(D, H, **kw),
    "gru": lambda **kw: gru(D, H, **kw),
    "gru_reset_before": lambda **kw: gru_reset_before(D, H, **kw),
}
every_cell = pytest.mark.parametrize("name", CELLS)


def problem(cell, seed=0, batch=(B,), scale=1.0):
    """Random parameters, initial carry and inputs."""
    rng = np.random.default_rng(seed)
    trees = (
        jax.eval_shape(cell.init, jax.random.key(0)),
        cell.initial_carry(batch),
        jax.ShapeDtypeStruct((T, *batch, D), float),
    )
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.standard_normal(leaf.shape)), trees)


def seen(cell, *arguments):
    return compiled(lambda *a: units.activity(cell, *a))(*arguments)


# --- the equations of the papers, in NumPy -------------------------------------------------------------------


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


PHI = {
    "rnn": {"h": np.tanh},
    "rnn relu": {"h": lambda z: np.maximum(z, 0)},
    "lstm": {"i": sigmoid, "f": sigmoid, "o": sigmoid, "g": np.tanh},
    "gru": {"r": sigmoid, "z": sigmoid, "n": np.tanh},
    "gru_reset_before": {"r": sigmoid, "z": sigmoid, "n": np.tanh},
}


def pre_activations(name, p, h, x):
    """z of every gate, by its own block of W, U and b."""
    gates = PHI[name]
    p, x = jax.tree.map(np.asarray, (p, x))
    w, u, b = (dict(zip(gates, np.split(m, len(gates), axis=-1), strict=True)) for m in (p.w, p.u, p.b))
    z = {k: x @ w[k] + h @ u[k] + b[k] for k in gates}
    if "n" in gates:
        r = sigmoid(z["r"])
        recurrent = r * (h @ u["n"] + p.bn) if name == "gru" else (r * h) @ u["n"]
        z["n"] = x @ w["n"] + b["n"] + recurrent
    return z


def advance(v, carry):
    """The new state from the gates' values: (h,) or (c, h)."""
    if "h" in v:
        return (v["h"],)
    if "n" in v:
        return ((1 - v["z"]) * v["n"] + v["z"] * carry[0],)
    c = v["f"] * carry[0] + v["i"] * v["g"]
    return c, v["o"] * np.tanh(c)


def walked(name, params, carry, xs, mask):
    """gate -> z [t, b, h], by a loop over the steps in which padding holds the carry."""
    carry, zs = tuple(np.asarray(part) for part in carry), []
    for x, on in zip(np.asarray(xs), np.asarray(mask), strict=True):
        zs.append(pre_activations(name, params, carry[-1], x))
        new = advance({k: PHI[name][k](z) for k, z in zs[-1].items()}, carry)
        carry = tuple(np.where(on[:, None], n, c) for n, c in zip(new, carry, strict=True))
    return {k: np.stack([z[k] for z in zs]) for k in zs[0]}


@every_cell
def test_values_and_slopes_are_those_of_the_published_equations(name):
    cell = CELLS[name](**F64)
    params, carry, xs = problem(cell)
    mask = valid_steps(jnp.array([5, 2, 4]), T)
    got = seen(cell, params, carry, xs, mask)
    assert set(got) == set(cell.gates)
    e = 1e-6
    for gate, z in walked(name, params, carry, xs, mask).items():
        phi = PHI[name][gate]
        np.testing.assert_allclose(got[gate][0], phi(z), rtol=1e-10, atol=1e-12, err_msg=gate)
        numeric = (phi(z + e) - phi(z - e)) / (2 * e)
        np.testing.assert_allclose(got[gate][1], numeric, rtol=1e-6, atol=1e-9, err_msg=gate)


@every_cell
@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_the_state_rebuilt_from_the_gates_is_the_cells(name, batch):
    cell = CELLS[name](**F64)
    params, carry, xs = problem(cell, batch=batch)
    run = compiled(lambda *a: units.activity(cell, *a)), compiled(lambda *a: step(cell, *a))
    got, state = run[0](params, carry, xs), tuple(carry)
    for t in range(T):
        carry = run[1](params, carry, xs[t])
        state = advance({gate: v[t] for gate, (v, _) in got.items()}, state)
        np.testing.assert_allclose(np.stack(state), np.stack(carry), rtol=1e-10, atol=1e-12)


def test_a_cell_without_units_is_refused_by_name():
    with pytest.raises(ValueError, match=r"gates \('h',\) has no `units`"):
        units.activity(rnn(D, H)._replace(units=None), *problem(rnn(D, H)))


# --- saturation ---------------------------------------------------------------------------------------------


@every_cell
def test_a_margin_is_the_distance_to_the_nearer_end_or_what_a_gradient_keeps(name):
    cell = CELLS[name](**F64)
    params, carry, xs = problem(cell, scale=2.0)
    got = units.margins(seen(cell, params, carry, xs))
    for gate, z in walked(name, params, carry, xs, np.ones((T, B), bool)).items():
        if PHI[name][gate] is sigmoid:
            np.testing.assert_allclose(got[gate], sigmoid(-np.abs(z)), rtol=1e-8, atol=1e-12)
            assert got[gate].min() >= 0 and 0.05 < got[gate].max() <= 0.5
        else:
            slope = 1 - np.tanh(z) ** 2 if PHI[name][gate] is np.tanh else z > 0
            np.testing.assert_allclose(got[gate], slope, rtol=1e-8, atol=1e-12)


# --- dead units ---------------------------------------------------------------------------------------------


def dead(cell, *arguments):
    return np.asarray(compiled(lambda *a: units.dead(units.activity(cell, *a), a[3]))(*arguments))


def test_a_relu_with_a_bias_of_minus_a_hundred_is_dead_and_with_random_weights_as_many_as_are_never_positive():
    cell = rnn(D, H * 8, "relu", **F64)
    params, carry, xs = problem(cell)
    mask = valid_steps(jnp.array([5, 2, 4]), T)
    assert (dead(cell, params._replace(b=jnp.full(H * 8, -100.0)), carry, xs, mask) == 1).all()
    params = params._replace(u=0.1 * params.u, b=params.b - 3.0)
    zs = walked("rnn relu", params, carry, xs, mask)["h"]
    never = np.where(np.asarray(mask)[..., None], zs, -1).max(axis=(0, 1)) <= 0
    np.testing.assert_array_equal(dead(cell, params, carry, xs, mask), never)
    assert 0.1 < never.mean() < 0.9
    assert (dead(cell, params, carry, xs, None) < never).any()  # one that fires on padding alone is dead


def test_a_smooth_unit_is_dead_only_where_its_slope_rounds_to_zero_in_every_gate():
    shut = {"tanh": 1, "softplus": 0, "leaky_relu": 0, "identity": 0}
    for activation, expected in shut.items():
        cell = rnn(D, H, activation, **F64)
        params, carry, xs = problem(cell)
        assert (dead(cell, params, carry, xs, None) == 0).all(), activation
        params = params._replace(b=jnp.full(H, -100.0))
        assert (dead(cell, params, carry, xs, None) == expected).all(), activation
    cell = lstm(D, H, **F64)
    params, carry, xs = problem(cell)
    for gates, expected in (("ifo", 0), ("ifog", 1)):
        b = jnp.concatenate([jnp.full(H, 1e3 * (gate in gates)) for gate in cell.gates])
        assert (dead(cell, params._replace(b=b), carry, xs, None) == expected).all()


# --- time constants -----------------------------------------------------------------------------------------


def tau(cell, *arguments):
    return np.asarray(compiled(lambda *a: units.time_constant(units.activity(cell, *a), a[3]))(*arguments))


@pytest.mark.parametrize("make", [lstm, gru, gru_reset_before])
def test_without_weights_the_time_constant_is_that_of_the_bias(make):
    gate, none = "f" if make is lstm else "z", dict(w=constant(0.0), u=constant(0.0))
    for bias in (-2.0, 0.0, 3.0):
        b = {g: constant(bias if g == gate else 1.0) for g in ("ifog" if make is lstm else "rzn")}
        cell = make(D, H, b=b, **none, **F64)
        _, carry, xs = problem(cell)
        got = tau(cell, cell.init(jax.random.key(0)), carry, xs, None)
        np.testing.assert_allclose(got, -1 / np.log(sigmoid(bias)), rtol=1e-9)


def test_chrono_spreads_the_time_constants_between_one_step_and_the_longest():
    cell = lstm(D, 200, w=constant(0.0), u=constant(0.0), longest=50.0, **F64)
    _, carry, xs = problem(cell)
    got = tau(cell, cell.init(jax.random.key(0)), carry, xs, None)
    assert 1 < got.min() < 4 and 46 < got.max() < 50
    np.testing.assert_allclose(np.mean(got), 25.5, atol=4.0)  # b = log U(1, 49): τ is U + 1/2, nearly


def test_a_time_constant_averages_the_logarithm_over_live_steps_alone():
    cell = lstm(D, H, **F64)
    params, carry, xs = problem(cell)
    mask = valid_steps(jnp.array([5, 2, 4]), T)
    f = sigmoid(walked("lstm", params, carry, xs, mask)["f"])
    expected = -1 / np.log(f[np.asarray(mask)]).mean(axis=0)
    np.testing.assert_allclose(tau(cell, params, carry, xs, mask), expected, rtol=1e-9)
    ever = params._replace(b=jnp.full_like(params.b, 1e3))
    assert (tau(cell, ever, carry, xs, mask) == np.inf).all()
    assert (tau(cell, ever._replace(b=-ever.b), carry, xs, mask) < 0.01).all()
    assert np.isnan(tau(rnn(D, H, **F64), *problem(rnn(D, H, **F64)), mask)).all()


# --- the gradient's paths into c ----------------------------------------------------------------------------


def open_lstm(p, carry, x, before, after):
    """An LSTM whose c_t is perturbed by `before` where h_t reads it, too, and by `after` where only c_{t+1} does."""
    (wi, wf, wo, wg), (ui, uf, uo, ug), (bi, bf, bo, bg) = (jnp.split(m, 4, axis=-1) for m in p)
    c, h = carry
    i, f, o = (jax.nn.sigmoid(x @ w + h @ u + b[None]) for w, u, b in ((wi, ui, bi), (wf, uf, bf), (wo, uo, bo)))
    c = f * c + i * jnp.tanh(x @ wg + h @ ug + bg[None]) + before
    return c + after, o * jnp.tanh(c)


def open_layer(p, carry, xs, mask, before, after):
    """The same over a sequence, a scan that JAX differentiates: (hs, last carry)."""

    def body(carry, inputs):
        x, on, *added = inputs
        new = open_lstm(p, carry, x, *added)
        carry = tuple(jnp.where(on[:, None], n, c) for n, c in zip(new, carry, strict=True))
        return carry, carry[1]

    last, hs = jax.lax.scan(body, carry, (xs, mask, before, after))
    return hs, last


def test_the_paths_are_the_derivatives_by_what_is_added_to_c():
    cell = lstm(D, H, **F64)
    params, carry, xs = problem(cell)
    mask = valid_steps(jnp.array([5, 2, 4]), T)
    weights = jnp.asarray(np.random.default_rng(9).standard_normal((T, B, H)))
    zeros = jnp.zeros((T, B, H))

    def loss(hs, last):
        return jnp.sum(weights * jnp.sin(hs)) + sum(jnp.sum(jnp.cos(part)) for part in last)

    def ours(watch):
        return loss(*unroll(cell, params, carry, xs, Backprop(mask=mask), watch))

    def theirs(before, after):
        return loss(*open_layer(params, tuple(carry), xs, mask, before, after))

    watch = Tap(adjoint=jax.tree.map(lambda part: jnp.zeros((T, *part.shape)), carry))
    adjoint = compiled(jax.grad(ours))(watch).adjoint
    through_c, through_h = compiled(lambda a: units.paths(cell, params, carry, xs, a, mask))(adjoint)
    total, on = compiled(jax.grad(theirs, argnums=(0, 1)))(zeros, zeros)
    assert np.abs(through_h).max() > 0.1 and np.abs(through_c).max() > 0.1
    np.testing.assert_allclose(through_c, on, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(through_c + through_h, total, rtol=1e-9, atol=1e-12)


# --- the probe, on whole networks, which are float32 ---------------------------------------------------------


@pytest.fixture
def single():
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


STEPS = 6
ADDING = Spec(steps=STEPS, batch=4, holdout=4, hidden=(3, 4), u_init="gaussian")
TEXT = dataclasses.replace(
    ADDING, task="labelled", vocabulary=9, embedding=2, cell="lstm", hidden=(3, 2), readout="mean", u_init="gaussian"
)
LENGTHS = np.array([4, 1, 3])
"""Fewer sequences than `Spec.batch`, none as long as `Spec.steps`."""


@cache
def _looks(spec, by):
    def look(numbers, state, batch):
        return units.measure(having(spec, numbers), state, View(batch, None, 1))

    every = {"map": lambda *runs: jax.lax.map(lambda run: look(*run), runs), "vmap": jax.vmap(look)}
    return compiled(every[by])


def looked(spec, *runs, by="map"):
    """The records of the runs, (numbers, state, batch) each, with a leading axis; one program for all tests."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *runs)
    return jax.tree.map(np.asarray, _looks(spec, by)(*stacked))


def begun(spec, seed=0, pad="after"):
    """A run before training, all parameters random, large enough that gates differ, and a batch to see it on."""
    numbers, rng = Numbers(seed=seed).arrays(), np.random.default_rng(seed)
    shapes = jax.eval_shape(over(train.init, spec), numbers)
    state = jax.tree.map(lambda leaf: 1.2 * rng.standard_normal(leaf.shape).astype(leaf.dtype), shapes)
    ys = np.array([1.0, 0.0, 1.0], np.float32)
    if spec.task == "adding":
        return numbers, state, Batch(rng.random((STEPS, 3, 2)).astype(np.float32), ys)
    mask = np.asarray(valid_steps(jnp.asarray(LENGTHS), STEPS, pad))
    ids = np.where(mask, rng.integers(1, spec.vocabulary, mask.shape), 0).astype(np.int32)
    return numbers, state, Batch(ids, ys, mask)


def broken(spec):
    """The same with NaN for every parameter."""
    numbers, state, batch = begun(spec)
    nan = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), state.params)
    return numbers, state._replace(params=nan), batch


def by_hand(params, batch, before, after):
    """Sum of the examples' losses of TEXT, and every layer's inputs, by loops."""
    xs, inputs = params.embedding[batch.xs], []
    for layer, b, a in zip(params.layers, before, after, strict=True):
        inputs.append(xs)
        rest = jnp.zeros((3, layer.u.shape[0]), xs.dtype)
        xs, _ = open_layer(layer, (rest, rest), xs, batch.mask, b, a)
    mean = sum(jnp.where(on[:, None], h, 0) for on, h in zip(batch.mask, xs, strict=True))
    p = (mean / jnp.asarray(LENGTHS, xs.dtype)[:, None] @ params.readout.w)[:, 0] + params.readout.b
    return jnp.sum(jnp.log(1 + jnp.exp((1 - 2 * batch.ys) * p))), inputs


def ended(readings, pad):
    """[t, b] -> [t]: means over the examples that reach a lag, by loops; NaN where none does."""
    means = []
    for lag in range(STEPS - 1, -1, -1):
        last = LENGTHS - 1 if pad == "after" else [STEPS - 1] * 3
        means.append(np.mean([readings[last[b] - lag, b] for b, n in enumerate(LENGTHS) if lag < n] or [np.nan]))
    return np.array(means)


@pytest.mark.slow
def test_the_probe_of_a_padded_two_layer_lstm_equals_loops(single):
    runs = {pad: begun(TEXT, pad=pad) for pad in ("after", "before")}
    both = looked(TEXT, *runs.values())
    zeros = tuple(jnp.zeros((STEPS, 3, h)) for h in TEXT.hidden)
    gradients = compiled(jax.grad(by_hand, argnums=(2, 3), has_aux=True))
    for run, (pad, (_, state, batch)) in enumerate(runs.items()):
        got = {name: v[run] for name, v in both.items()}
        state, batch = jax.tree.map(jnp.asarray, (state, batch))
        (total, on), inputs = gradients(state.params, batch, zeros, zeros)
        for i, h in enumerate(TEXT.hidden):
            zs = walked("lstm", state.params.layers[i], [np.zeros((3, h))] * 2, inputs[i], batch.mask)
            for g, gate in enumerate("ifog"):
                v = PHI["lstm"][gate](zs[gate].astype(float))
                margin = 1 - v**2 if gate == "g" else np.minimum(v, 1 - v)
                expected = {"gate_mean": v, "saturation_margin": margin, "saturated": margin < 0.1}
                for name, reading in expected.items():
                    expect = ended(reading.mean(axis=-1), pad)
                    np.testing.assert_allclose(got[name][i, g], expect, rtol=2e-4, err_msg=name)
            f = sigmoid(zs["f"])[np.asarray(batch.mask)]
            np.testing.assert_allclose(got["time_constant"][i, :h], -1 / np.log(f).mean(axis=0), rtol=1e-4)
            for name, part in {"adjoint_c_through_c": on[i], "adjoint_c_through_h": total[i] - on[i]}.items():
                expect = np.sqrt(ended(np.square(part).sum(axis=-1), pad))
                np.testing.assert_allclose(got[name][i], expect, rtol=1e-3, atol=1e-7, err_msg=name)
        assert 0 < np.nanmean(got["saturated"]) < 1
        assert np.isnan(got["gate_mean"]).sum() == 2 * 4 * 2 and np.isnan(got["adjoint_c_through_c"]).sum() == 2 * 2
        assert (got["dead_fraction"] == 0).all()


RNN, GRU, CHO = (dataclasses.replace(ADDING, cell=c, activation="relu") for c in ("rnn", "gru", "gru_reset_before"))


@pytest.mark.parametrize("spec, gates", [(RNN, 1), (GRU, 3), (CHO, 3), (TEXT, 4)])
def test_every_cell_is_looked_at_what_it_lacks_is_nan_and_so_is_all_of_a_broken_run(spec, gates, single):
    whole = looked(spec, begun(spec), broken(spec))
    assert {k: v.shape[1:] for k, v in whole.items()} == {
        "gate_mean": (2, gates, STEPS),
        "saturation_margin": (2, gates, STEPS),
        "saturated": (2, gates, STEPS),
        "dead_fraction": (2,),
        "time_constant": (2, max(spec.hidden)),
        "adjoint_c_through_c": (2, STEPS),
        "adjoint_c_through_h": (2, STEPS),
    }
    for name, (sound, nan) in whole.items():
        lacks = (name == "time_constant" and spec is RNN) or ("_c_" in name and spec is not TEXT)
        assert np.isnan(sound).all() if lacks else np.isfinite(sound).any(), name
        # No loss reads c: at the last step its adjoint is 0 whatever the parameters are.
        end = -1 if name == "adjoint_c_through_c" and spec is TEXT else None
        assert np.isnan(nan[..., :end]).all(), name
    beyond = np.arange(max(spec.hidden)) >= np.array(spec.hidden)[:, None]
    assert spec is RNN or (np.isnan(whole["time_constant"][0]) == beyond).all()


def test_dead_units_of_a_network_are_counted_layer_by_layer(single):
    numbers, state, batch = begun(RNN)
    low, high = state.params.layers
    layers = (
        low._replace(u=0 * low.u, b=low.b + 50),
        high._replace(u=0 * high.u, b=np.array([-1e3, 1e3, 1e3, -1e3], np.float32)),
    )
    run = numbers, state._replace(params=state.params._replace(layers=layers)), batch
    got = looked(RNN, run, run)
    np.testing.assert_allclose(got["dead_fraction"], [[0.0, 0.5]] * 2)
    np.testing.assert_allclose(got["saturated"][:, 1, 0], 0.5)


@pytest.mark.slow
def test_vmap_and_map_agree_and_runs_differ(single):
    spec = dataclasses.replace(TEXT, hidden=(3,))
    runs = begun(spec), begun(spec, seed=1)
    mapped, vmapped = (looked(spec, *runs, by=by) for by in ("map", "vmap"))
    for name, v in mapped.items():
        np.testing.assert_allclose(vmapped[name], v, rtol=1e-4, atol=1e-6, err_msg=name)
        assert name == "dead_fraction" or not np.allclose(*v, equal_nan=True), name
