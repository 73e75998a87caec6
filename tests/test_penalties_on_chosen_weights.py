"""Laws of penalties on chosen matrices: each ends where its closed form says, gates are those of their paper."""

import dataclasses
import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _training import assert_descends, first_batch, having, scene, start

from seqdyn.backend import compiled
from seqdyn.data.batches import Batch
from seqdyn.data.tasks import TASKS
from seqdyn.data.text import Examples
from seqdyn.learn import model, penalties, train
from seqdyn.learn.config import Experiment, Spec, experiment_from, grid
from seqdyn.learn.terms import Pass
from seqdyn.measure import flossing, probes
from seqdyn.nets import hard_concrete
from seqdyn.numbers import Numbers
from seqdyn.runs import axes, sweep
from seqdyn.runs.records import VARIABLES
from seqdyn.types import ConfigError

X64 = False
GATED = Spec(steps=7, batch=3, hidden=(5,), penalties=("l0",))


def setting(spec, data=None, **numbers):
    h = Numbers(**numbers).arrays()
    state = flossing.init(having(spec, h), data)
    return h, state, first_batch(spec, h, data)


# --- a linear problem ---------------------------------------------------------------------------------------

N, D = 40, 6
SHARED = dict(task="labelled", steps=2, batch=N, features=D, classes=0, mask=False, optimizer="sgd")
LINEAR = Spec(**SHARED, cell="dense", activation="identity", hidden=(D,), w_init="identity", penalised=("readout",))
"""Its readout sees the numbers of the last step as they are."""


def problem():
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(N, 2, D)).astype(np.float32)
    ys = xs[:, 1] @ [2.0, -1.0, 0.5, 0, 0, 0.05] + 0.7 + 0.3 * rng.normal(size=N)
    return {"train": Examples(xs, np.full(N, 2, np.int32), ys.astype(np.float32))}


@cache
def descent(names):
    """Full-batch descent with all but the readout frozen, compiled: the same for every weight."""
    spec = dataclasses.replace(LINEAR, penalties=names)

    def end(h, data):
        _, state, batch = setting(spec, data)
        params = state.params._replace(layers=(state.params.layers[0]._replace(w=jnp.eye(D)),))

        def body(state, _):
            grads = train.gradient(having(spec, h), state.params, batch).grads
            frozen = jax.tree.map(jnp.zeros_like, grads)._replace(readout=grads.readout)
            move = train.optimizer_step(having(spec, h), state, frozen)
            return state._replace(params=jax.tree.map(jnp.add, state.params, move.updates)), None

        return jax.lax.scan(body, state._replace(params=params), length=1500)[0].params.readout

    return compiled(end)


def fitted(names, **weights):
    """(coefficients, intercept) of the readout, in float64."""
    end = descent(names)(Numbers(lr=0.1, **weights).arrays(), jax.tree.map(jnp.asarray, problem()))
    return np.asarray(end.w, np.float64)[:, 0], float(end.b[0])


def slopes(w, intercept):
    """Of mean (y − p)² by each coefficient and by the intercept, in float64."""
    of = problem()["train"]
    x, y = of.xs[:, 1].astype(np.float64), of.ys.astype(np.float64)
    apart = x @ w + intercept - y
    return 2 * x.T @ apart / N, 2 * apart.mean()


def test_ridge_ends_at_its_closed_form():
    got, intercept = fitted(("l1_proximal", "l2"), l2=0.5)
    of = problem()["train"]
    x, y = of.xs[:, 1].astype(np.float64), of.ys.astype(np.float64)
    x, y = x - x.mean(0), y - y.mean()
    np.testing.assert_allclose(got, np.linalg.solve(x.T @ x + N * 0.5 / 2 * np.eye(D), x.T @ y), atol=1e-5)
    by_w, by_b = slopes(got, intercept)
    assert np.abs(by_w + 0.5 * got).max() < 1e-5 and abs(by_b) < 1e-5
    assert np.abs(got - np.linalg.solve(x.T @ x, x.T @ y)).max() > 0.1


@pytest.mark.parametrize("l2", [0.0, 0.4])
def test_the_proximal_step_ends_where_lasso_and_elastic_net_have_their_optimum_with_its_zeros(l2):
    """The optimum of mean (y − p)² + λ Σ|w| + ½ l2 Σw² is where no subgradient is left: ∂ + l2 w = −λ sign w for
    weights that are there, and at most λ in size where w = 0. It is unique, for the problem is strictly convex."""
    got, intercept = fitted(("l1_proximal", "l2"), l1_proximal=0.3, l2=l2)
    by_w, by_b = slopes(got, intercept)
    smooth, there = by_w + l2 * got, got != 0
    assert 1 <= (~there).sum() < D
    np.testing.assert_allclose(smooth[there], -0.3 * np.sign(got[there]), atol=1e-5)
    assert (np.abs(smooth[~there]) < 0.3).all() and abs(by_b) < 1e-5


def test_the_subgradient_comes_near_the_lasso_and_has_no_zeros():
    got, _ = fitted(("l1", "l2"), l1=0.3)
    lasso, _ = fitted(("l1_proximal", "l2"), l1_proximal=0.3)
    np.testing.assert_allclose(got, lasso, atol=0.1 * 0.3)  # it steps lr λ to and fro
    assert (got != 0).all()


# --- decay --------------------------------------------------------------------------------------------------


@cache
def second_update(spec):
    """(numbers, state) -> the second update from its parameters, compiled: at the first Adam sees signs alone."""

    def run(h, state):
        batch = first_batch(spec, h)
        grads = train.gradient(having(spec, h), state.params, batch).grads
        first = train.optimizer_step(having(spec, h), state, grads)
        return train.optimizer_step(having(spec, h), state._replace(opt=first.opt), grads).updates

    return compiled(run)


def added_by(optimizer, name, penalised=("input", "recurrent", "readout")):
    """(parameters, what this λ = 0.2 adds to an update)."""
    spec = Spec(steps=3, batch=3, hidden=(5,), optimizer=optimizer, penalised=penalised)
    spec = dataclasses.replace(spec, penalties=() if name == "weight_decay" else (name,))
    state = start(spec)
    moved, plain = (second_update(spec)(Numbers(lr=0.1, **{name: w}).arrays(), state) for w in (0.2, 0.0))
    return state.params, jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), moved, plain)


def test_l2_is_decoupled_decay_under_plain_descent_and_not_under_adam():
    params, decay = added_by("adamw", "weight_decay")
    shares = [params.layers[0].w, params.layers[0].u, params.readout.w]
    decays = [decay.layers[0].w, decay.layers[0].u, decay.readout.w]
    for w, d in zip(shares, decays, strict=True):
        np.testing.assert_allclose(d, -0.1 * 0.2 * np.asarray(w), atol=1e-6)
    assert (decay.layers[0].b == 0).all() and (decay.readout.b == 0).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), added_by("sgd", "l2")[1], decay)
    under_adam = added_by("adam", "l2")[1]
    assert np.abs(under_adam.layers[0].u - decay.layers[0].u).max() > 0.5 * np.abs(decay.layers[0].u).max()


def test_a_group_decays_alone():
    _, decay = added_by("adamw", "weight_decay", ("recurrent",))
    assert (np.abs(decay.layers[0].u) > 1e-4).any()
    assert all((d == 0).all() for d in (decay.layers[0].w, decay.layers[0].b, decay.readout.w, decay.readout.b))


# --- which matrices -----------------------------------------------------------------------------------------

TEXT = Spec("labelled", 4, 3, vocabulary=7, embedding=2, cell="lstm", hidden=(5, 3), penalties=("l2",))
GROUPS = {
    "input": ["layer0/w", "layer1/w"],
    "recurrent": ["layer0/u", "layer1/u"],
    "readout": ["readout/w"],
    "embedding": ["embedding"],
}


NOTHING = Batch(jnp.zeros((1, 1, 1)), jnp.zeros(1))
"""Terms of the weights do not look at it."""


@pytest.mark.parametrize("word", GROUPS)
def test_each_word_penalises_its_matrices_and_no_others(word):
    spec = dataclasses.replace(TEXT, penalised=(word,))
    params = start(spec).params
    assert list(model.matrices(spec, params)) == GROUPS[word]
    grads = compiled(jax.grad(lambda m: penalties.L2().value(Pass(spec, m, NOTHING))))(params)
    jax.tree.map(
        lambda counted, g, p: np.testing.assert_array_equal(g, p if counted else 0),
        penalties.counts(spec, params),
        grads,
        params,
    )
    assert sum(jax.tree.leaves(penalties.counts(spec, params))) == len(GROUPS[word])


def test_by_default_all_but_the_embedding_is_penalised():
    params = start(TEXT).params
    assert list(model.matrices(TEXT, params)) == ["layer0/w", "layer0/u", "layer1/w", "layer1/u", "readout/w"]


# --- gates --------------------------------------------------------------------------------------------------


def test_gates_are_their_formulas():
    log_alpha = np.linspace(-6, 6, 25, dtype=np.float32)
    sigma = 1 / (1 + np.exp(-log_alpha))
    np.testing.assert_allclose(hard_concrete.gate(jnp.asarray(log_alpha)), np.clip(1.2 * sigma - 0.1, 0, 1), atol=1e-6)
    u = 1 / (1 + np.exp(-np.asarray(jax.random.logistic(jax.random.key(3), (25,)), np.float64)))
    s = 1 / (1 + np.exp(-(np.log(u) - np.log(1 - u) + log_alpha) * 1.5))
    got = hard_concrete.gate(jnp.asarray(log_alpha), jax.random.key(3))
    np.testing.assert_allclose(got, np.clip(1.2 * s - 0.1, 0, 1), atol=1e-5)
    assert (got == 0).any() and (got == 1).any()


def test_the_expected_count_is_the_mean_of_what_is_drawn():

    @compiled
    def gates(log_alpha):
        drawn = jax.vmap(lambda k: hard_concrete.gate(log_alpha, k))(jax.random.split(jax.random.key(0), 20_000))
        return drawn, hard_concrete.expected(log_alpha)

    drawn, likely = map(np.asarray, gates(np.linspace(-4, 4, 9, dtype=np.float32)))
    share = np.mean(drawn != 0, axis=0)
    error = np.sqrt(share * (1 - share) / 20_000)
    assert (np.abs(likely - share) < 4 * error + 1e-4).all()
    spec = dataclasses.replace(GATED, hidden=(9,))
    params = start(spec).params
    params = params._replace(log_alpha={k: np.asarray(a) - 0.6 for k, a in params.log_alpha.items()})

    def count(params, key):
        acting = model.acting_params(spec, params, key)
        return sum(jnp.sum(w != 0).astype(jnp.float32) for w in model.matrices(spec, acting).values())

    @compiled
    def both(params):
        each = jax.vmap(lambda key: count(params, key))(jax.random.split(jax.random.key(1), 2000))
        return each, penalties.L0().value(Pass(spec, params, NOTHING))

    counts, expected = map(np.asarray, both(params))
    assert abs(counts.mean() - expected) < 4 * counts.std() / math.sqrt(2000)
    assert 20 < expected < 0.8 * sum(a.size for a in params.log_alpha.values())


def test_gates_begin_open_and_leave_the_weights_as_they_were():
    bare = dataclasses.replace(GATED, penalties=())

    @compiled
    def begun(h):
        params, plain = (model.init(having(spec, h), train.keys(having(spec, h)).params) for spec in (GATED, bare))
        acting = model.acting_params(GATED, params)
        return params, plain, *(model.matrices(GATED, weights) for weights in (plain, acting))

    params, plain, whole, acting = jax.tree.map(np.asarray, begun(Numbers().arrays()))
    jax.tree.map(np.testing.assert_array_equal, params._replace(log_alpha=None), plain)
    assert set(params.log_alpha) == set(whole) == set(acting)
    for name, w in acting.items():
        np.testing.assert_allclose(w, 0.98 * whole[name], rtol=3e-3)


@pytest.mark.parametrize("changes", [dict(cell="gru"), dict(normalise="layer")], ids=["gru", "layer norm"])
def test_the_gradient_through_the_gates_is_autodiffs(changes):
    spec = dataclasses.replace(GATED, steps=5, optimizer="sgd", **changes)
    params = start(spec).params
    state = start(spec)._replace(params=params._replace(log_alpha=jax.tree.map(lambda a: a + 1, params.log_alpha)))
    assert_descends(spec, state=state)


def test_the_gradient_of_a_gate_is_what_moving_it_does():
    """At one draw of the noise; and the penalty adds λ times its own."""
    h, state, batch = scene(GATED)
    batch, name = batch._replace(noise=jax.random.key(5)), "layer0/u"
    gradient = compiled(lambda h: train.gradient(having(GATED, h), state.params, batch).grads.log_alpha)
    loss = compiled(lambda a: model.loss(having(GATED, h), state.params._replace(log_alpha=a), batch))
    before = gradient(h)
    assert all((np.abs(g) > 0).any() for g in before.values())
    i, j = np.unravel_index(np.argmax(np.abs(before[name])), before[name].shape)

    def at(step):
        return float(loss(state.params.log_alpha | {name: state.params.log_alpha[name].at[i, j].add(step)}))

    np.testing.assert_allclose(before[name][i, j], (at(1e-2) - at(-1e-2)) / 2e-2, rtol=1e-2)
    extra = gradient(Numbers(l0=0.5).arrays())[name] - before[name]
    p = np.asarray(hard_concrete.expected(state.params.log_alpha[name]))
    np.testing.assert_allclose(extra, 0.5 * p * (1 - p), rtol=1e-3)


def test_every_update_draws_its_gates_anew_and_evaluation_draws_none():
    plain, h = dataclasses.replace(GATED, penalties=()), Numbers().arrays()

    @compiled
    def losses(params, n):
        ticket = train.batch_index(having(GATED, h), None, jnp.int32(0))
        batch = train.sample(having(GATED, h), None, ticket, n)
        whole = batch._replace(noise=None)
        acting = model.loss(having(plain, h), model.acting_params(GATED, params), whole)
        return model.loss(having(GATED, h), params, batch), model.loss(having(GATED, h), params, whole), acting

    params = start(GATED).params
    first, again, second = (losses(params, np.int32(n)) for n in (0, 0, 1))
    assert first[0] == again[0] and first[1] == second[1] and len({*map(float, (first[0], second[0], first[1]))}) == 3
    np.testing.assert_allclose(first[1], first[2], rtol=1e-5)


@pytest.mark.slow
def test_instruments_see_the_network_as_it_acts():
    """Its gates acting, it is read as a network without gates that has those weights."""
    spec = dataclasses.replace(GATED, cell="lstm", steps=6)
    plain = dataclasses.replace(spec, penalties=())
    e = Experiment(
        "x", (spec,), grid(), 4, 4, 4, probes=("weights", "units", "jacobians", "lyapunov"), diagnostic=3, modes=4
    )
    h, state = Numbers().arrays(), start(spec)
    some = {k: a.at[::2].add(-9.0) for k, a in state.params.log_alpha.items()}
    state = state._replace(params=state.params._replace(log_alpha=some))
    acting = start(plain)._replace(params=compiled(lambda params: model.acting_params(spec, params))(state.params))
    seen, same = (
        compiled(lambda h, s, one=one: probes.measure(having(one, h), e.probe_config, s, None))(h, s)
        for one, s in ((spec, state), (plain, acting))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), seen, same)
    assert (np.asarray(seen["weights"]["layer0"])[:, ::2] == 0).all()


@pytest.mark.slow
def test_flossing_flosses_the_network_as_it_acts():
    spec = dataclasses.replace(GATED, floss=2, floss_steps=100)
    plain = dataclasses.replace(spec, penalties=(), floss=0)
    h = Numbers(gain=0.5).arrays()
    (cell,) = model.layers(having(plain, h))

    @compiled
    def both(h):
        xs, found = TASKS["adding"](plain).diagnostic(None, train.keys(having(plain, h)).data, "holdout", 3).xs, []
        for one in (dataclasses.replace(spec, floss=0), spec):
            state = flossing.init(having(one, h))
            acting = model.acting_params(spec, state.params).layers[0]
            found.append((state, flossing.exponents_square(cell, acting, xs, jax.random.key(0), 2)))
        return found

    with jax.numpy_dtype_promotion("standard"):
        (before, slow), (after, fast) = both(h)
    assert fast < 0.5 * slow
    assert set(after.params.log_alpha) == set(before.params.log_alpha)


# --- training -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "weights"), [("l0", [0.0, 0.05]), ("l1_proximal", [0.0, 0.2])])
def test_a_weight_is_a_number_of_the_grid_and_leaves_fewer_weights(name, weights):
    """One program for all λ; at the larger one weights are gone, exactly, and are counted by their groups."""
    spec = dataclasses.replace(GATED, penalties=(name,))
    e = Experiment("x", (spec,), grid(**{name: weights}, lr=0.05), 200, 100, 200, tile=2)
    programs = sweep.programs(spec, 1)
    (tile,) = e.layout.tiles
    runs = sweep.tile_runs(e, tile)
    states = programs.init(runs, sweep.real(e, tile), None)
    for _ in range(2):
        states, metrics = programs.chunk(runs, states, None, 100)
    programs.chunk(runs.having(**{name: runs.numbers.lr}), states, None, 100)
    assert programs.chunk._cache_size() == 1
    assert metrics["finite"].all() and set(metrics) <= set(VARIABLES)
    counts = np.asarray(programs.evaluate(runs, states, None)["group_nonzero"])
    groups = axes.axis_labels(spec)["group"]
    assert counts.shape == (2, len(groups))
    of = dict(zip(groups, counts.T, strict=True))
    assert of["layer0/u"][0] == 25 and of["layer0/u"][1] < 20
    acting = model.acting_params(spec, jax.tree.map(lambda leaf: leaf[1], states.params))
    assert of["layer0/u"][1] == np.sum(np.asarray(acting.layers[0].u) != 0)
    value = np.asarray(metrics[f"penalty_{name}"])
    assert value[1, -1] < 0.8 * value[0, -1]
    if name == "l0":
        assert of["log_alpha"][1] == sum(np.sum(np.asarray(w) != 0) for w in model.matrices(spec, acting).values())


# --- bad input ----------------------------------------------------------------------------------------------


def experiment(spec, **numbers):
    return Experiment("x", (spec,), grid(**numbers), updates=4, chunk=2, probe_every=2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(penalised=()), ["penalised", "()", "one or more", "readout"]),
        (dict(penalised=("bias",)), ["penalised", "bias", "input, recurrent"]),
        (dict(penalised=("input", "input")), ["penalised", "different"]),
        (dict(penalised="input"), ["penalised", "'input'", "tuple"]),
        (dict(penalised=("embedding",)), ["penalised", "embedding is 0"]),
        (dict(penalised=("recurrent",), cell="dense"), ["recurrent", "dense"]),
        (dict(penalised=("readout",), penalties=()), ["penalised", "readout", "adamw", "l2"]),
        (dict(penalties=("l1", "l1_proximal")), ["l1", "l1_proximal", "take one"]),
        (dict(penalties=("l0", "l1_proximal")), ["l0", "l1_proximal", "gate"]),
        (dict(penalties=("l0", "omega")), ["l0", "omega", "gates"]),
        (dict(penalties=("l0", "orthogonality")), ["l0", "orthogonality", "take one"]),
    ],
    ids=str,
)
def test_what_has_no_meaning_is_said_in_a_sentence(changes, said):
    with pytest.raises(ConfigError) as raised:
        experiment(Spec(**{"penalties": ("l2",), **changes}))
    assert all(word in str(raised.value) for word in said), raised.value
    assert str(raised.value).count("\n") == 0


@pytest.mark.parametrize("name", ["l0", "l1_proximal", "weight_decay"])
def test_a_weight_is_not_negative_and_not_in_vain(name):
    with pytest.raises(ConfigError, match=f"{name} is -1"):
        grid(**{name: -1})
    with pytest.raises(ConfigError, match=f"{name} is 0.5; no spec has"):
        experiment(Spec(), **{name: 0.5})


def test_an_experiment_is_written_down_with_what_it_penalises():
    e = experiment(dataclasses.replace(GATED, penalised=("recurrent", "readout")), l0=[0.0, 1.0])
    assert experiment_from(e.describe()).describe() == e.describe()
    assert experiment_from(e.describe()).specs == e.specs
