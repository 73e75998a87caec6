"""Laws of `mirrors`: a tracker has of each run what `load` has, number for number, and goes on when the run does."""

import dataclasses
import struct
from collections import defaultdict

import numpy as np
import pytest
from _refusals import refusal

import seqdyn as sd
from seqdyn import mirrors
from seqdyn.data import extras

X64 = False
LIBRARIES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
each = pytest.mark.parametrize("name", LIBRARIES)
each_mirrored = pytest.mark.parametrize(
    "mirrored",
    [pytest.param(name, marks=pytest.mark.slow) for name in LIBRARIES],
    indirect=True,
)
of_tensorboard_alone = pytest.mark.parametrize(
    "mirrored", [pytest.param("tensorboard", marks=pytest.mark.slow)], indirect=True
)


def experiment(updates):
    runs = sd.grid(sd.Spec(steps=4, batch=2, hidden=(3,), holdout=4), seeds=2, lr=[1e-2, 1e30])
    return sd.Experiment("mirrored", runs, updates=updates, chunk=2, probe_every=4, tile=3, probes=())


def made(name, base, every):
    given = {"tensorboard": (base,), "wandb": ("p",), "trackio": ("p",)}[name]
    options = {"dir": base} if name == "wandb" else {}
    return getattr(mirrors, name)(*given, every=every, **options)


@pytest.fixture(scope="module")
def mirrored(request, tmp_path_factory):
    """(run directory, tracker, its folder, the chunks), trained by two commands, each with a mirror of its own."""
    name = request.param
    base, chunks = tmp_path_factory.mktemp(name), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(base / "said"))  # read when it is imported
        pytest.importorskip(LIBRARIES[name])
        (base / "said").mkdir()
        for updates in (4, 8):
            heard = [chunks.append, made(name, base / "said", 1)]
            sd.run(experiment(updates), base / "out", verify=False, on_chunk=heard)
        yield base / "out", name, base / "said", chunks


def events(folder):
    """Of each run's folder its events, in the order of files."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for where in sorted(path for path in folder.rglob("*") if path.is_dir() and any(path.glob("events*"))):
        found[where.name] = []
        for file in sorted(where.glob("events*")):
            data = file.read_bytes()
            while data:  # a length with its checksum, a record with its own
                (length,) = struct.unpack("<Q", data[:8])
                found[where.name].append(Event.FromString(data[12 : 12 + length]))
                data = data[16 + length :]
    return found


def of_tensorboard(folder):
    found = {}
    for name, of in events(folder).items():
        said = defaultdict(list)
        for event in of:
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    said[event.step, value.tag].append(value.simple_value)
        found[name] = said
    return found


def of_wandb(folder):
    """Of each run, by its name, what lies in its .wandb files: a log in blocks of 32 KiB, as LevelDB has it."""
    import json

    from wandb.proto import wandb_internal_pb2

    found = {}
    for file in sorted(folder.rglob("*.wandb")):
        data, at, record, name, said = file.read_bytes(), 7, b"", None, defaultdict(list)
        while at + 7 <= len(data):
            if 2**15 - at % 2**15 < 7:  # no room for a head
                at += 2**15 - at % 2**15
                continue
            length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
            record = (record if kind in (3, 4) else b"") + data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):
                one = wandb_internal_pb2.Record.FromString(record)
                if one.HasField("run"):
                    name = one.run.display_name
                items = {item.key or "/".join(item.nested_key): item.value_json for item in one.history.item}
                for tag, value in items.items():
                    if tag[0] != "_":
                        said[json.loads(items["_step"]), tag].append(float(json.loads(value)))
        for where, values in said.items():
            found.setdefault(name, defaultdict(list))[where] += values
    return found


def of_trackio(folder):
    from trackio.sqlite_storage import SQLiteStorage

    found = {}
    for name in SQLiteStorage.get_runs("p"):
        said = found[name.removeprefix("out ")] = defaultdict(list)
        for row in SQLiteStorage.get_logs("p", name):
            for tag in row.keys() - {"step", "timestamp"}:
                said[row["step"], tag].append(row[tag])
    return found


def wanted(ds, run):
    """(updates done, tag) -> value, by hand."""
    found = {}
    for name in ("loss", "grad_norm", "finite", "test_loss"):
        steps = ds["step"].values + 1 if "step" in ds[name].dims else ds["probe_step"].values
        found |= {(int(n), name): float(v) for n, v in zip(steps, ds[name].values[run], strict=True)}
    for n in range(ds.sizes["step"]):
        for lag in (0, 1, 3):
            found[n + 1, f"adjoint_norm/layer_0/lag_{lag}"] = float(ds["adjoint_norm"].values[run, n, 0, 3 - lag])
    return {where: value for where, value in found.items() if np.isfinite(value)}


@each_mirrored
def test_a_tracker_has_every_number_once_in_a_run_for_each_run(mirrored):
    out, name, folder, _ = mirrored
    found = {"tensorboard": of_tensorboard, "wandb": of_wandb, "trackio": of_trackio}[name](folder)
    ds = sd.load(out).load()
    names = [f"{run} rnn tanh, seed={run % 2}, lr={'0.01' if run < 2 else '1e+30'}" for run in range(4)]
    assert sorted(found) == sorted(names)
    for run, called in enumerate(names):
        right = wanted(ds, run)
        assert not right.keys() - found[called].keys()
        for where, value in right.items():
            assert found[called][where] == [value], where
        tags = {tag for _, tag in found[called]}
        assert "recorded" not in tags and "group_grad_norm/readout" in tags
        kept = [v for values in found[called].values() for v in values]
        assert np.isfinite(kept).all()
    assert found[names[3]][8, "finite"] == [0.0] and (8, "loss") not in found[names[3]]


@each_mirrored
def test_its_config_are_the_coordinates_of_the_run(mirrored):
    out, name, folder, _ = mirrored
    if name == "tensorboard":
        said = [
            value.tensor.string_val[0].decode()
            for of in events(folder).values()
            for event in of
            for value in event.summary.value
            if value.tag.startswith("config")
        ]
    elif name == "trackio":
        from trackio.sqlite_storage import SQLiteStorage

        said = [str(SQLiteStorage.get_run_config("p", run)) for run in SQLiteStorage.get_runs("p")]
    else:
        said = [file.read_bytes().decode(errors="replace") for file in sorted(folder.rglob("*.wandb"))]
    assert len(said) == (8 if name == "wandb" else 4)  # each of its commands says it
    for word in ("seed", "lr", "label", "rnn tanh", "clip", str(out)):
        assert all(word in of for of in said), word


@of_tensorboard_alone
def test_what_a_killed_process_said_of_later_updates_is_hidden_by_tensorboard(mirrored, tmp_path):
    chunks = [new for new in mirrored[3] if 0 in new.runs]
    for heard in ([0, 1], [1, 2, 3]):  # the second was told, not saved, and made again
        mirror = mirrors.tensorboard(tmp_path, 1)
        for i in heard:
            mirror(chunks[i])
    for of in events(tmp_path).values():
        begins = [(event.session_log.status, event.step) for event in of if event.HasField("session_log")]
        # START: whoever reads drops what stands before, of step 3 or later; the command after the first began at 4.
        assert begins == [(1, 3), (1, 5)]


@of_tensorboard_alone
def test_the_last_update_of_each_chunk_and_every_look_are_said_by_default(mirrored, tmp_path):
    mirror = mirrors.tensorboard(tmp_path)
    for new in mirrored[3]:
        mirror(new)
    for said in of_tensorboard(tmp_path).values():
        steps = {tag: sorted(n for n, of in said if of == tag) for _, tag in said}
        assert steps["finite"] == [2, 4, 6, 8] and steps["test_loss"][:1] == [0]


def test_what_is_open_ends_with_the_training_whatever_ends_it(tmp_path):
    said, chunks = [], []

    class Said:
        def log(self, values, step):
            said.append("log")

        def finish(self):
            said.append("finish")

    def begin(run):
        said.append(run.done)
        return Said()

    def twice(new):
        chunks.append(new)
        if len(chunks) == 2:
            raise RuntimeError("mine")

    e, mirror = dataclasses.replace(experiment(8), tile=4), mirrors._Mirror(begin, None)
    with pytest.raises(RuntimeError, match="mine"):
        sd.run(e, tmp_path / "out", verify=False, on_chunk=[mirror, twice])
    assert [one for one in said if one != "log"] == [0] * 4 + ["finish"] * 4
    said.clear()
    sd.run(e, tmp_path / "out", verify=False, on_chunk=[mirror])
    assert [one for one in said if one != "log"] == [4] * 4 + ["finish"] * 4


@each
def test_a_missing_library_is_a_sentence_with_its_extra(name, monkeypatch, tmp_path):
    def missing(module):
        raise ImportError(module)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    said = refusal(made, name, tmp_path, None)
    assert said == f"mirrors.{name} needs {LIBRARIES[name]}: install seqdyn[{name}]."


@pytest.mark.parametrize("every", [0, -1, 2.5, "2"])
def test_every_is_a_number_of_updates(every, tmp_path):
    pytest.importorskip("tensorboardX")
    assert "every is" in refusal(made, "tensorboard", tmp_path, every)
