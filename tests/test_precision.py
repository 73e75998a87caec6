"""Laws of `Spec.dtype`: what is trained and what is computed in which type, and what reaches the records."""

import dataclasses
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _own import Leaky
from _processes import Process
from _refusals import refusal
from _training import having

import seqdyn as sd
from seqdyn.learn import train
from seqdyn.numbers import Numbers

X64 = False
SMALL = dict(steps=6, batch=4, hidden=(4,), holdout=4)


def halving(*dtypes):
    """λ_t is halved at each step on its way back, for 160 steps."""
    alike = dict(steps=160, batch=2, hidden=(3,), holdout=2, activation="identity", u_init="identity")
    specs = [sd.Spec(**alike, dtype=dtype, name=dtype) for dtype in dtypes]
    return sd.Experiment("halving", specs, sd.grid(seeds=1, gain=[0.5]), updates=1, probes=("updates",))


def check_halving(ds):
    norms = ds.load().isel(step=0, layer=0)
    np.testing.assert_allclose(np.diff(norms["adjoint_log_norm"].values, axis=-1), 1, atol=1e-5)  # a mean over two
    assert (norms["adjoint_norm"].values[:, :5] == 0).all()  # records are float32, where there is nothing below 2^−149


@pytest.mark.slow
def test_the_logarithm_of_the_adjoint_reaches_beyond_the_range_of_the_type(tmp_path):
    """And probes, and the gradient that is verified, are of float32 where the network is of bfloat16."""
    out = sd.run(halving("float32", "bfloat16"), tmp_path / "out")
    ds = sd.load(out).load()
    check_halving(ds)
    errors = sd.runs.manifest.read(out)["verified"]
    assert errors["float32"] == errors["bfloat16"] < 1e-5
    looked = ds["group_gradient_ratio"].isel(probe=0).values
    np.testing.assert_array_equal(looked[0], looked[1])
    assert ds["loss"].values[0, 0] != ds["loss"].values[1, 0]


@pytest.mark.parametrize(
    "over, numbers",
    [
        pytest.param(dict(cell="lstm", dropout="variational"), dict(dropout=0.2), marks=pytest.mark.slow),
        pytest.param(
            dict(clip="adjoint", penalties=("omega", "activity")),
            dict(omega=0.1, clip=0.1, activity=0.1),
            marks=pytest.mark.slow,
        ),
        pytest.param(dict(layers=(Leaky(4, tau=3.3),), hidden=(32,)), {}, marks=pytest.mark.slow),
    ],
)
def test_bfloat16_computes_in_it_and_trains_in_float32(over, numbers):
    """The scans of a step carry bfloat16; its gradient is float32's but for rounding, and is not float32's."""
    spec = sd.Spec(**(SMALL | over), dtype="bfloat16")
    alike = dataclasses.replace(spec, dtype="float32")
    numbers = Numbers(seed=0, **numbers).arrays()
    state = train.init(having(spec, numbers))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, state, train.init(having(alike, numbers))))
    batch = train.training_batch(having(alike, numbers), None, 0)
    found = [jax.jit(lambda s, spec=spec: train.step(having(spec, numbers), s, batch))(state) for spec in (spec, alike)]
    assert {leaf.dtype for leaf in jax.tree.leaves(found[0][0].params)} == {jnp.dtype("float32")}
    (_, ours), (_, theirs) = found
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {leaf.dtype for leaf in jax.tree.leaves(theirs)}
    for name in ("loss", "grad_norm", "adjoint_norm"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0.1, err_msg=name)
        assert np.any(np.asarray(ours[name]) != np.asarray(theirs[name])), name
    carried = str(jax.make_jaxpr(lambda s: train.step(having(spec, numbers), s, batch))(state))
    assert "bf16[4,4]" in carried or "bf16[4,3]" in carried
    assert "bf16" not in str(jax.make_jaxpr(lambda s: train.step(having(alike, numbers), s, batch))(state))


def test_a_network_that_is_no_stack_gets_its_parameters_and_inputs_in_the_type(tmp_path):
    seen = []

    @sd.part
    class Mean:
        def init(self, key):
            return {"w": jax.random.normal(key, (2,))}

        def loss(self, params, batch, key):
            seen.append((params["w"].dtype, batch.xs.dtype, batch.ys.dtype))
            h = sd.watch.scan(lambda h, x: (0.5 * h + (x @ params["w"])[:, None], None), batch.xs[0, :, :1], batch.xs)[
                0
            ][:, 0]
            return batch.mean(jnp.square(h - batch.ys[:, 0] if batch.ys.ndim == 2 else h - batch.ys))

    spec = sd.Spec(network=Mean(), steps=6, batch=4, holdout=4, dtype="bfloat16")
    state = train.init(having(spec, Numbers(seed=0).arrays()))
    jax.eval_shape(lambda s: train.chunk(having(spec, Numbers(seed=0).arrays()), s, None, 1), state)
    assert state.params["w"].dtype == jnp.float32
    assert [str(dtype) for dtype in seen[-1]] == [
        "bfloat16",
        "bfloat16",
        "float32",
    ]  # what it should give is not rounded


@pytest.mark.slow
def test_float64_is_float64_from_the_parameters_to_the_gradient():
    """In a process of its own: gradients within 1e-13 of autodiff's, another reads what it wrote."""
    text = Process([__file__]).finish()
    assert "all of it is float64" in text, text


def main(out):
    """What the test above starts."""
    jax.config.update("jax_enable_x64", True)
    check_halving(sd.load(sd.run(halving("float64"), f"{out}/halving")))
    words = dict(cell="gru", dropout="zoneout", optimizer="adamw"), dict(penalties=("omega",), clip="adjoint")
    specs = tuple(sd.Spec(dtype="float64", **(SMALL | of)) for of in words)
    grid = sd.grid(seeds=1, omega=[0.1], dropout=0.2, weight_decay=0.1)
    experiment = sd.Experiment("double", specs, grid, updates=2)
    sd.run(experiment, f"{out}/double")
    for run in range(len(specs)):
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(sd.restore(f"{out}/double", run))} == {"float64"}
    verified = sd.runs.manifest.read(f"{out}/double")["verified"]
    assert max(verified.values()) < 1e-13, verified
    jax.config.update("jax_enable_x64", False)
    assert sd.load(f"{out}/double").load()["finite"].all()
    assert "JAX_ENABLE_X64=1" in refusal(sd.restore, f"{out}/double", 0)
    print("all of it is float64")


@pytest.mark.parametrize(
    "over, told",
    [
        (dict(dtype="float16"), "dtype is 'float16'; it must be one of float32, bfloat16, float64."),
        (dict(dtype=jnp.bfloat16), "dtype is"),
        (dict(dtype="bfloat16", normalise="batch"), "running mean"),
    ],
)
def test_a_type_that_does_not_fit_is_a_sentence(over, told):
    assert told in refusal(sd.Experiment, "x", sd.Spec(**(SMALL | over)), updates=1)


def test_float64_asks_jax_for_it_and_is_of_all_specs_or_none(tmp_path):
    specs = sd.Spec(**SMALL, dtype="float64", name="a"), sd.Spec(**SMALL, name="b")
    assert "of all or of none" in refusal(sd.Experiment, "x", specs, updates=1)
    told = refusal(sd.run, sd.Experiment("x", specs[0], updates=1), tmp_path / "out")
    assert "JAX_ENABLE_X64=1" in told and not (tmp_path / "out").exists()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
