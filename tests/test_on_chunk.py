"""Laws of `on_chunk`: what is told is what is recorded, once and in turn; who hears it changes nothing."""

import functools
import threading
import time
import traceback
from collections import Counter

import jax
import numpy as np
import pytest
from _digests import digests
from _refusals import refusal

import seqdyn as sd
from seqdyn.runs import script

X64, DEVICES = False, 2
RUNS = sd.grid(sd.Spec(steps=4, batch=2, hidden=(3,), holdout=4), seeds=3, lr=[1e-2, 1e30])
EXPERIMENT = sd.Experiment("told", RUNS, updates=8, chunk=2, probe_every=4, tile=4, probes=())


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    return sd.run(EXPERIMENT, tmp_path_factory.mktemp("told") / "quiet", verify=False)


def test_what_is_told_is_every_record_once_and_the_bits_are_as_untold(quiet, tmp_path):
    told, inside = [], threading.Lock()

    def f(new):
        assert inside.acquire(blocking=False), "two calls at once"
        told.append((new, new.load().load()))
        time.sleep(0.01)
        inside.release()

    out = sd.run(EXPERIMENT, tmp_path / "out", verify=False, on_chunk=f)
    assert digests(out) == digests(quiet)
    ds, seen = sd.load(out).load(), Counter()
    for new, part in told:
        assert new.path == out and part["run"].values.tolist() == list(new.runs)
        assert part["step"].values.tolist() == list(range(new.start, new.stop))
        assert part["probe_step"].values.tolist() == [4 * look for look in new.looks]
        for name in ds.data_vars:
            rows = ds[name].isel(run=slice(new.runs.start, new.runs.stop))
            where = {"step": part["step"].values} if "step" in rows.dims else {"probe": list(new.looks)}
            assert part[name].values.tobytes() == rows.isel(where).values.tobytes(), name
        seen.update((run, "step", int(step)) for run in new.runs for step in part["step"].values)
        seen.update((run, "look", look) for run in new.runs for look in new.looks)
    assert set(seen.values()) == {1} and len(seen) == 6 * (8 + 3)
    starts = [new.start for new, _ in told if 0 in new.runs]
    assert starts == [0, 2, 4, 6]  # in order


def test_a_relative_directory_stays_where_it_was_begun(quiet, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    sd.run(EXPERIMENT, "out", verify=False, on_chunk=lambda new: monkeypatch.chdir(tmp_path / "elsewhere"))
    assert digests(tmp_path / "out") == digests(quiet)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_a_listener_sets_of_jax_changes_no_bits_and_is_refused_where_nothing_could_be_trained(quiet, tmp_path):
    def switched(setting):
        try:
            sd.run(EXPERIMENT, tmp_path / "out", verify=False, on_chunk=lambda _: jax.config.update(setting, True))
        finally:
            jax.config.update(setting, False)

    sentence = refusal(switched, "jax_debug_nans")
    assert "on_chunk has set JAX" in sentence and "jax_debug_nans is True" in sentence
    switched("jax_enable_x64")
    assert digests(tmp_path / "out") == digests(quiet)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
def test_what_a_listener_raises_comes_with_its_traceback_and_nothing_is_lost(quiet, tmp_path, kind):
    told = []

    def f(new):
        told.append((new.runs.start, new.start))
        if new.stop == 4 and new.runs.start == 0:
            raise kind("mine")

    with pytest.raises(kind, match="mine") as caught:
        sd.run(EXPERIMENT, tmp_path / "out", verify=False, on_chunk=f, checkpoint_seconds=1e9)
    shown = "".join(traceback.format_exception(caught.value))
    assert 'raise kind("mine")' in shown and "after update 4 of runs 0 to 3. Nothing is lost" in shown
    sd.run(EXPERIMENT, tmp_path / "out", verify=False, on_chunk=lambda new: told.append((new.runs.start, new.start)))
    assert digests(tmp_path / "out") == digests(quiet)
    assert sorted(told) == [(first, start) for first in (0, 4) for start in (0, 2, 4, 6)]  # none a second time


def test_a_script_shows_the_traceback_of_a_listener_and_no_sentence_of_its_own(tmp_path, monkeypatch):
    def fail(new):
        raise OSError("the tracker's disk is full")

    monkeypatch.setattr("sys.argv", ["script"])
    with pytest.raises(OSError, match="the tracker's disk"):
        script.script(script.Options, lambda _: sd.run(EXPERIMENT, tmp_path / "out", verify=False, on_chunk=fail), None)


def test_several_listeners_hear_in_turn_and_what_has_been_trained_is_not_told_again(quiet):
    told = []
    sd.run(EXPERIMENT, quiet, verify=False, on_chunk=[told.append, told.append])
    assert not told
    longer = sd.Experiment("told", RUNS, updates=12, chunk=2, probe_every=4, tile=4, probes=())
    out = sd.run(longer, quiet, verify=False, on_chunk=(told.append, functools.partial(told.append)))
    assert Counter((new.runs.start, new.start) for new in told) == dict.fromkeys(
        [(first, start) for first in (0, 4) for start in (8, 10)], 2
    )
    assert [[*new.looks] for new in told if new.stop == 12] == [[3]] * 4
    assert not np.isnan(sd.load(out).test_loss[0]).any()


async def waits(new):
    """Nobody awaits it."""


def yields(new):
    yield new


@pytest.mark.parametrize("wrong", [3, "print", [print, 3], {"f": 1}, waits, yields, lambda: None, lambda a, b: None])
def test_what_cannot_be_told_of_a_chunk_is_refused_before_anything_is_written(tmp_path, wrong):
    assert refusal(sd.run, EXPERIMENT, tmp_path / "out", on_chunk=wrong).startswith("on_chunk is ")
    assert not (tmp_path / "out").exists()
