"""Laws of what surrounds a run: other machines and settings, strange names, terminals, homes and repositories."""

import ast
import dataclasses
import io
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro
import xarray as xr
from _refusals import refusal

import seqdyn
from analysis import lags, report, style
from experiments import wording
from seqdyn import backend
from seqdyn.data.cache import cached
from seqdyn.runs import environment, launchers, manifest, script
from seqdyn.runs.display import plain_console
from seqdyn.runs.lock import gate
from seqdyn.types import ConfigError

X64 = False
ROOT = Path(__file__).parent.parent
SPEC = seqdyn.Spec(steps=4, batch=2, hidden=(2,), holdout=2, name="rnn [h=2] :x: $a$")
TINY = seqdyn.Experiment("tiny", (SPEC,), seqdyn.grid(), updates=2, chunk=2, probe_every=2, tile=1)
LONGER = dataclasses.replace(TINY, updates=4)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return seqdyn.run(TINY, tmp_path_factory.mktemp("made") / "run", verify=False)


@pytest.fixture
def out(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def noted(out, **changes):
    """The manifest with other facts; None takes one out."""
    found = manifest.read(out) | changes
    manifest.write(out, {name: value for name, value in found.items() if value is not None})


# --- other machines and settings ------------------------------------------------------------------------------


def test_smoke_compiles_quickly_which_the_manifest_would_note_and_the_environment_overrules(monkeypatch):
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    monkeypatch.setattr(sys, "argv", ["script", "--smoke"])
    try:
        for said, quick in (("0", False), (None, True)):
            jax.config.update(name, False)
            monkeypatch.setenv(name.upper(), said) if said else monkeypatch.delenv(name.upper())
            script.script(script.Options, lambda _: None, None)
            assert environment.environment(TINY)["settings"][name] is quick
    finally:
        jax.config.update(name, before)


@pytest.mark.parametrize("name, there", [("jax_default_prng_impl", "rbg"), ("jax_threefry_partitionable", False)])
def test_a_setting_that_draws_other_data_is_refused_and_named(out, name, there):
    noted(out, draws=manifest.read(out)["draws"] | {name: there})
    before = manifest.read(out)
    said = refusal(seqdyn.run, LONGER, out, verify=False)
    assert f"{name} {there} and here it is {jax.config.values[name]}" in said and name.upper() in said
    assert manifest.read(out) == before


@pytest.mark.parametrize(
    "fact", [{"instruction_set": "AVX"}, {"processor": "another"}, {"xla_flags": {"xla_a": "1"}}, {"device": "another"}]
)
def test_what_only_rounds_otherwise_is_a_warning_that_names_it_and_a_line_in_the_manifest(out, fact):
    here = manifest.read(out)
    noted(out, **fact)
    (name, there) = next(iter(fact.items()))
    with pytest.warns(UserWarning, match=re.escape(name)):
        seqdyn.run(LONGER, out, verify=False)
    found = manifest.read(out)
    assert found[name] == there and [line[name] for line in found["resumed_on"]] == [here[name]]


def test_an_older_manifest_that_says_less_is_gone_on_with(out):
    new = ("draws", "settings", "xla_flags", "instruction_set", "processor")
    noted(out, **dict.fromkeys(new))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seqdyn.run(LONGER, out, verify=False)
    assert seqdyn.load(out).recorded.all() and set(new) <= set(manifest.read(out)["resumed_on"][0])


def test_the_instruction_set_is_the_processors_at_most_what_xla_may_use():
    cpu = {"flags": "sse4_2 avx avx2 fma avx512f"}
    assert environment.instruction_set(cpu, {}) == "AVX512"
    assert environment.instruction_set(cpu, {"xla_cpu_max_isa": "avx2"}) == "AVX2"
    assert environment.instruction_set({"flags": "avx"}, {"xla_cpu_max_isa": "AVX512"}) == "AVX"
    assert environment.instruction_set({"Features": "fp asimd sve"}, {}).endswith(" asimd sve")
    assert environment.instruction_set({}, {"xla_cpu_max_isa": "AVX"})


def test_flags_that_change_no_bits_are_no_difference():
    flags = {"xla_force_host_platform_device_count": "4", "xla_dump_to": "x", "xla_gpu_autotune_level": "0"}
    assert environment.deciding(flags | {"xla_cpu_enable_fast_math": "true"}, "cpu") == {
        "xla_cpu_enable_fast_math": "true"
    }


def test_flags_may_stand_in_a_file(tmp_path, monkeypatch):
    (tmp_path / "flags").write_text("--xla_a=1\n--xla_b\n", encoding="utf-8")
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    assert backend.flags() == {"xla_a": "1", "xla_b": ""}
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "none"))
    assert "XLA_FLAGS" in refusal(backend.flags)


@pytest.mark.parametrize("name", ["jax_enable_x64", "jax_debug_nans", "jax_disable_jit", "jax_transfer_guard"])
def test_settings_under_which_training_cannot_be_right_are_refused_before_anything_is_written(tmp_path, name):
    was = jax.config.values[name]
    jax.config.update(name, "disallow" if was is None else True)
    try:
        assert name in refusal(seqdyn.run, TINY, tmp_path / "out")
    finally:
        jax.config.update(name, was)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, context",
    [
        ("jax_default_prng_impl", lambda: jax.default_prng_impl("rbg")),
        ("jax_threefry_partitionable", lambda: jax.threefry_partitionable(False)),
        ("jax_default_matmul_precision", lambda: jax.default_matmul_precision("bfloat16")),
    ],
)
def test_a_setting_that_the_training_threads_would_not_see_is_refused(tmp_path, name, context):
    with context():
        assert f"jax.config.update('{name}'" in refusal(seqdyn.run, TINY, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_programs_are_kept_in_the_users_cache_where_nobody_says_otherwise(tmp_path, monkeypatch):
    """Nor where nothing can be written."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: jax.config.values[name] for name in names}

    def started(home, **environment):
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        backend._keep_programs()
        return jax.config.values["jax_compilation_cache_dir"]

    try:
        assert not started("home", JAX_COMPILATION_CACHE_DIR="") and not (tmp_path / "home").exists()
        folder = Path(started("home"))
        assert folder.is_dir() and folder.parent == tmp_path / "home" / "seqdyn"
        (tmp_path / "file").touch()
        assert started("file") is None
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.slow
def test_a_run_of_kept_programs_has_the_bits_of_one_that_compiles(tmp_path):
    given = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    del given["JAX_COMPILATION_CACHE_DIR"]
    kept = []
    for name in ("first", "second"):
        command = [
            sys.executable,
            ROOT / "experiments" / "gradient_flow.py",
            "--smoke",
            "--no-verify",
            "--cells",
            "gru",
        ]
        done = subprocess.run([*command, "--out", tmp_path / name], env=given, capture_output=True, text=True)
        assert done.returncode == 0 and "arning" not in done.stderr, done.stderr
        kept.append(sorted(path.name for path in (tmp_path / "cache").rglob("*-cache")))
    assert kept[0] and kept[0] == kept[1]
    xr.testing.assert_identical(*(seqdyn.load(tmp_path / name).load() for name in ("first", "second")))


def test_a_wrong_input_that_nobody_catches_is_a_sentence_and_the_line_that_asked(capsys, monkeypatch):
    others = []
    monkeypatch.setattr(sys, "excepthook", lambda *told: others.append(told))
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    for _ in range(2):
        backend.start(jax.device_count())
    try:
        seqdyn.restore(ROOT / "tests", 0)
    except ConfigError as error:
        sys.excepthook(type(error), error, error.__traceback__)
        told = capsys.readouterr().err
        assert str(error) in told and Path(__file__).name in told and "Traceback" not in told
    assert not others
    fault = ValueError("a user's own")
    sys.excepthook(ValueError, fault, None)
    assert others == [(ValueError, fault, None)], "told as it was before"


def test_a_start_that_comes_after_jax_has_computed_is_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    jax.device_count()
    assert "before anything is" in refusal(backend.start, jax.device_count() + 1)


# --- names ----------------------------------------------------------------------------------------------------


NAMES = ["a::b", "[x]", "a\n$b$", os.fsdecode(b"\xff")]
MORE_NAMES = [pytest.param(name, marks=pytest.mark.slow) for name in ("a\\b", "*", "file:?#%20")]


@pytest.mark.parametrize("name", NAMES + MORE_NAMES, ids=ascii)
def test_a_directory_may_have_any_name(name, tmp_path):
    (tmp_path / "ab").mkdir()
    seqdyn.run(TINY, tmp_path / name, verify=False)
    seqdyn.run(LONGER, tmp_path / name, verify=False)
    assert seqdyn.load(tmp_path / name).recorded.all()
    seqdyn.restore(tmp_path / name, 0, 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["ab", name]) and not any((tmp_path / "ab").iterdir())


def test_a_users_names_are_shown_as_they_are(out, capsys):
    names = ["[h=32]", "[/b] [red]x", ":smile:", "[link=x]"]
    report.show([{"cell": name, "[bold]n": name} for name in names], [])
    shown = capsys.readouterr().out
    assert all(shown.count(name) == 2 for name in names) and "[bold]n" in shown
    heard = plain_console(file=io.StringIO(), width=200)
    seqdyn.run(TINY, out, console=heard)
    assert f"gradient of {SPEC.label} against" in heard.file.getvalue()


@pytest.mark.parametrize("name", ["$\\frac$", "_hidden", "a_b$", "$x$"])
def test_a_users_names_are_drawn_as_they_are(name):
    fig, axes = style.panels(1, 1, 1.0)
    axes[0, 0].plot([0, 1], label=style.plain(name))
    style.frame(axes, [name], [name], "x")
    assert list(style.drawn(axes)) == [style.plain(name)]
    style.legend(fig, style.drawn(axes))
    fig.savefig(io.BytesIO(), format="svg")  # as mathematics, the first cannot be drawn


def test_records_are_read_by_lag(made):
    ds = seqdyn.load(made)
    by_lag = ds.swap_dims(time="lag").adjoint_norm.isel(run=0, step=0, layer=0)
    np.testing.assert_array_equal(by_lag.sel(lag=[0, 3]), ds.adjoint_norm[0, 0, 0, [-1, 0]])


# --- what has only begun, what has no home, what is somebody else's -----------------------------------------------


def test_a_directory_that_has_only_begun_says_so(tmp_path):
    manifest.open_run(tmp_path / "out", TINY, {})
    assert "only begun" in refusal(seqdyn.load, tmp_path / "out")
    assert "only begun" in refusal(seqdyn.restore, tmp_path / "out", 0)


def test_records_whose_shape_is_changing_are_not_damaged(out):
    metadata = out / "records.zarr" / "loss" / "zarr.json"
    whole, begun = metadata.read_bytes(), threading.Event()

    def changing():
        with gate(out):
            metadata.write_bytes(whole.replace(b"2", b"4"))
            begun.set()
            time.sleep(0.3)
            metadata.write_bytes(whole)

    thread = threading.Thread(target=changing)
    thread.start()
    begun.wait()
    assert seqdyn.load(out).recorded.all()
    thread.join()
    metadata.write_bytes(whole.replace(b"2", b"4"))
    with pytest.raises(RuntimeError, match="damaged"):
        seqdyn.load(out)


def test_a_run_that_is_to_go_on_for_longer_is_read_as_far_as_it_is(out):
    manifest.open_run(out, LONGER, {})
    assert seqdyn.load(out).sizes["step"] == TINY.updates


@pytest.mark.parametrize("where", ["~/x", "~nobody-here/x", "/proc/x", "a\0b"], ids=ascii)
def test_a_cache_that_cannot_be_placed_costs_a_warning_and_not_the_data(where, monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.warns(UserWarning, match="not cached"):
        found = cached("case", {}, lambda: {"x": np.arange(3)}, where)
    assert found["x"].tolist() == [0, 1, 2]


def repository(folder, name):
    """A git repository whose pyproject.toml names a project and whose one module stands where seqdyn's does."""
    module = folder / "seqdyn" / "runs" / "environment.py"
    module.parent.mkdir(parents=True)
    module.write_text("", encoding="utf-8")
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n', encoding="utf-8")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "x")):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return module


def test_the_revision_is_that_of_seqdyns_own_checkout_or_none(tmp_path, monkeypatch):
    def of(module):
        monkeypatch.setattr(environment, "__file__", str(module))
        return environment.revision()

    ours, theirs = repository(tmp_path / "ours", "seqdyn"), repository(tmp_path / "theirs", "theirs")
    revision = of(ours)
    assert re.fullmatch("[0-9a-f]{40}", revision)
    assert of(theirs) is None
    installed = tmp_path / "theirs" / ".venv" / "site-packages"
    shutil.copytree(tmp_path / "theirs" / "seqdyn", installed / "seqdyn")
    assert of(installed / "seqdyn" / "runs" / "environment.py") is None
    shutil.copy(tmp_path / "ours" / "pyproject.toml", installed)
    assert of(installed / "seqdyn" / "runs" / "environment.py") is None
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs" / ".git"))
    assert of(ours) == revision


# --- terminals and files ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Config:
    """Of a script."""

    x: int = 0
    """λ ≥ 0."""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("asked", [["--help"], []], ids=["help", "output"])
def test_what_a_script_says_reaches_any_terminal(encoding, asked, monkeypatch):
    files = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    for name, file in zip(("stdout", "stderr"), files, strict=True):
        monkeypatch.setattr(sys, name, file)
    monkeypatch.setattr(sys, "argv", ["x.py", *asked])

    def main(_):
        report.show([{"‖∂L/∂h_t‖": "≥ 3 → \udcff"}], [])
        raise ConfigError("λ is −1; it must be ≥ 0.")

    with pytest.raises(SystemExit) as ended:
        script.script(Config, main, "‖∂L/∂h_t‖ against the lag")
    assert ended.value.code == (0 if asked else 2)
    for file in files:
        file.flush()
    told = b"".join(file.buffer.getvalue() for file in files).decode(encoding)
    assert ("‖∂L" if encoding == "utf-8" else "\\u2016") in told


@pytest.mark.parametrize("asked", [["--help"], []], ids=["help", "output"])
def test_a_reader_that_goes_ends_a_script_quietly(asked, monkeypatch, capfd):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        monkeypatch.setattr(sys, "argv", ["x.py", *asked])
        with pytest.raises(SystemExit) as ended:
            script.script(Config, lambda _: print("x" * 100_000), None)
    assert ended.value.code == 141 and not capfd.readouterr().err


def test_every_text_file_is_utf8_whatever_the_locale():
    silent = []
    for path in [p for folder in ("seqdyn", "analysis", "experiments") for p in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            mode = ast.unparse(node.args[1]) if name == "open" and len(node.args) > 1 else "''"
            of_text = name in ("read_text", "write_text") or (ast.unparse(node.func) == "open" and "b" not in mode)
            if of_text and "encoding" not in [k.arg for k in node.keywords] and "flag" not in mode:
                silent.append(f"{path.name}:{node.lineno}")
    # Locks and trials of the file system hold no words.
    assert not [where for where in silent if not where.startswith("lock.py")]


# --- what is drawn ----------------------------------------------------------------------------------------------


def runs(**axes):
    """A data set of runs with these coordinates."""
    return xr.Dataset(coords={name: ("run", values) for name, values in axes.items()})


def test_what_is_swept_and_not_drawn_is_told_apart_or_refused():
    ds = runs(label=["a"] * 4, seed=[0, 1, 0, 1], lr=[0.1, 0.1, 0.2, 0.2], gain=[1.0] * 4)
    assert lags.pooled(ds) == ["lr"] and lags.pooled(ds, "lr") == []
    assert lags.split(ds)["label"].values.tolist() == ["a, lr 0.1"] * 2 + ["a, lr 0.2"] * 2
    assert lags.split(ds, "lr") is ds and lags.one_setting(ds, "lr") is ds
    assert "lr is 0.1, 0.2" in refusal(lags.one_setting, ds)


def test_what_goes_with_a_label_or_a_drawn_axis_is_not_pooled():
    ds = runs(
        label=["a", "a", "b"], seed=[0, 0, 0], cell=["rnn", "rnn", "gru"], gain=[1.0, 2.0, 1.0], lr=[3.0, 4.0, 3.0]
    )
    assert lags.pooled(ds) == ["gain", "lr"] and lags.pooled(ds, "gain") == []


def test_a_lost_negation_is_counted():
    assert wording.lost(["I don't like it", "not bad", "fine"], ["I like it", "not evil", "not fine"]) == (1, 2)


@pytest.mark.parametrize("error, reason", [(AssertionError(), "no such device"), (RuntimeError("a\nb"), "a")])
def test_a_device_that_jax_does_not_find_is_a_sentence(error, reason, monkeypatch, tmp_path):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    e = seqdyn.Experiment("x", seqdyn.Spec(steps=4, batch=2, holdout=2), updates=1)
    said = refusal(seqdyn.run, e, tmp_path / "out")
    assert said == f"jax_platforms is 'cuda'; it must name a device that JAX finds here ({reason})."


@pytest.mark.parametrize("launcher", ["none", "local"])
def test_no_workers_are_a_sentence_whoever_trains(launcher):
    sentence = refusal(script._spread, script.Options(launcher=launcher, workers=-1))
    assert sentence == "workers is -1; it must be a whole number of at least 1."


@pytest.mark.parametrize("launcher", ["none", "local"])
def test_what_is_for_slurm_is_refused_where_slurm_is_not_asked(launcher):
    sentence = refusal(script._spread, script.Options(launcher=launcher, slurm=("timeout_min=600",)))
    assert sentence == "slurm is ['timeout_min=600']; it must be left out, or go with --launcher slurm."


@pytest.mark.parametrize("launcher", ["local", "slurm"])
def test_a_launcher_deals_the_shards_itself(launcher):
    sentence = refusal(script._spread, script.Options(launcher=launcher, shard="1/3"))
    assert sentence.startswith(f"shard is '1/3'; it must be left out with --launcher {launcher}")
    assert "shard is '3/3'" in refusal(script._spread, script.Options(shard="3/3"))  # before any data is read


@pytest.mark.parametrize("columns", [1, 5])
@pytest.mark.parametrize("words", [["--help"], ["--shart", "0/1"]])
def test_on_a_terminal_of_any_width_a_command_line_comes_to_an_end(columns, words, monkeypatch):
    real = tyro.cli

    def cli(*given, **more):
        assert shutil.get_terminal_size().columns >= 10  # else it would take all memory
        return real(*given, **more)

    monkeypatch.setattr(tyro, "cli", cli)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", ["x.py", *words])
    with pytest.raises(SystemExit):
        script.script(script.Options, print, "What is asked.")
    assert os.environ["COLUMNS"] == str(columns)


def test_no_file_takes_the_place_of_a_stream_that_is_closed(tmp_path):
    kept = [os.dup(stream) for stream in range(3)]
    try:
        for stream in range(3):
            os.close(stream)
        script._fill_closed()
        with open(tmp_path / "record", "wb"):
            for stream in range(3):
                os.write(stream, b"said")
    finally:
        for stream, old in enumerate(kept):
            os.dup2(old, stream)
            os.close(old)
    assert not (tmp_path / "record").read_bytes()


def test_workers_are_refused_where_nobody_launches_them():
    sentence = refusal(script._spread, script.Options(workers=3))
    assert sentence == "workers is 3; it must be left out, or go with --launcher local or slurm."


def test_more_workers_here_than_a_few_for_each_core_are_refused_and_none_is_started(monkeypatch):
    monkeypatch.setattr(launchers.os, "sched_getaffinity", lambda process: {0, 3})
    monkeypatch.setattr(launchers, "local", lambda commands: pytest.fail("started"))
    sentence = refusal(script._spread, script.Options(launcher="local", workers=9))
    assert sentence.startswith("workers is 9; it must be at most 8 with --launcher local")


def test_where_no_process_is_given_cores_of_its_own_workers_run_all_the_same(monkeypatch, tmp_path):
    """As on macOS."""
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name)
    launchers.check_local(4)
    launchers.local([[sys.executable, "-c", f"open({str(tmp_path / name)!r}, 'w').close()"] for name in "ab"])
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


@pytest.mark.parametrize("workers", [1, 3])
def test_what_a_launcher_starts_is_not_refused_for_its_workers(workers, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "x.py", "--launcher", "local", "--workers", str(workers)])
    for command in launchers.commands(workers):
        script._spread(tyro.cli(script.Options, args=command[2:]))


def test_lengths_that_an_older_version_drew_are_not_mixed_with_others(tmp_path):
    spec = seqdyn.Spec("adding", steps=8, shortest=4, batch=2, holdout=2)
    experiment = seqdyn.Experiment("lengths", spec, updates=1)
    manifest.open_run(tmp_path / "out", experiment, {})
    manifest.open_run(tmp_path / "out", experiment, {})

    def older(found):
        return found | {"draws": {name: value for name, value in found["draws"].items() if name != "lengths"}}

    manifest.note(tmp_path / "out", older)
    assert "an older seqdyn drew" in refusal(manifest.open_run, tmp_path / "out", experiment, {})


def test_what_is_no_console_is_refused(tmp_path):
    e = seqdyn.Experiment("x", seqdyn.Spec(steps=4, batch=2, holdout=2), updates=1)
    said = refusal(seqdyn.run, e, tmp_path / "out", console=3)
    assert said == "console is 3; it must be a rich.console.Console, or None for stderr."


def test_a_worker_s_command_line_is_taken_whatever_its_launcher_was_given(monkeypatch, capsys):
    monkeypatch.setattr(sys, "orig_argv", ["python", "x.py", "--launcher", "slurm", "--slurm", "timeout_min=600"])
    *_, last = launchers.commands(2)
    monkeypatch.setattr(sys, "argv", last[1:])
    script.script(script.Options, lambda chosen: print(chosen.launcher, chosen.slurm, chosen.shard), None)
    assert capsys.readouterr().out == "none () 1/2\n"


def test_a_directory_is_a_sentence_where_the_one_it_is_relative_to_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        assert "path is 'runs/a'; it must be a run directory (No such file" in refusal(seqdyn.run, TINY, "runs/a")
    finally:
        os.chdir(tmp_path)


@pytest.mark.parametrize("given", [seqdyn.Spec(), seqdyn.Experiment, None], ids=str)
def test_what_is_run_is_an_experiment(given, tmp_path):
    assert "it must be an Experiment" in refusal(seqdyn.run, given, tmp_path / "out")
    assert not (tmp_path / "out").exists()
