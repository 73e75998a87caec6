"""Thousands of bad inputs: each ends in success or in one sentence, and nothing is left behind.

`ConfigError` is what scripts print as one sentence with exit code 2; anything else that is raised fails here.
"""

import contextlib
import dataclasses
import errno
import json
import math
import os
import shutil
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from _digests import digests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import seqdyn
from seqdyn.data.audio import recordings
from seqdyn.data.check import check
from seqdyn.data.datasets import characters, music
from seqdyn.data.text import Examples, labelled_text
from seqdyn.data.vectors import load_vocabulary, read_vectors
from seqdyn.io import safetensors
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.numbers import Numbers
from seqdyn.runs import manifest
from seqdyn.runs.lock import shard
from seqdyn.runs.script import Options
from seqdyn.runs.usual import check_options
from seqdyn.types import ConfigError, as_path

X64 = False
LONG = 1000
SHORT = 40
QUIET = dict(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 12), st.floats(), st.text(max_size=4), st.just(()), st.just((1, 0))
)
HINTS = get_type_hints(Spec)


@pytest.fixture
def many(request):
    """How many cases."""
    return LONG if request.config.getoption("--attack", default=False) else SHORT


def attacked(many, strategy, tried):
    """Calls `tried` with that many values; returns how many were refused."""
    count = {"refused": 0, "said": 0}

    @settings(max_examples=many, **QUIET)
    @given(strategy)
    def one(value):
        count["said"] += 1
        try:
            tried(value)
        except ConfigError as error:
            count["refused"] += 1
            sentence = str(error)
            assert sentence.strip() and "\n" not in sentence.strip(), sentence

    one()
    assert count["said"] >= many * 0.9
    return count["refused"]


def _field(name):
    words = get_args(HINTS[name])
    words = get_args(words[0]) or words if words else words  # of a word, or a part in its place
    if words and all(isinstance(w, str) for w in words):
        return st.sampled_from(words) | ODD
    if HINTS[name] is bool:
        return st.booleans() | ODD
    return ODD | st.integers(1, 30) | st.lists(st.integers(-1, 8), max_size=3).map(tuple)


SPECS = st.fixed_dictionaries({}, optional={f.name: _field(f.name) for f in dataclasses.fields(Spec)})
NUMBERS = st.floats() | st.integers(-2, 5) | st.lists(st.floats(-1, 2), max_size=3) | ODD
GRIDS = st.fixed_dictionaries({}, optional={f.name: NUMBERS for f in dataclasses.fields(Numbers) if f.name != "seed"})
COUNTS = st.integers(-1, 8) | ODD


def test_any_config_is_an_experiment_or_a_sentence(many):
    def tried(case):
        spec, numbers, seeds, counts = case
        e = Experiment("odd", (Spec(**spec),), grid(seeds=seeds, **numbers), *counts)
        assert json.loads(json.dumps(e.describe(), allow_nan=False)) == e.describe()

    few = st.dictionaries(st.sampled_from(list(HINTS)), ODD, max_size=1)
    specs = SPECS | few.map(lambda d: {k: v for k, v in d.items()})
    whole = st.tuples(
        specs, GRIDS | st.just({}), COUNTS, st.tuples(COUNTS, COUNTS, COUNTS, COUNTS) | st.just((8, 2, 4, 2))
    )
    assert attacked(many, whole, tried) > many // 2


def test_one_odd_field_in_a_good_config_is_an_experiment_or_a_sentence(many):
    fields = st.sampled_from(list(HINTS)).flatmap(lambda name: st.tuples(st.just(name), _field(name)))

    def tried(case):
        e = Experiment("odd", (Spec(**dict([case])),), grid(seeds=2), 8, 2, 4, tile=2)
        assert e.specs[0].label and len(e.numbers) == 2

    assert attacked(many, fields, tried)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    e = Experiment("odd", (Spec(steps=6, batch=3, hidden=(4,), holdout=6),), grid(seeds=2), 4, 2, 2, tile=2)
    return e, seqdyn.run(e, tmp_path_factory.mktemp("made") / "out", verify=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
EDITS = st.tuples(st.integers(0, 10**6), st.sampled_from(["replace", "insert", "cut"]), st.binary(max_size=6))


def test_a_mutated_manifest_is_a_sentence(many, made, tmp_path):
    e, whole = made
    good = (whole / manifest.NAME).read_bytes()
    out = tmp_path / "out"
    shutil.copytree(whole, out)

    def tried(case):
        data = bytearray(good)
        if isinstance(case, tuple):
            at, how, with_ = case[0] % len(good), case[1], case[2]
            data[at : at + len(with_) if how == "replace" else at if how == "insert" else len(data)] = with_
        else:
            data = bytearray(json.dumps(case).encode())
        (out / manifest.NAME).write_bytes(bytes(data))
        try:
            manifest.read(out)
            manifest.open_run(out, e, {})
        finally:
            assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]

    assert attacked(many, EDITS | JSON, tried) > many // 2


WORDS = st.text(alphabet="ab é\u00a0\t", max_size=3)
NUMERALS = st.sampled_from(["1", "-0.5", "1e9", "nan", "inf", "1e400", "x", "", "0x1", "١"])
LINES = st.tuples(WORDS, st.lists(NUMERALS, max_size=4)).map(lambda line: " ".join([line[0], *line[1]]))
FILES = st.lists(LINES, max_size=5).map(lambda lines: "\n".join(lines).encode()) | st.binary(max_size=40)


def test_any_file_of_vectors_is_read_or_a_sentence(many, tmp_path):
    def tried(case):
        data, suffix = case
        path = tmp_path / f"vectors{suffix}"
        path.write_bytes(data)
        found = read_vectors(path)
        assert len(found.words) == len(found.table) and np.isfinite(found.table).all()

    assert attacked(many, st.tuples(FILES, st.sampled_from([".txt", ".txt", ".gz", ".zip"])), tried) > many // 4


ARRAYS = st.one_of(
    st.tuples(st.sampled_from([(0,), (2,), (2, 4), (2, 4, 1), (3, 4)]), st.integers(-1, 6), st.sampled_from("ifb")).map(
        lambda a: np.full(a[0], a[1], {"i": np.int32, "f": np.float32, "b": bool}[a[2]])
    ),
    st.just(np.full((2, 4), math.nan, np.float32)),
    st.just(np.full((2,), 1, np.int32)),
    st.just(np.full((2, 4), 3, np.int32)),
)
SPLITS = st.builds(Examples, ARRAYS, ARRAYS, ARRAYS)  # type: ignore[arg-type]
DATA = st.dictionaries(st.sampled_from(["train", "validation", "test", "other", "vectors"]), SPLITS, max_size=3) | ODD


def test_any_data_set_fits_or_is_a_sentence(many):
    spec = Spec("labelled", steps=4, batch=1, vocabulary=5, embedding=2)
    good = Examples(np.full((2, 4), 3, np.int32), np.full(2, 4, np.int32), np.full(2, 1, np.int32))
    check(spec, {"train": good, "validation": good})
    one = SPLITS.map(lambda split: {"train": good, "validation": split})
    assert attacked(many, DATA | one, lambda data: check(spec, data)) > many // 4


def test_any_texts_are_ids_or_a_sentence(many):
    texts = st.lists(st.text(max_size=8) | st.just("a b"), max_size=3)
    parts = st.tuples(texts, st.lists(st.integers(-1, 2), max_size=3))
    reviews = st.dictionaries(st.sampled_from(["train", "validation", "test"]), parts, max_size=3)
    reviews |= st.dictionaries(st.just("train"), ODD | st.tuples(texts), min_size=1)
    attacked(many, st.tuples(reviews | ODD, st.integers(-1, 6)), lambda c: labelled_text(c[0], length=c[1]))


PATHS = st.sampled_from([b"x", "a\0b", "a" * 300, "~no one here/x", "below/a file", "nowhere", "round", "folder"]) | ODD


OPENED = [
    seqdyn.load,
    lambda path: seqdyn.restore(path, 0),
    read_vectors,
    load_vocabulary,
    characters,
    music,
    recordings,
    safetensors.load,
    lambda path: manifest.check_place(manifest.directory(path)),
]


@pytest.mark.parametrize("opened", OPENED)
def test_any_path_is_one_or_a_sentence(opened, many, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "nobody")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    assert attacked(many, PATHS, opened) > many // 4


@pytest.mark.parametrize(
    "opened",
    [
        *OPENED,
        lambda path: seqdyn.run(Experiment("x", Spec(), updates=1), path),
        lambda path: check_options(Options(out=Path(path))),
    ],
)
@pytest.mark.parametrize("address", ["s3://bucket/x", "gs://bucket", "file:///tmp/x", "hdfs:/x"])
def test_an_address_is_no_path_and_makes_no_folder(address, opened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="an address; it must be a path") as told:
        opened(address)
    assert str(told.value).count("must be") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["runs:", "./exp:/x", "a:b/c"])
def test_a_folder_with_a_colon_in_its_name_is_no_address(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert as_path("out", name) == Path(name)
    check_options(Options(out=Path("runs:")))


def test_a_config_that_json_cannot_say_is_a_sentence(tmp_path):
    round_and_round: dict = {}
    round_and_round["a"] = round_and_round
    for config in (round_and_round, {"a": object()}, {"a": math.nan}, {(1, 2): 3}):
        with pytest.raises(ConfigError, match="config is .* JSON can say"):
            manifest.open_run(tmp_path / "out", Experiment("x", Spec(), updates=1), config)
    assert not (tmp_path / "out").exists()


def test_any_shard_is_one_or_a_sentence(many):
    digits = st.text(alphabet="0123/-² ", max_size=5)
    assert attacked(many, digits | st.text(max_size=4), shard) > many // 4


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
def test_where_nothing_can_be_written_a_run_that_is_done_is_done_and_all_else_a_sentence(error, made, monkeypatch):
    def refused(**_):
        raise OSError(error, os.strerror(error))

    e, out = made
    before = digests(out)
    monkeypatch.setattr(manifest, "TemporaryFile", refused)
    assert seqdyn.run(e, out) == out
    closed = []

    class Hears:
        def __call__(self, chunk):
            pytest.fail("trained")

        def close(self):
            closed.append(self)

    for more in ({}, dict(updates=2 * e.updates), dict(tile=e.tile + 1)):
        told = (
            contextlib.nullcontext()
            if not more
            else pytest.raises(ConfigError, match=f"go on in a copy.*|holds another experiment: {next(iter(more))} is")
        )
        with told:
            seqdyn.run(dataclasses.replace(e, **more), out, on_chunk=Hears())
    assert len(closed) == 3
    with pytest.raises(ConfigError, match=f"{os.strerror(error)}.; probe a copy of it"):
        seqdyn.probe(out, "weights", steps=[0])
    assert digests(out) == before
