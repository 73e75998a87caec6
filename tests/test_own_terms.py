"""Laws of users' terms of the objective: each has its true gradient, is recorded, and at weight 0 only measured."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _digests import digests
from _network import RESIDUAL
from _own import SPEC as OWN
from _processes import Process
from _programs import program
from _refusals import refusal
from _terms import SPEC, Aligned, Flat, Fourth, Readout, experiment
from _training import first_batch, having, start

import seqdyn as sd
from seqdyn.learn import objective, verify
from seqdyn.nets import cells
from seqdyn.numbers import Numbers
from seqdyn.runs import sweep

X64 = False
run = partial(sd.run, verify=False)
TERMS = (Flat(0.0), Aligned(0.0), Fourth(0.0), Readout(0.0))


# --- gradients --------------------------------------------------------------------------------------------------


def plainly(params, batch):
    """Value and gradient of each of `TERMS` in float64: a plain scan, its adjoints those of zeros added to h."""
    cell, mask = cells.lstm(2, 3, dtype=jnp.float64), np.asarray(batch.mask)
    steps, size = mask.shape

    def loss(zeros, params):
        rest = jax.tree.map(lambda leaf: leaf.astype(float), cell.initial_carry((size,)))

        def step(carry, at):
            x, on, zero = at
            drive = cell.input_projection(params.layers[0], x[None])[0]
            new = cell.nonlinearity(
                params.layers[0], carry, drive, cell.recurrent_projection(params.layers[0], carry.h)
            )[0]
            new = new._replace(h=new.h + zero)
            carry = jax.tree.map(lambda n, o: jnp.where(on[:, None], n, o), new, carry)
            return carry, carry.h

        last, hs = jax.lax.scan(step, rest, (batch.xs, mask, zeros))
        predictions = last.h @ params.readout.w + params.readout.b[None]
        return jnp.mean((predictions - batch.ys.reshape(-1, 1)) ** 2) * size, hs

    adjoints = jax.grad(loss, has_aux=True)

    def flat(params):
        lam = adjoints(jnp.zeros((steps, size, 3)), params)[0]
        log2 = 0.5 * jnp.log2(jnp.sum(jnp.where(mask[..., None], lam, 1) ** 2, axis=-1))
        both = mask[1:] & mask[:-1]
        return jnp.sum(jnp.where(both, log2[1:] - log2[:-1], 0) ** 2) / jnp.sum(both)

    def aligned(params):
        lam, hs = jax.lax.stop_gradient(adjoints(jnp.zeros((steps, size, 3)), params))
        return jnp.sum(params.layers[0].u[:, :3] * jnp.einsum("tbi,tbj->ij", lam, hs))

    def fourth(params):
        return jnp.sum(jnp.where(mask[..., None], loss(jnp.zeros((steps, size, 3)), params)[1], 0) ** 4)

    each = (flat, aligned, fourth, lambda params: jnp.sum(params.readout.w**2))
    return jax.jit(lambda params: [jax.value_and_grad(of)(params) for of in each])(params)


def test_each_term_has_the_gradient_of_autodiff_through_what_it_reads():
    """Of an LSTM, on sequences of several lengths: alone at weight 1, minus that where all weights are 0."""
    spec = dataclasses.replace(SPEC, cell="lstm", shortest=3, penalties=TERMS)
    h, params = Numbers().arrays(), start(spec).params
    batch = program(lambda h: first_batch(spec, h))(h)

    @program
    def gradient(terms, params, batch):
        found = objective.gradient(having(dataclasses.replace(spec, penalties=terms), h), params, batch)
        return found.grads, found.penalties

    none, values = gradient(TERMS, params, batch)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        double = jax.tree.map(lambda leaf: np.asarray(leaf, float), (params, batch._replace(mask=None)))
        right = plainly(double[0], double[1]._replace(mask=batch.mask))
    assert not np.asarray(batch.mask).all()
    for i, (name, (value, wanted)) in enumerate(zip(["Flat", "Aligned", "Fourth", "square"], right, strict=True)):
        only = tuple(dataclasses.replace(t, weight=float(i == j)) for j, t in enumerate(TERMS))
        alone, _ = gradient(only, params, batch)
        found = jax.tree.map(np.subtract, alone, none)
        size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
        assert size > 1e-3
        jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=2e-5 * max(size, 1)), found, wanted)
        np.testing.assert_allclose(values[name], value, rtol=1e-5)


# --- runs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What the script makes here."""
    return run(experiment(), tmp_path_factory.mktemp("here") / "out")


def test_at_weight_0_a_term_is_measured_and_changes_no_bit(out, tmp_path):
    records, params = digests(run(experiment(dataclasses.replace(SPEC, penalties=()), seeds=2), tmp_path / "plain"))
    measured, others = digests(out)
    assert set(measured) - set(records) == {"penalty_l2", "penalty_omega", "penalty_Flat"}
    assert others[:2] == params and not {*others[2:]} & {*params}
    ds = sd.load(out).load().isel(run=slice(0, 2))
    assert all(np.asarray(ds[name]).tobytes() == records[name] for name in records)


@pytest.mark.slow
def test_other_weights_compile_nothing_and_another_word_is_another_program(out, tmp_path):
    run(experiment(seeds=[6], weight=2.0), tmp_path / "before")  # programs are dropped where memory is short
    known = [p._cache_size() for p in sweep.programs(SPEC, 1)]
    other = dataclasses.replace(SPEC, penalties=("l2", "omega", Flat(3.0)))
    run(experiment(other, seeds=[1], l2=0.5), tmp_path / "other")
    assert [p._cache_size() for p in sweep.programs(SPEC, 1)] == known and known[1] > 0
    swapped = dataclasses.replace(SPEC, penalties=("l1", "omega", Flat()))
    assert len({jax.tree.structure(spec) for spec in (SPEC, other, swapped)}) == 2


def test_a_word_beside_parts_is_structure():
    doubled = jax.tree.map(lambda number: 2 * number, SPEC)
    assert doubled.penalties == ("l2", "omega", Flat(0.2)) and jax.tree.leaves(SPEC.penalties[-1]) == [0.1]
    assert dataclasses.replace(SPEC, penalties=Flat()) == dataclasses.replace(SPEC, penalties=[Flat()])


def test_what_a_term_was_is_recorded_by_its_name_beside_its_weight(out):
    ds = sd.load(out)
    assert ds.penalty_Flat.dims == ("run", "step") and ds.penalty_Flat.attrs["long_name"] == "Flat, before its weight"
    assert ds["weight"].values.tolist() == [0.0, 0.0, 0.5, 0.5]
    assert np.isfinite(ds.penalty_Flat).all() and not np.array_equal(ds.penalty_Flat[0], ds.penalty_Flat[2])


def test_a_changed_term_is_refused_by_its_path(out):
    changed = experiment(seeds=2, weight=[0.0, 0.6])
    assert "specs[0].penalties[2].weight" in refusal(run, changed, out)
    other = experiment(dataclasses.replace(SPEC, penalties=("l2", "omega", Fourth())), seeds=2, weight=[0.0, 0.5])
    assert "specs[0].penalties[2].part is _terms:Flat there and _terms:Fourth here" in refusal(run, other, out)
    run(experiment(), out)


@pytest.mark.slow
def test_the_example_says_what_each_weight_leaves(tmp_path):
    process = Process(["experiments/own/flat_adjoints.py", tmp_path / "out", "--smoke"], cwd=tmp_path)
    said = process.finish()
    assert process.returncode == 0, said
    assert [line.split(":")[0] for line in said.splitlines()[-2:]] == ["weight 0", "weight 0.1"], said


# --- verified ---------------------------------------------------------------------------------------------------


def term(value, reads="adjoints", **more):
    """A part with these in its class."""

    @sd.part
    class Made:
        weight: sd.Number = sd.number(0.1)

    for name, given in {"value": value, "reads": reads, **more}.items():
        setattr(Made, name, given)
    return Made()


def told(made, **fields):
    """The error of one term alone."""
    spec = dataclasses.replace(SPEC, penalties=(made,), **fields)
    first = sd.grid(spec).at(0).arrays()
    return verify.term_error(first.penalties[0], first, None)


def test_a_true_zero_is_no_fault_and_a_term_that_nothing_reaches_is_named():
    """Of all parameters under a hinge. By the code, whatever the numbers are."""
    assert told(term(lambda self, seen: jnp.maximum(jnp.mean(seen.layers[0].states) - 9, 0), "states")) == 0
    held = term(lambda self, seen: jax.lax.stop_gradient(jnp.sum(seen.layers[0].log2)))
    assert "penalties has Made" in refusal(told, held) and "nothing that is trained" in refusal(told, held)
    assert "nothing that is trained" in refusal(
        told, term(lambda self, seen: jnp.sum(seen.layers[0].states > 0), "states")
    )
    assert "nothing that is trained" in refusal(
        told, term(lambda self, seen: jnp.sum(seen.layers[0].log2), detached=True)
    )
    broken = term(lambda self, seen: jnp.sqrt(0 * jnp.sum(seen.params.readout.w)), "weights")
    assert "gradient is not finite" in refusal(told, broken)


@pytest.mark.slow
def test_a_pull_that_is_no_derivative_is_found_in_a_term():
    @sd.part
    class Wrong:
        def build(self, inputs):
            right = cells.rnn(inputs, 3)
            return right._replace(
                vjp=lambda adjoint, partials: (
                    *right.vjp(adjoint, partials)[:1],
                    adjoint.h,
                    None,
                )
            )

    for made in (Fourth(), Flat()):
        with pytest.raises(RuntimeError, match=f"penalties has {type(made).__name__}, whose gradient is .* away from"):
            told(made, layers=(Wrong(),), hidden=(32,))


# --- what is refused --------------------------------------------------------------------------------------------


@sd.part
class Bare:
    reads = "weights"

    def value(self, seen):
        return 0.0


ONE = term(lambda self, seen: jnp.sum(seen.params.readout.w), "weights")


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(penalties=(Flat,)), "penalties[0] class Flat"),
        (dict(penalties=(len,)), "penalties[0] len value() part"),
        (dict(penalties=("l2", OWN.records[0])), "penalties[1] Reach value()"),
        (dict(penalties=("l2", Bare())), "penalties[1] Bare weight sd.number"),
        (dict(penalties=("l3", Flat())), "penalties 'l3' l2 parts"),
        (dict(penalties=(3,)), "penalties (3,) tuple"),
        (dict(penalties=term(lambda self, seen: 0.0, "grads")), "penalties[0] Made 'grads' weights states adjoints"),
        (dict(penalties=term(lambda self, seen: 0.0, detached="no")), "Made detached 'no' True"),
        (dict(penalties=term(lambda self: 0.0)), "Made value () seen"),
        (dict(penalties=term(lambda self, seen: 0.0, name="a b")), "Made 'a b' identifier"),
        (dict(penalties=term(lambda self, seen: 0.0, name="a" * 201)), "Made 'aa identifier 200 bytes"),
        (dict(penalties=term(lambda self, seen: 0.0, name="l2")), "Made 'l2' library"),
        (dict(penalties=(Flat(0.1), Flat(0.2))), "penalties[1] Flat 'penalty_Flat' another"),
        (
            dict(penalties=term(lambda self, seen: 1j * jnp.sum(seen.params.readout.w), "weights")),
            "Made complex one number",
        ),
        (dict(network=RESIDUAL.network, penalties=(ONE, Flat())), "penalties[1] Flat 'adjoints' Residual 'weights'"),
        (dict(network=RESIDUAL.network, penalties=("l2", ONE)), "penalties ('l2',) Residual leave"),
        (dict(layers=OWN.layers, penalties=("l2", Flat())), "penalties 'l2' Leaky"),
        (dict(penalties=term(lambda self, seen: seen.layers[0].log2)), "Made shape (6, 4) one number"),
        (dict(penalties=term(lambda self, seen: None)), "Made NoneType one number"),
        (dict(penalties=term(lambda self, seen: {"a": 1.0})), "Made dict one number"),
        (dict(penalties=term(lambda self, seen: seen.layers[0].log2, "states")), "Made adjoints reads = 'adjoints'"),
        (dict(penalties=term(lambda self, seen: seen.top, "weights")), "Made layers reads = 'states'"),
        (
            dict(penalties=term(lambda self, seen: float(jnp.sum(seen.params.readout.w)), "weights")),
            "Made Python jnp.where",
        ),
    ],
)
def test_what_is_no_term_is_one_sentence_before_anything_is_compiled(given, words, tmp_path):
    def tried():
        spec = sd.Spec(**{"steps": 6, "batch": 4, "holdout": 4} | given)
        sd.run(sd.Experiment("x", spec, updates=2), tmp_path / "out")

    sentence = refusal(tried)
    assert all(word in sentence for word in words.split(" ")), sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "tried, words",
    [
        (lambda: sd.grid(SPEC, weight=[-1.0]), "weight -1 0"),
        (lambda: sd.grid(dataclasses.replace(SPEC, penalties=("l2", Flat())), omega=1.0, weight=1.0), "omega 1"),
        (lambda: sd.Experiment("x", SPEC, sd.grid(l1=0.1), updates=2), "l1 0.1 'l1'"),
    ],
)
def test_a_weight_that_nobody_heeds_or_may_not_be_is_one_sentence(tried, words):
    def whole():
        sd.Experiment("x", tried(), updates=2)

    sentence = refusal(whole)
    assert all(word in sentence for word in words.split(" ")), sentence
