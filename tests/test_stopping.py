"""Laws of early stopping: what stops when, what is kept, and that nobody else notices."""

import dataclasses
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from _training import over, start

import seqdyn
from seqdyn.backend import compiled
from seqdyn.data.text import Examples
from seqdyn.learn import stopping
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.numbers import Numbers
from seqdyn.runs import checkpoint, run, sweep
from seqdyn.types import ConfigError

X64 = False
SPEC = Spec("labelled", 5, 8, features=3, classes=3, hidden=(12,), stop="loss", evaluate_train=True)
PATIENCE = 2


def examples(seed, n):
    """Labels that depend on the sequences, a third of them replaced: something to learn, and to overfit."""
    rng = np.random.default_rng(seed)
    xs = rng.normal(size=(n, 5, 3)).astype(np.float32)
    ys = np.where(rng.random(n) < 0.3, rng.integers(0, 3, n), xs[:, -1].argmax(axis=-1))
    return Examples(xs, np.full(n, 5, np.int32), ys.astype(np.int32))


# 30 = 3 · 8 + 6: the last batch of each is filled up.
DATA = {"train": examples(0, 30), "validation": examples(1, 30), "test": examples(2, 30)}


def experiment(updates=60, spec=SPEC, **axes):
    axes = dict(patience=[np.inf, PATIENCE], seeds=2, lr=0.02) | axes
    return Experiment("stops", (spec,), grid(**axes), updates, chunk=5, probe_every=5, tile=4, probes=())


def trained(out, data=DATA, **changes):
    return run.run(experiment(**changes), out, data, verify=False)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("stopping") / "out")


@pytest.fixture(scope="module")
def ds(out):
    return seqdyn.load(out).load()


@cache
def _looked(spec):
    return compiled(over(stopping.update, spec))


@pytest.mark.parametrize("kind", ["loss", "accuracy"])
@pytest.mark.parametrize("least", [0.0, 0.05])
def test_the_decision_is_that_of_the_plain_loop(kind, least):
    spec, rng = dataclasses.replace(SPEC, stop=kind), np.random.default_rng(0)
    numbers = Numbers(patience=3, min_improvement=least).arrays()
    params, looked = start(spec).params, _looked(spec)
    for _ in range(20):
        seen = np.cumsum(rng.normal(size=12) * 0.1).astype(np.float32)
        kept, best, at, waited, stopped = stopping.init(spec, params), np.inf, 0, 0, False
        for n, value in enumerate(seen):
            if stopped:
                break
            sign = -1 if kind == "accuracy" else 1
            kept = looked(numbers, kept, params, jnp.int32(n), {f"validation_{kind}": jnp.float32(value)})
            if sign * value < np.float32(best - np.float32(least)):
                best, at, waited = sign * value, n, 0
            else:
                waited += 1
            stopped = waited >= 3
            assert (int(kept.at), float(kept.waited), bool(kept.stopped)) == (at, waited, stopped)


def test_a_run_stops_after_its_patience_and_its_records_until_then_are_those_of_one_that_never_stops(ds):
    for seed in (0, 1):
        on, off = (np.flatnonzero((ds["patience"] == p) & (ds["seed"] == seed))[0] for p in (np.inf, PATIENCE))
        stopped = ds["stopped"].values
        assert not stopped[on].any() and stopped[off, -1]
        last = int(stopped[off].argmax())
        losses = ds["validation_loss"].values
        best = int(losses[on, : last + 1].argmin())
        assert last == best + PATIENCE
        assert ds["best_step"].values[off, -1] == best * 5
        assert np.array_equal(losses[on, : last + 1], losses[off, : last + 1])
        assert np.isnan(losses[off, last + 1 :]).all() and last < losses.shape[1] - 1
        for name in ("loss", "adjoint_norm", "group_update_norm"):
            values = ds[name].values
            assert np.array_equal(values[on, : last * 5], values[off, : last * 5]), name
            assert np.isnan(values[off, last * 5 :]).all() and np.isfinite(values[on]).all(), name
        assert np.array_equal(ds["recorded"].values[off], np.arange(60) < last * 5)


def test_the_best_parameters_are_those_at_the_best_look_and_the_last_those_at_which_it_stopped(out, ds, tmp_path):
    for r in np.flatnonzero(ds["patience"] == PATIENCE):
        best, last = int(ds["best_step"].values[r, -1]), int(ds["recorded"].values[r].sum())
        for step, kept in ((best, True), (last, False)):
            again = trained(tmp_path / f"{r}-{step}", updates=step, patience=np.inf, seeds=[int(ds["seed"][r])])
            assert checkpoint.digest(seqdyn.restore(out, r, best=kept)) == checkpoint.digest(seqdyn.restore(again, 0))


@pytest.mark.slow
def test_a_run_that_goes_on_from_a_checkpoint_decides_the_same(out, tmp_path):
    for updates in (15, 30, 60):
        trained(tmp_path / "out", updates=updates)
    first, again = seqdyn.load(out).load(), seqdyn.load(tmp_path / "out").load()
    assert first.identical(again)
    for r in range(4):
        for best in (False, True):
            digests = [checkpoint.digest(seqdyn.restore(o, r, best=best)) for o in (out, tmp_path / "out")]
            assert digests[0] == digests[1]


def test_the_test_labels_change_neither_epoch_nor_parameters(out, ds, tmp_path):
    noise = DATA["test"]._replace(ys=np.random.default_rng(9).integers(0, 3, 30).astype(np.int32))
    again = trained(tmp_path / "out", DATA | {"test": noise})
    blind = seqdyn.load(again).load()
    assert not np.array_equal(ds["test_loss"].values, blind["test_loss"].values, equal_nan=True)
    of_test = [name for name in ds.data_vars if str(name).startswith("test_")]
    assert ds.drop_vars(of_test).identical(blind.drop_vars(of_test))
    for r in range(4):
        assert checkpoint.digest(seqdyn.restore(out, r, best=True)) == checkpoint.digest(
            seqdyn.restore(again, r, best=True)
        )


def test_a_tile_whose_runs_have_all_stopped_is_not_computed(tmp_path, monkeypatch):
    called, programs = [], sweep.programs

    def counted(spec, width):
        made = programs(spec, width)

        class Chunk:
            eval_shape = made.chunk.eval_shape

            def __call__(self, *given):
                called.append(int(given[1].step[0]))
                return made.chunk(*given)

        return made._replace(chunk=Chunk())

    monkeypatch.setattr(sweep, "programs", counted)
    ds = seqdyn.load(trained(tmp_path / "out", patience=PATIENCE)).load()
    assert len(called) * 5 == ds["recorded"].sum("step").max() < 60
    assert ds["stopped"].values[:, -1].all()


def test_the_training_split_is_judged_like_the_held_out_ones_its_last_incomplete_batch_too(tmp_path):
    data = DATA | {"validation": DATA["train"]}
    ds = seqdyn.load(trained(tmp_path / "out", data, updates=10)).load()
    for metric in ("loss", "accuracy"):
        assert np.array_equal(ds[f"train_{metric}"].values, ds[f"validation_{metric}"].values)
    assert not np.array_equal(ds["train_loss"].values, ds["test_loss"].values)


@pytest.mark.parametrize(
    "changes, axes, said",
    [
        (dict(stop="auc"), {}, "stop is 'auc'"),
        (dict(task="adding", features=0, evaluate_train=False), {}, "stop is 'loss' for the task 'adding'"),
        (dict(classes=0, stop="accuracy"), {}, "stop is 'accuracy'"),
        (dict(stop="none"), {}, "patience is 2"),
        ({}, dict(patience=0), "patience is 0"),
        ({}, dict(min_improvement=-1), "min_improvement is -1"),
        (dict(stop="none"), dict(patience=np.inf, min_improvement=0.1), "min_improvement is 0.1"),
        (dict(task="adding", features=0, classes=2, stop="none"), dict(patience=np.inf), "evaluate_train is True"),
    ],
)
def test_wrong_input_is_a_sentence(changes, axes, said):
    with pytest.raises(ConfigError, match=said):
        experiment(spec=dataclasses.replace(SPEC, **changes), **axes)
