"""Laws of `seqdyn.layout`: where runs lie follows from the manifest's JSON, and so they stay readable."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import seqdyn
from seqdyn.layout import Layout, layout
from seqdyn.learn import config
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs import manifest, run
from seqdyn.runs.records import Store
from seqdyn.types import ConfigError


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=4), tile=st.integers(1, 5))
def test_every_run_lies_in_one_tile_and_tiles_are_numbered_in_its_order(counts, tile):
    at = Layout(tuple(counts), tile, updates=7, chunk=1, probe_every=2, steps=5)
    runs = [(t.spec, run) for t in at.tiles for run in t.runs]
    assert runs == [(spec, run) for spec, count in enumerate(counts) for run in range(count)]
    assert [t.index for t in at.tiles] == list(range(len(at.tiles))) and at.rows == tile * len(at.tiles)
    assert all(0 < len(t.runs) <= tile for t in at.tiles) and at.probes == len(range(0, 8, 2))


@pytest.fixture
def out(tmp_path):
    """Records of three runs, written without a network."""
    e = Experiment("read", (Spec(steps=4),), grid(seeds=3, clip=[np.inf]), updates=2, chunk=1, probe_every=2, tile=2)
    manifest.open_run(tmp_path / "out", e, {})
    store = Store(tmp_path / "out" / "records.zarr", e.layout)
    store.create(["loss", "recorded", "test_loss"], {"layer": [0], "group": [], "gate": []})
    for tile in e.layout.tiles:
        for step in range(2):
            store.write(tile, step, {"loss": np.full((2, 1), tile.index), "recorded": np.ones((2, 1), bool)})
        for probe in range(2):
            store.write(tile, probe, {"test_loss": np.full(2, probe)})
    return tmp_path / "out"


def said(out, change):
    """Another version's manifest."""
    manifest.note(out, lambda found: found | {"experiment": change(json.loads(json.dumps(found["experiment"])))})


def same(out):
    ds = seqdyn.load(out)
    assert ds.loss.values.tolist() == [[0, 0], [0, 0], [1, 1]] and ds.test_loss.values.tolist() == [[0, 1]] * 3
    assert ds["seed"].values.tolist() == [0, 1, 2] and ds["label"].values.tolist() == ["rnn tanh"] * 3
    assert np.isinf(ds["clip"]).all() and not run.complete(out)


def test_records_are_read_though_the_experiment_would_be_refused_today(out, monkeypatch):
    def refuse(_):
        raise ConfigError("experiment is such; it must be another.")

    monkeypatch.setattr(config, "validate", refuse)
    same(out)
    said(out, lambda e: e | {"specs": [e["specs"][0] | {"cell": "rnn", "optimizer": "one that is gone"}]})
    same(out)


def test_records_of_an_older_and_of_a_newer_version_are_read(out):
    def older(e):
        del e["hypers"]["strength"], e["specs"][0]["augment"], e["settings"]
        return e

    said(out, older)
    same(out)
    said(out, lambda e: e | {"new": 1, "hypers": e["hypers"] | {"later": [0, 0, 0]}})
    said(out, lambda e: e | {"specs": [e["specs"][0] | {"unheard_of": "word"}]})
    same(out)


def test_the_layout_of_an_experiment_is_that_of_its_json():
    e = Experiment("two", (Spec(), Spec(cell="gru")), grid(seeds=5), updates=8, chunk=2, probe_every=4, tile=2)
    assert e.layout == layout(json.loads(json.dumps(e.describe()))) == Layout((5, 5), 2, 8, 2, 4, 100)
