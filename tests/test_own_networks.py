"""Laws of networks that are no stack: they train, are recorded, checked, resumed and read as stacks are."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _digests import digests
from _network import RESIDUAL, Clocks, H, Residual, TwoInputs
from _processes import Process
from _programs import program
from _refusals import refusal
from _training import having

import seqdyn as sd
from seqdyn import watch
from seqdyn.data.batches import Batch
from seqdyn.learn import model, network, train, verify
from seqdyn.nets.bptt import valid_steps
from seqdyn.numbers import Numbers
from seqdyn.runs import sweep

X64 = False
run = partial(sd.run, verify=False)


def experiment(spec=RESIDUAL, updates=4, **axes):
    axes = axes or {"seeds": 2, "scale": [0.5, 1.0]}
    return sd.Experiment("network", sd.grid(spec, **axes), updates=updates, chunk=2, tile=2)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return run(experiment(), tmp_path_factory.mktemp("network") / "out")


def test_a_process_that_never_saw_the_network_reads_it_as_any_other(out):
    code = f"""if True:
        import sys, seqdyn
        ds = seqdyn.load({str(out)!r}).load()
        assert not any("_network" in name for name in sys.modules)
        print(ds.label.values[0], ds.scale.values.tolist(), ds.layer.values, ds.group.values, "gain" in ds.coords)
        print(ds.adjoint_norm.shape, bool((ds.adjoint_norm > 0).all()), ds.square.attrs["long_name"])
    """
    said = Process(["-c", code]).finish()
    assert "Residual [0.5, 0.5, 1.0, 1.0] ['level0' 'level1'] ['first' 'levels' 'readout'] False" in said, said
    assert "(4, 4, 2, 6) True sum of the readout's squares" in said


def test_the_records_are_those_of_a_loop_that_adds_zeros_to_the_state(out):
    ds = sd.load(out).load().isel(run=2, step=0)
    spec, numbers = RESIDUAL, Numbers(seed=0).arrays()
    params = network.init(having(spec, numbers), train.keys(having(spec, numbers)).params)
    batch = train.training_batch(having(spec, numbers), None, 0)

    def loss(zeros):
        hs = batch.xs @ params["first"]
        for level, zero in zip(params["levels"], zeros, strict=True):
            h, rows = jnp.zeros((4, H)), []
            for x, z in zip(hs, zero, strict=True):
                h = jnp.tanh(x @ level["w"] + h @ level["u"]) + z
                rows.append(h)
            hs = hs + jnp.stack(rows)
        return jnp.mean(jnp.square(hs[-1] @ params["readout"] - batch.ys))

    zeros = jnp.zeros((2, 6, 4, H))
    value, adjoints = jax.value_and_grad(loss)(zeros)
    each = 4 * jnp.linalg.norm(adjoints, axis=-1)
    np.testing.assert_allclose(ds.loss, value, rtol=1e-5)
    np.testing.assert_allclose(ds.adjoint_norm, jnp.sqrt(jnp.mean(each**2, axis=-1)), rtol=1e-4)
    np.testing.assert_allclose(ds.adjoint_log_norm, jnp.mean(jnp.log2(each), axis=-1), atol=1e-4)
    np.testing.assert_allclose(ds.square, H)


def test_numbers_compile_nothing_a_run_alone_is_that_in_a_grid_and_going_on_is_having_asked_at_once(out, tmp_path):
    run(experiment(seeds=[5]), tmp_path / "before")
    programs = sweep.programs(RESIDUAL, 1)
    known = [p._cache_size() for p in programs]
    alone = experiment(dataclasses.replace(RESIDUAL, network=Residual(0.5)), updates=2, seeds=[1])
    run(alone, tmp_path / "alone")
    records, params = digests(run(dataclasses.replace(alone, updates=4), tmp_path / "alone"))
    whole, whole_params = digests(out)
    ds = sd.load(out).load()
    assert params == whole_params[1:2]
    assert all(np.asarray(ds[name][1:2]).tobytes() == records[name] for name in whole if ds[name].dims[0] == "run")
    assert [p._cache_size() for p in programs] == known and known[1] > 0


def test_a_changed_network_is_refused_by_its_path(out):
    other = dataclasses.replace(RESIDUAL, network=Residual(noise=0.5))
    assert "specs[0].network.noise is 0.0 there and 0.5 here" in refusal(run, experiment(other), out)


@pytest.mark.slow
def test_inputs_of_several_lengths_end_together_beside_a_stack_of_cells(tmp_path):
    spec = sd.Spec(Clocks(), batch=4, holdout=4, network=TwoInputs())
    assert spec.steps == 6 and network.scans(spec) == {"fast": 6, "slow": 4}
    ds = sd.load(run(experiment(spec, seeds=1), tmp_path / "two")).load()
    slow = ds.adjoint_norm.sel(layer="slow")
    assert slow[..., :2].isnull().all() and (slow[..., 2:] > 0).all() and (ds.adjoint_norm.sel(layer="fast") > 0).all()


def test_noise_is_drawn_in_training_alone_anew_at_every_update_and_by_the_seed():
    spec = dataclasses.replace(RESIDUAL, network=Residual(noise=1.0))
    numbers = Numbers(seed=3).arrays()
    state = train.init(having(spec, numbers))
    batch = train.training_batch(having(spec, numbers), None, 0)
    again = batch._replace(noise=train.training_batch(having(spec, numbers), None, 1).noise)
    losses = [
        network.forward(having(spec, numbers), state.params, b).loss
        for b in (batch, batch, again, batch._replace(noise=None))
    ]
    assert losses[0] == losses[1] and len({float(loss) for loss in losses}) == 3


@sd.part
class Risen:
    """A loss with a weight that rises with the updates and is 9 where a batch is only judged."""

    def init(self, key):
        return jnp.ones(H)

    def loss(self, params, batch, key):
        h = watch.scan(lambda h, x: (jnp.tanh(h + x.sum()), None), params, batch.xs, name="rnn", batch=None)[0]
        return (9 if batch.step is None else batch.step) + 0 * h.sum()


@pytest.mark.slow
def test_a_loss_is_told_how_many_updates_were_made_and_nothing_where_it_is_judged(tmp_path):
    spec = dataclasses.replace(RESIDUAL, network=Risen())
    e = dataclasses.replace(experiment(spec, seeds=2), probe_every=4)
    run(dataclasses.replace(e, updates=2, probe_every=2), tmp_path / "out")
    ds = sd.load(run(dataclasses.replace(e, updates=4, probe_every=2), tmp_path / "out")).load()
    assert ds.loss.values.tolist() == [[0, 1, 2, 3]] * 2 and (ds.test_loss == 9).all()


@sd.part
class Held:
    """The library's rnn as a network: a state held on padding, the last one read."""

    def init(self, key):
        return {"w": jnp.zeros(())}

    def loss(self, params, batch, key):
        layer = params.layers[0]

        def step(h, inputs):
            x, mask = inputs
            h = jnp.where(mask[:, None], jnp.tanh(x @ layer.w + h @ layer.u + layer.b), h)
            return h, h

        hs = watch.scan(step, jnp.zeros((4, H)), (batch.xs, batch.mask), name="rnn")[1]
        predicted = (hs[-1] @ params.readout.w + params.readout.b)[:, 0]
        return batch.mean((predicted - batch.ys) ** 2)


@pytest.mark.parametrize("pad", ["before", "after"])
def test_padding_is_no_time_as_in_a_stack(pad):
    stack = sd.Spec("labelled", steps=6, batch=4, features=2, classes=0, hidden=(H,), pad=pad)
    rng = np.random.default_rng(0)
    batch = Batch(
        jnp.asarray(rng.standard_normal((6, 4, 2)), jnp.float32),
        jnp.asarray(rng.standard_normal(4), jnp.float32),
        valid_steps(jnp.array([5, 4, 2, 1]), 6, pad),
    )
    spec = dataclasses.replace(stack, hidden=(32,), network=Held())

    @program
    def both(numbers):
        params = model.init(having(stack, numbers), train.keys(having(spec, numbers)).params)
        found = train.gradient(having(stack, numbers), params, batch)
        ours = network.gradient(spec, params, batch)
        return train.read(stack, batch, found.readings), network.read(spec, batch, ours.seen)

    theirs, ours = both(Numbers().arrays())
    assert ours.keys() == theirs.keys() and ours["adjoint_count"].tolist() == [0, 1, 2, 2, 3, 4]
    for name in theirs:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), sum(ours[name]), sum(theirs[name]))


@pytest.mark.slow
def test_the_gradient_is_held_against_that_of_scans_that_nobody_watches():
    """And a parameter that no gradient reaches is refused, but none that begins behind a zero."""
    assert verify.gradient_error(having(RESIDUAL, Numbers().arrays()), None) < 1e-5
    blind = dataclasses.replace(RESIDUAL, network=Residual(0.0))
    sentence = refusal(verify.gradient_error, blind.arrays(), None)
    assert "the gradient of levels of Residual is exactly 0" in sentence


@sd.part
class Square:
    variables = {"square": sd.Variable((), "sum of the readout's squares")}

    def record(self, context):
        return {"square": jnp.ones(())}


@sd.part
class Layers:
    variables = {"one": sd.Variable(("layer",), "one of each scan")}

    def record(self, context):
        return {"one": jnp.ones(2)}


@pytest.mark.slow
def test_a_record_over_layers_has_one_number_for_each_watched_scan(tmp_path):
    spec = dataclasses.replace(RESIDUAL, records=(Layers(),))
    ds = sd.load(run(experiment(spec, updates=2, seeds=1), tmp_path / "out"))
    assert ds.one.dims == ("run", "step", "layer") and ds.one.shape == (1, 2, 2)


@pytest.mark.slow
def test_a_number_that_switches_a_part_off_or_overflows_is_data_in_any_order(tmp_path):
    """And what is refused leaves nothing behind."""
    e = sd.Experiment("off", sd.grid(RESIDUAL, scale=[0.0, 1e38, 1.0]), updates=2, tile=1)
    ds = sd.load(sd.run(e, tmp_path / "off")).load()
    assert ds.finite.all("step").values.tolist() == [True, False, True]
    zero = sd.Experiment("off", sd.grid(RESIDUAL, scale=[0.0]), updates=2, tile=1)
    assert "must stand under 'statistics' in what init returns" in refusal(sd.run, zero, tmp_path / "new")
    assert not (tmp_path / "new" / "manifest.json").exists()
    assert sd.run(dataclasses.replace(e, name="on"), tmp_path / "new", verify=False)


def test_the_mean_of_a_batch_leaves_out_what_does_not_count():
    batch = Batch(jnp.zeros((2, 3, 1)), jnp.zeros(3), weight=jnp.array([1.0, 2.0, 0.0]))
    assert batch.mean(jnp.array([3.0, 6.0, 100.0])) == 5 and batch._replace(weight=None).mean(jnp.arange(3.0)) == 1
    mask = batch._replace(mask=jnp.array([[True, True, True], [False, True, True]]))
    assert mask.mean(jnp.array([[1.0, 2.0, 9.0], [5.0, 4.0, 9.0]])) == 13 / 5
    half = batch._replace(weight=jnp.array([0.5, 1.0, 0.5]))
    assert half.mean(jnp.array([True, True, False])) == half.mean([3, 3, 0]) / 3 == 0.75
    masked = mask._replace(weight=None)
    assert masked.mean(jnp.arange(3.0)) == 1  # each example counts, however long it is
    for each in (jnp.ones((2, 3, 4)), jnp.ones((3, 2)), jnp.ones(())):
        for known in (masked, half):
            assert f"given the shape {each.shape}; it must be one number for each example, (3,)" in refusal(
                known.mean, each
            )


def test_labels_of_several_numbers_reach_a_network():
    spec = sd.Spec("labelled", steps=6, batch=4, features=2, classes=0, targets=2, network=Residual())
    assert network._batch_like(spec, jax.random.key(0)).ys.shape == (4, 2)


def changed(**methods):
    return sd.part(type("Changed", (), {"__annotations__": {}, "__module__": __name__} | methods))()


def init(self, key):
    return jnp.ones(3)


def loss(self, params, batch, key):
    return jnp.sum(params)


def whole(self, key):
    return jnp.arange(3)


def unwatched(self, params, batch, key):
    return jnp.sum(params * batch.xs[0, 0, 0])


def vector(self, params, batch, key):
    return params


def named(self, params, batch, key):
    return jnp.sum(params), {"depth": 1.0}


def nothing(self, params, batch, key):
    return None


def keyed(self, params, batch, key):
    return jnp.sum(params) + jax.random.normal(key)


def asking(self, params, batch, key):
    if key is None:
        raise ValueError("no key.\nSee elsewhere")
    return jnp.sum(params)


def python(self, params, batch, key):
    return 1.0 if params[0] > 0 else 0.0


def longer(self, params, batch, key):
    return jnp.sum(watch.scan(lambda h, x: (h + x, None), params, jnp.ones(9), name="long", batch=None)[0])


def short(self, params):
    return 0.0


def counted(self, params, batch, key):
    return jnp.sum(params > 0)


def complexed(self, params, batch, key):
    return jnp.sum(params) * 1j


def pair(self, params, batch, key):
    return jnp.sum(params), params


def looping(self, params, batch, key):
    h = watch.scan(lambda h, x: (h + x, None), params, jnp.ones(6), batch=None)[0]
    return jnp.sum(jax.lax.while_loop(lambda h: jnp.sum(h) > 1, lambda h: h / 2, h))


def shaped(self, params, batch, key):
    return jnp.sum(jnp.ones((2, params[0].astype(int))))


def nested(self, key):
    return {"w": jnp.ones(3), "steps": {"n": jnp.int32(0)}}


REFUSED = {
    "nested": (dict(network=changed(init=nested, loss=loss)), "whose init gives int32 at steps/n; parameters must be"),
    "counted": (dict(network=changed(init=init, loss=counted)), "whose loss is int32, whose gradient is 0; it must be"),
    "complex": (dict(network=changed(init=init, loss=complexed)), "whose loss is an array of complex64; it must be"),
    "pair": (dict(network=changed(init=init, loss=pair)), "whose loss comes with an array of float32; it must be a"),
    "looping": (dict(network=changed(init=init, loss=looping)), "network is Changed, which JAX cannot differentiate: "),
    "no loss": (dict(network=changed(init=init)), "network is Changed, which has no loss(); it must have one"),
    "no init": (dict(network=changed(loss=loss)), "network is Changed, which has no init(); it must have one"),
    "a class": (dict(network=Residual), "network is the class Residual; it must be one of it"),
    "a word": (dict(network="residual"), "network is 'residual'; it must be a part"),
    "whole": (dict(network=changed(init=whole, loss=loss)), "whose init gives int32; parameters must be floats"),
    "vector": (dict(network=changed(init=init, loss=vector)), "whose loss is of the shape (3,); it must be one number"),
    "nothing": (dict(network=changed(init=init, loss=nothing)), "whose loss is a NoneType; it must be one number"),
    "keyed": (dict(network=changed(init=init, loss=keyed)), "whose loss cannot do with a key of None"),
    "asking": (
        dict(network=changed(init=init, loss=asking)),
        "whose loss cannot do with a key of None or a batch.step",
    ),
    "a function": (dict(network=loss), "network is the function loss; call it in the loss() of a part"),
    "empty": (dict(network=changed(init=lambda self, key: jnp.zeros((0, 2)), loss=loss)), "parameters without numbers"),
    "text": (dict(network=changed(init=lambda self, key: {"w": "x"}, loss=loss)), "whose init gives a str"),
    "objects": (
        dict(network=changed(init=lambda self, key: {"w": np.array([1.0, None])}, loss=loss)),
        "whose init gives an array of object; parameters must be arrays of floats",
    ),
    "keys": (
        dict(network=changed(init=lambda self, key: {0: jnp.ones(3), "w": jnp.ones(3)}, loss=loss)),
        "which has a dict with keys of several kinds; take words alone",
    ),
    "variables": (
        dict(network=changed(init=init, loss=loss, variables=None)),
        "whose variables are None; they must be",
    ),
    "shaped": (dict(network=changed(init=init, loss=shaped)), "which asks for the value of a number in Python"),
    "steps": (dict(task=Clocks(), network=TwoInputs(), steps=77), "steps is 77 and those of Clocks are 6"),
    "shortest": (dict(task=Clocks(), network=TwoInputs(), shortest=3), "shortest is 3 and task has Clocks"),
    "descends": (dict(clip=sd.SGD(1.0)), "clip is SGD, which descends"),
    "twice": (dict(records=(Square(),)), "records[0] is Square, which records 'square' as another does"),
    "named": (dict(network=changed(init=init, loss=named)), "whose loss comes with ['depth']; it must be a dict of"),
    "python": (dict(network=changed(init=init, loss=python)), "which asks for the value of a number in Python"),
    "short": (dict(network=changed(init=init, loss=short)), "whose loss takes (params); it must take params, a batch"),
    "unwatched": (dict(network=changed(init=init, loss=unwatched)), "network is Changed, in whose loss fun is"),
    "cell": (dict(cell="lstm"), "cell is 'lstm' and network has Residual; leave cell out"),
    "hidden": (dict(hidden=(4,)), "hidden is (4,) and network has Residual; leave hidden out"),
    "penalty": (dict(penalties=("l2",)), "penalties is ('l2',) and network has Residual; leave penalties out"),
    "adamw": (dict(optimizer="adamw"), "optimizer is 'adamw' and network has Residual"),
    "adjoint": (dict(clip="adjoint"), "clip is 'adjoint' and network is Residual"),
    "long": (
        dict(network=changed(init=init, loss=longer)),
        "whose scan 'long' has 9 steps; it must be at most steps, 6",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_a_sentence(name):
    changes, told = REFUSED[name]

    def whole():
        return experiment(dataclasses.replace(RESIDUAL, **changes), seeds=1)

    assert told in refusal(whole)


def test_gain_is_no_axis_and_no_probe_looks():
    assert "gain" in refusal(sd.grid, RESIDUAL, gain=[0.5, 1.0])
    told = refusal(dataclasses.replace, experiment(), probes=("weights",))
    assert "probes is ('weights',); Residual is no stack of cells" in told


@pytest.mark.slow
def test_a_network_and_a_stack_lie_in_one_experiment(tmp_path):
    stack = sd.Spec("adding", steps=6, batch=4, holdout=8, hidden=(H,))
    both = sd.Experiment("both", (sd.grid(RESIDUAL), sd.grid(stack)), updates=2, tile=1)
    ds = sd.load(run(both, tmp_path / "both")).load()
    assert ds.layer.values.tolist() == ["level0", "level1", "0"] and ds.label.values.tolist() == [
        "Residual",
        "rnn tanh",
    ]
    there = ds.adjoint_norm.notnull().all(["step", "time"]).values.tolist()
    assert there == [[True, True, False], [False, False, True]]


@pytest.mark.slow
def test_the_examples_say_how_far_the_gradient_of_each_scan_reaches(tmp_path):
    process = Process(["experiments/own/networks.py", tmp_path / "out", "--updates", "2"])
    said = process.finish()
    assert process.returncode == 0, said
    names = ["residual 0.1", "residual 1.0", "attention", "encoder_decoder", "tied", "two_inputs"]
    assert all(f"\n{name}" in f"\n{said}" for name in names) and "nan" not in said
    assert all(f"    {scan}: " in said for scan in ("level 2", "rnn", "encoder", "decoder", "fast", "slow")), said
