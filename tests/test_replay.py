"""Laws of `replay` and `probe`: the same updates again, and what instruments would have seen."""

import shutil

import jax
import numpy as np
import pytest
from _digests import digests
from _refusals import refusal

import seqdyn as sd
from seqdyn.learn import model, train
from seqdyn.runs import checkpoint, kept, manifest, records
from seqdyn.runs import replay as replaying

X64 = False
T, B, H = 6, 3, (4, 5)
LSTM = sd.Spec(cell="lstm", steps=T, batch=B, hidden=H, holdout=4)
RNN = sd.Spec(steps=T - 1, batch=B, hidden=(4,), holdout=4, clip="adjoint", bidirectional=True, name="short")


def experiment(probes=("weights",), specs=(LSTM, RNN), **others):
    given = dict(updates=12, chunk=4, probe_every=4, tile=2, keep=[0, 3, 4, 8], diagnostic=3, modes=2) | others
    return sd.Experiment("again", specs, sd.grid(seeds=3, lr=1e-2, clip=[0.05]), probes=probes, **given)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return sd.run(experiment(), tmp_path_factory.mktemp("again") / "out", verify=False)


@pytest.mark.parametrize(
    "run, start, stop", [(2, 5, 9), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1, 0, 2), (4, 10, 12)))]
)
def test_what_is_made_again_has_the_norms_that_were_recorded(run, start, stop, out):
    seen, ds = sd.replay(out, run, start, stop), sd.load(out).isel(run=run, step=slice(start, stop))
    steps = seen.sizes["time"]
    assert list(seen["update"].values) == list(range(start, stop)) and steps == (T if run < 3 else T - 1)
    for name in ("loss", "grad_norm", "adjoint_norm", "clip_scale"):
        np.testing.assert_array_equal(seen[name], ds[name])
    norms = np.sqrt(np.square(seen["adjoint"].astype(np.float64)).sum("unit"))
    np.testing.assert_allclose(norms, seen["example_adjoint_norm"], rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(2 ** seen["example_adjoint_log_norm"].astype(np.float64), norms, rtol=1e-5, atol=1e-30)
    rms = np.sqrt(np.square(norms).mean("example")).values
    recorded = ds["adjoint_norm"].values[:, : rms.shape[1], -steps:]
    if run >= 3:  # whose second direction is recorded in the order in which it reads
        rms[:, 1] = rms[:, 1, ::-1]
    np.testing.assert_allclose(rms, recorded, rtol=1e-5)
    if run < 3:
        of_c = np.sqrt(np.square(seen["adjoint_c"].astype(np.float64)).sum("unit").mean("example"))
        np.testing.assert_allclose(of_c, ds["adjoint_norm_c"], rtol=1e-5)


def test_batches_states_and_gates_are_those_of_the_update(out):
    """By the equations of the LSTM, from the parameters that were kept."""
    e, n = experiment(), 3
    seen, params = sd.replay(out, 2, n, n + 1).isel(update=0), sd.restore(out, 2, step=n)
    one = e.runs[0].at(2)
    batch = train.training_batch(one, None, n)
    np.testing.assert_array_equal(seen["xs"], batch.xs)
    np.testing.assert_array_equal(seen["ys"], batch.ys)
    output = model.run(one.arrays(), params, batch)
    np.testing.assert_allclose(seen["h"].isel(layer=1), output.stacked.hs, rtol=1e-5, atol=1e-6)
    i, f, o, g = (seen["gate_value"].sel(gate=name, drop=True) for name in "ifog")
    before = seen["c"].shift(time=1, fill_value=0.0)
    np.testing.assert_allclose(seen["c"], (f * before + i * g).transpose(*seen["c"].dims), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen["h"], (o * np.tanh(seen["c"])).transpose(*seen["h"].dims), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen["gate_slope"].sel(gate="f"), f * (1 - f), rtol=1e-3, atol=1e-6)
    assert np.isnan(seen["h"].values[0, ..., H[0] :]).all() and np.isfinite(seen["h"].values[0, ..., : H[0]]).all()


def test_the_adjoint_is_the_derivative_of_each_examples_own_loss(out):
    """Moved along it, the predicted loss changes so: a central difference, of h of the last step, read out as it is."""
    seen, params = sd.replay(out, 0, 0, 1).isel(update=0), sd.restore(out, 0, step=0)
    h, w = seen["h"].values[-1, -1, :, : H[1]].astype(np.float64), np.asarray(params.readout.w, np.float64)
    y, b = seen["ys"].values.astype(np.float64).reshape(B), np.asarray(params.readout.b, np.float64)
    right = 2 * ((h @ w + b)[:, 0] - y)[:, None] * w[:, 0]
    np.testing.assert_allclose(seen["adjoint"].values[-1, -1, :, : H[1]], right, rtol=1e-4, atol=1e-7)


def test_only_what_is_asked_for_is_made(out):
    seen = sd.replay(out, 0, 1, 3, record=["adjoint", "loss"])
    assert {*seen.data_vars} == {"adjoint", "loss"}
    assert {*sd.replay(out, 0, 1, 3, "grad_norm").data_vars} == {"grad_norm"}


def test_what_cannot_be_replayed_is_one_sentence_and_nothing_changes(out, monkeypatch):
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in out.rglob("*")}
    assert "stop at most 12" in refusal(sd.replay, out, 0, 3, 13)
    assert "start and stop are 5 and 5" in refusal(sd.replay, out, 0, 5, 5)
    assert "start is -1" in refusal(sd.replay, out, 0, -1, 5)
    assert "run is 6" in refusal(sd.replay, out, 6, 0, 1)
    assert "record has 'lambda'; it must be 'all' or names among h, c, " in refusal(sd.replay, out, 0, 0, 1, "lambda")
    assert "record has empty" in refusal(sd.replay, out, 0, 0, 1, [])
    monkeypatch.setattr(replaying.os, "sysconf", lambda name: 64)
    assert "MiB" in (said := refusal(sd.replay, out, 0, 0, 2)) and "at most half of the memory" in said
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in out.rglob("*")}


def test_other_bits_than_those_recorded_are_told(out, tmp_path):

    other = shutil.copytree(out, tmp_path / "other")
    directory = kept.of_tile(other, 0)
    like = sd.runs.run.abstract(experiment(), experiment().layout.tiles[0])
    states = kept.read(directory, 4, like)
    (directory / "4.safetensors").unlink()
    kept.save(directory, 4, states._replace(params=jax.tree.map(lambda leaf: leaf * 1.001, states.params)), {})
    shutil.rmtree(checkpoint.of_tile(other, 0))
    with pytest.raises(RuntimeError, match="update 4 of run 0, made again here, has another .* than was recorded"):
        sd.replay(other, 0, 4, 6)
    assert sd.replay(other, 0, 2, 3).sizes["update"] == 1


@pytest.mark.slow
def test_of_some_lags_the_rest_is_made_again_all_the_same(tmp_path):
    e = experiment((), specs=(LSTM,), updates=4, lags=[2], keep=[3, 4])
    short = sd.run(e, tmp_path / "lags", verify=False)
    seen = sd.replay(short, 0, 2, 4, ["adjoint_norm", "example_adjoint_norm"])
    assert seen["adjoint_norm"].sizes["time_from_end"] == 2 and seen.sizes["time"] == T
    probed = sd.probe(short, "units")
    assert list(probed["lag"].values) == [2, 0] == list(sd.load(short)["lag"].values)
    np.testing.assert_array_equal(sd.load(short)["gate_mean"].isel(probe=1), probed["gate_mean"].isel(probe=1))


@pytest.mark.slow
def test_runs_that_were_given_their_start_are_made_again_from_it(out, tmp_path):
    e = sd.Experiment("warm", LSTM, sd.grid(seeds=2, lr=1e-2), updates=8, chunk=4, probe_every=4, tile=2, probes=())
    warm = sd.run(e, tmp_path / "warm", verify=False, init=sd.restore(out, 1, step=3))
    assert checkpoint.steps(checkpoint.of_tile(warm, 0)) == [8]
    np.testing.assert_array_equal(sd.replay(warm, 1, 0, 3, "loss").loss, sd.load(warm).loss[1, :3])


# --- instruments after the fact ---------------------------------------------------------------------------------

LATER = ("units", "lyapunov")


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    return sd.run(experiment(("weights", *LATER)), tmp_path_factory.mktemp("probed") / "out", verify=False)


@pytest.mark.slow
def test_what_probes_see_after_the_fact_is_what_they_would_have_seen(out, probed, tmp_path):
    """In the records, at the looks whose states were kept; the rest is as it was, and goes on to be."""

    later = shutil.copytree(out, tmp_path / "later")
    seen = sd.probe(later, LATER)
    whole, found, before = (sd.load(of).load() for of in (probed, later, out))
    assert {*found.data_vars} == {*whole.data_vars} and {*before.data_vars} < {*whole.data_vars}
    for name, of in whole.data_vars.items():
        there = of.values
        if name not in before:
            np.testing.assert_array_equal(seen[name].sel(probe=[0, 2, 3]), there[:, [0, 1, 2]], str(name))
            there = there.copy()
            there[:, 3] = np.nan
        assert found[name].values.tobytes() == there.tobytes(), name
    assert list(seen["probe_step"].values) == [0, 3, 4, 8]
    sd.probe(later, list(LATER), steps=[12])
    assert all(sd.load(later)[n].values.tobytes() == whole[n].values.tobytes() for n in whole.data_vars)
    # The same command goes on in it, and keeps what was seen.
    sd.run(experiment(updates=16), later, verify=False)
    for name, of in sd.load(later).load().data_vars.items():
        if name in seen:
            assert of.values[:, :4].tobytes() == whole[name].values.tobytes() and np.isnan(of.values[:, 4]).all()


@pytest.mark.slow
def test_a_probe_that_was_killed_leaves_records_that_the_same_call_completes(out, probed, tmp_path, monkeypatch):

    class Killed(BaseException):
        pass

    for of, name, when in ((records.Store, "write", 3), (records.Store, "fill", 3), (manifest, "write", 1)):
        later, calls, plainly = shutil.copytree(out, tmp_path / name / str(when)), [], getattr(of, name)

        def killed(*given, plainly=plainly, calls=calls, when=when):
            calls.append(0)
            if len(calls) == when:
                raise Killed
            return plainly(*given)

        with monkeypatch.context() as patch:
            patch.setattr(of, name, killed)
            with pytest.raises(Killed):
                sd.probe(later, "units")
        if of is not manifest:
            sd.load(later).load()
        else:
            with pytest.raises(RuntimeError, match="run its command again"):
                sd.load(later)
            sd.run(experiment(), later, verify=False)
        sd.probe(later, "units")
        found, whole = sd.load(later).load(), sd.load(probed).load()
        assert found["gate_mean"].values[:, :3].tobytes() == whole["gate_mean"].values[:, :3].tobytes()
        assert not list(later.glob(".adding*"))


@pytest.mark.slow
def test_on_data_what_early_stopping_ended_is_made_again_until_there_and_looked_at_no_more(tmp_path):
    xs, lengths = np.random.default_rng(0).normal(size=(9, T, 2)).astype(np.float32), [T, 2, 5] * 3
    data = {name: (xs, lengths, np.arange(9) % 2) for name in ("train", "validation")}
    spec = sd.Spec("labelled", T, B, cell="gru", hidden=(3,), features=2, mask=True, stop="loss")
    runs = sd.grid(spec, seeds=2, patience=[1, 9], min_improvement=9.0)
    given = dict(updates=12, chunk=4, probe_every=4, tile=2, keep=4, diagnostic=3)
    out = sd.run(sd.Experiment("stopped", runs, probes=(), **given), tmp_path / "out", data, verify=False)
    whole = sd.run(sd.Experiment("stopped", runs, probes=("units",), **given), tmp_path / "whole", data, verify=False)
    one = int(np.flatnonzero(sd.load(out)["patience"] == 1)[0])
    seen = sd.replay(out, one, 1, 4, data=data)
    assert {*seen["mask"].values.sum(axis=1).ravel()} <= {2, 5, T} and seen["rows"].dims == ("update", "example")
    np.testing.assert_array_equal(seen["xs"], np.moveaxis(xs[seen["rows"].values], 1, 2))
    assert (seen["adjoint"].values[:, 0][~seen["mask"].values] == 0).all()
    assert "stop at most 4" in refusal(sd.replay, out, one, 1, 5, data=data)
    assert "needs a dict of its splits" in refusal(sd.replay, out, one, 1, 4)
    sd.probe(out, "units", data=data)
    found, right = sd.load(out).load(), sd.load(whole).load()
    assert np.isfinite(right["gate_mean"][one, 1]).all() and np.isnan(right["gate_mean"][one, 2]).all()
    assert all(found[name].values.tobytes() == right[name].values.tobytes() for name in right.data_vars)


@pytest.mark.slow
def test_what_cannot_be_probed_is_one_sentence(out, tmp_path):
    before = digests(out)
    assert "probes is ('spectrum',)" in refusal(sd.probe, out, "spectrum")
    assert "probes is ()" in refusal(sd.probe, out, ())
    assert "steps is 'all'" in refusal(sd.probe, out, "units", "all")
    assert "updates from 0 to 12" in refusal(sd.probe, out, "units", [3, 13])
    assert "steps[0] is 1.5" in refusal(sd.probe, out, "units", [1.5])
    plain = sd.run(experiment(keep=None, updates=4), tmp_path / "plain", verify=False)
    assert "has kept none; it must be a list of updates" in refusal(sd.probe, plain, "units")
    assert digests(out) == before
