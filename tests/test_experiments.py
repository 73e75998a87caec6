"""Every experiment runs with `--smoke`, and its analysis draws from that run."""

import dataclasses
import html
import importlib
import json
import os
import shutil

import numpy as np
import pytest
import xarray as xr
from _processes import ROOT, Process

from analysis import augmentation as shown_augmentation
from analysis import capacity as shown_capacity
from analysis import (
    claimants,
    claims,
    costs,
    dropout,
    generated,
    jacobian_windows,
    maps,
    overfitting,
    penalty_pairs,
    sequences,
    synthetic,
)
from analysis import minimal_cells as analysis_of_cells
from experiments import (
    _cures,
    _generators,
    _measured,
    augmentation,
    capacity,
    clipping,
    gating,
    gradient_flow,
    minimal_cells,
    polynomials,
)
from experiments.reproduce import _cases
from seqdyn import theory
from seqdyn.data.synthetic import xor_steps
from seqdyn.data.text import SPECIAL, Examples
from seqdyn.data.vectors import load_vocabulary
from seqdyn.runs import manifest
from seqdyn.runs import script as scripts
from seqdyn.runs.records import load
from seqdyn.runs.restore import restore
from seqdyn.types import ConfigError

X64 = False
PNG = b"\x89PNG\r\n"


def script(name, *arguments):
    """Runs a script as a user does; its process when it has ended, and what it said on stdout."""
    # One device here: whole runs on two devices are in test_run and test_resume.
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    path = ROOT / "experiments" / f"{name}.py"
    process = Process([path, *arguments], split=True, COLUMNS="200", PYTHONWARNINGS="error", XLA_FLAGS=flags)
    return process, process.finish()


def smoke(name, out, *arguments):
    """Runs a script at tiny sizes and returns what it printed."""
    done, text = script(name, "--smoke", "--out", out, *arguments)
    assert done.returncode == 0, done.stderr
    return text


def refusal(name, *arguments):
    """The sentence with which a script refuses its arguments, having written nothing."""
    done, text = script(name, *arguments)
    assert done.returncode == 2 and not text
    return done.stderr


def test_help_says_what_it_costs_in_a_paragraph_and_what_every_usual_option_is():
    assert "\n\nHypothesis (the notes): " in script("penalties", "--help")[1]
    done, text = script("imdb_accuracy", "--help")
    assert done.returncode == 0 and "\n\nCost: " in text and "\n\nExpect: " in text
    said = " ".join(text.replace("│", " ").split())
    assert "Seeds of each setting, of parameters, data and their order: how many, from 0 on, a range or" in said


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "experiments" / "own").glob("*.py")))
def test_an_example_without_its_directory_says_what_it_takes(name):
    if "torch" in name:
        pytest.importorskip("torch", reason="PyTorch is not installed (the extra 'torch')")
    sentence = refusal(f"own/{name}")
    assert "PATH" in sentence and "required" in sentence and "Traceback" not in sentence


def check_figures(out, text, *names):
    figures = {p.name: p for p in (out / "figures").glob("*.png")}
    assert all(any(f.startswith(name) for f in figures) for name in names), sorted(figures)
    assert all(p.read_bytes().startswith(PNG) and p.stat().st_size > 5_000 for p in figures.values())
    assert "report.html" in text
    page = (out / "report.html").read_text()
    assert "<img" in page or "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def judged(out, column):
    """What is claimed of runs at these sizes, a value each: its verdict stands on the page that is drawn with it."""
    (parts,) = claimants.experiments((out,)).values()
    runs, stated = claimants.columns(*parts), claims.Claim("is above 0", "median", claims.of(column), 0.0)
    show = importlib.import_module(claimants.script_of(out).replace("experiments", "analysis")).show
    assert "is above 0" not in (out / "report.html").read_text()
    assert claims.report([stated], parts, lambda found: show(out, found), claimants.columns) == {
        "is above 0": "undecided"
    }
    assert "is above 0" in (out / "report.html").read_text()
    return runs


@pytest.mark.parametrize(
    "given, words",
    [
        (["--steps"], "steps is empty"),
        (["--chunk", "0"], "chunk is 0; it must be a whole number of at least 1"),
        (["--hidden", "-2"], "hidden is -2"),
        (["--replicate", "-1"], "replicate is -1; it must be at least 0"),
        (["--gains"], "nothing is to be trained"),
        (["--lr", "nan"], "lr is nan; it must be a number, not NaN"),
        (["--gains", "0.5", "nan"], "gains is (0.5, nan); it must be a number, not NaN"),
        (["--workers", str(2**31)], "workers is 2147483648; it must be below 2³¹"),
        (["--seeds", "3,-1"], "seeds is '3,-1'; it must be how many"),
        (["--seeds", f"{2**31}:{2**31 + 2}"], "each below 2³¹"),
    ],
)
def test_sizes_that_no_script_can_take_are_a_sentence(given, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["clipping", *given])
    with pytest.raises(SystemExit) as end:
        scripts.script(clipping.Config, clipping.main, None)
    assert end.value.code == 2 and words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "given, words",
    [
        ("ghost --lengths nan", "lengths is (nan,)"),
        ("ghost --lengths -1", "lengths has -1"),
        ("ghost --lengths inf", "lengths has inf"),
        ("ghost --lengths 8 1e300", "lengths has 1e+300"),
        ("ghost --rates 2000000000", "GiB of memory here"),
        ("newton --hidden 1000000000", "GiB of memory here"),
        ("newton --nets 2000000000", "GiB of memory here"),
        ("newton --seed -1", "seed is -1"),
        ("long_products --widths", "widths is empty"),
        ("long_products --widths 8 8", "widths has 8 twice"),
        ("long_products --widths 8 1000000000", "GiB of memory here"),
        ("sensitivity --sizes", "sizes is ()"),
        ("sensitivity --sizes 0.5 1", "sizes is (0.5, 1.0)"),
        ("sensitivity --sizes -1", "sizes is (-1.0,)"),
        ("sensitivity --sequences 2000000000", "GiB of memory here"),
        ("polynomials --sigma inf", "sigma is inf"),
        ("polynomials --degrees 3 1000", "degrees is (3, 1000)"),
        ("polynomials --draws 1000000000", "GiB of memory here"),
        ("costs --cells", "cells is empty"),
        ("throughput --cells lstm lstm", "cells has 'lstm' twice"),
        ("theory_check --seed -1", "seed is -1"),
        ("causes --layers -1", "layers is -1"),
        ("linear_dynamics --hidden 2", "hidden is 2"),
        ("temporal_order --longer 2 0", "longer is 0"),
        ("temporal_order --tried -1", "tried is -1"),
        ("temporal_order --wait 31", "wait is 31"),
        ("attractors --orbits 2000000000", "GiB of memory here"),
        ("synthetic --share inf", "share is inf"),
        ("synthetic --smoke --data vowels --sizes -1", "sizes is (-1,)"),
    ],
)
def test_what_no_script_can_measure_is_a_sentence_and_writes_nothing(given, words, tmp_path, monkeypatch, capsys):
    name, *arguments = given.split()
    folder = "reproduce." if (ROOT / "experiments" / "reproduce" / f"{name}.py").exists() else ""
    module = importlib.import_module(f"experiments.{folder}{name}")
    monkeypatch.setattr("sys.argv", [name, *arguments, "--out", str(tmp_path / "new")])
    monkeypatch.setattr("seqdyn.backend.start", lambda *_: None)  # once in a process, before anything is computed
    with pytest.raises(SystemExit) as end:
        scripts.script(module.Config, module.main, None)
    assert end.value.code == 2 and words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("damaged", ["", '{"config": ', "null", "[]", "{}"])
def test_a_damaged_file_of_numbers_is_a_sentence_and_stays(damaged, tmp_path):
    (tmp_path / "x.json").write_text(damaged)
    with pytest.raises(ConfigError, match="x.json is damaged .*; remove it, or choose another --out"):
        _measured.place("x", _measured.Once(out=tmp_path))
    (tmp_path / "polynomials.npz").write_text(damaged)
    with pytest.raises(ConfigError, match="polynomials.npz is damaged"):
        polynomials.measure(polynomials.Config(), tmp_path / "polynomials.npz")
    assert (tmp_path / "x.json").read_text() == (tmp_path / "polynomials.npz").read_text() == damaged


def test_what_was_measured_is_kept_whole_or_not_at_all(tmp_path, monkeypatch):
    file, settings = _measured.place("x", _measured.Once(out=tmp_path))
    _measured.keep(file, {"config": settings, "rows": [1]})
    monkeypatch.setattr(type(file), "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        _measured.keep(file, {"config": settings, "rows": [2]})
    assert json.loads(file.read_text())["rows"] == [1]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file cannot be written to"):
        _measured.place("x", _measured.Once(out=tmp_path / "file"))


def test_no_memory_is_a_sentence(monkeypatch, capsys):
    def main(config):
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr("sys.argv", ["costs"])
    with pytest.raises(SystemExit) as end:
        scripts.script(_measured.Once, main, None)
    assert end.value.code == 1 and "Unable to allocate 7 TiB" in capsys.readouterr().err


@pytest.mark.parametrize("n", [0, -1])
def test_an_augmentation_of_no_examples_is_a_sentence(n):
    setting = augmentation.Setting("x", "images", {"train": Examples(*np.zeros((3, 4), int))}, (n,), {}, ())
    with pytest.raises(ConfigError, match=f"images is {n}"):
        augmentation.fewer(setting, n)


def test_no_looks_at_an_augmentation_are_a_sentence():
    with pytest.raises(ConfigError, match="looks is 0"):
        augmentation.experiment(augmentation.Config(looks=0), None, 1, {})


def test_a_path_in_whose_way_a_file_lies_is_wrong_input(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "file/out" in refusal("polynomials", "--smoke", "--out", tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"


def test_gradient_flow(tmp_path):
    """The one that holds its gradient against autodiff's here."""
    text = smoke("gradient_flow", tmp_path / "out", "--cells", "tanh")
    check_figures(tmp_path / "out", text, "norms_by_lag", "norms_through_training", "learning", "outcomes")
    assert "rnn tanh" in text and "lstm" not in text
    verified = manifest.read(tmp_path / "out")["verified"]
    assert list(verified) == ["rnn tanh"] and 0 < verified["rnn tanh"] < 1e-5
    every = gradient_flow.experiment(gradient_flow.Config()).specs
    assert [spec.label for spec in every] == ["rnn tanh", "rnn relu", "lstm", "gru"]


@pytest.mark.slow
def test_imdb_gradients(tmp_path, imdb_dir):
    text = smoke("imdb_gradients", tmp_path / "out", "--data-dir", str(imdb_dir), "--no-verify", "--cells", "gru")
    check_figures(tmp_path / "out", text, "norms_by_lag", "norms_through_training", "learning")
    assert "chosen on validation" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_architectures(tmp_path, imdb_dir):
    """Shared weights, pooled, cannot tell shuffled reviews from reviews; the vocabulary lies beside the records."""
    chosen = ("dense, shared", "rnn, 2 layers")
    out = tmp_path / "out"
    text = smoke("architectures", out, "--data-dir", imdb_dir, "--no-verify", "--architectures", *chosen)
    check_figures(out, text, "comparison", "norms_by_lag")
    ds = load(out)
    same = (ds["test_accuracy"] == ds["shuffled_accuracy"]).all("probe").values
    assert same[ds["label"].values == "dense, shared"].all()
    assert set(json.loads((out / "seconds.json").read_text())) == set(chosen)
    words = load_vocabulary(out / "vocabulary.txt")
    assert words[:3] == SPECIAL and restore(out, 0).embedding.shape[0] == len(words)
    asked = ("--run", str(out), "--index", "3", "--words", words[5], "--k", "2")
    assert words[5] in script("neighbours", *asked)[1]
    refused = refusal("architectures", "--architectures", "cnn", "--out", str(tmp_path / "new"), "--smoke")
    assert "'cnn'" in refused and not (tmp_path / "new").exists()


@pytest.mark.slow
def test_imdb_accuracy(tmp_path, imdb_dir):
    text = smoke("imdb_accuracy", tmp_path / "out", "--data-dir", imdb_dir, "--no-verify")
    check_figures(tmp_path / "out", text, "accuracy")
    for network in ("rnn", "lstm", "gru", "best", "tf–idf"):
        assert network in text


@pytest.mark.slow
def test_pretrained(tmp_path, imdb_dir):
    """Frozen, the vectors stay as they are; the file is named with the line that is wrong."""
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("the 1 0 0 0\nfilm 0 1 0 0\nand 0 0 1 0\n")
    out = tmp_path / "out"
    text = smoke("pretrained", out, "--data-dir", imdb_dir, "--vectors", str(vectors), "--no-verify")
    assert "frozen" in text and "random" in text
    ds, words = load(out / "pretrained"), load_vocabulary(out / "pretrained" / "vocabulary.txt")
    for run, moved in ((int(np.argmax(np.isinf(ds["thaw"].values))), False), (int(np.argmin(ds["thaw"].values)), True)):
        row = restore(out / "pretrained", run).embedding[words.index("film")]
        assert np.array_equal(row, [0, 1, 0, 0]) != moved
    vectors.write_text("the 1 0 0 0\nfilm 0 1 0\n")
    arguments = ("--vectors", str(vectors), "--data-dir", imdb_dir, "--out", str(tmp_path / "new"), "--smoke")
    refused = refusal("pretrained", *arguments)
    assert f"line 2 of {vectors}" in refused and not (tmp_path / "new").exists()


def test_neighbours(tmp_path):
    (tmp_path / "v.txt").write_text("good 1 0\ngreat 2 0.1\nbad -1 0\n")
    done, text = script("neighbours", "--vectors", tmp_path / "v.txt", "--words", "good", "--k", "2")
    assert done.returncode == 0 and text.index("great 1.00") < text.index("bad -1.00")
    refused = refusal("neighbours", "--vectors", str(tmp_path / "v.txt"), "--words", "goot")
    assert "good" in refused


@pytest.mark.slow
def test_wording(imdb_dir):
    missing = {"SEQDYN_GLOVE", "NLTK_DATA"} - set(os.environ)
    if missing or shutil.which("apertium") is None:
        pytest.skip(f"needs {', '.join(missing) or 'Apertium: apt-get install apertium-eng-spa'}")
    done, text = script("wording", "--smoke", "--data-dir", str(imdb_dir), "--vectors", os.environ["SEQDYN_GLOVE"])
    assert done.returncode == 0 and "good, bad" in text and "reviews with a negation" in text, text


# On characters test_resume trains, without drawing.
@pytest.mark.slow
@pytest.mark.parametrize(
    "source", ["music", *(pytest.param(one, marks=pytest.mark.wide) for one in ("characters", "pixels"))]
)
def test_sequences(source, tmp_path):
    out, given = tmp_path / "out", {"music": "music.json", "characters": "text.txt"}.get(source)
    if source == "music":
        chords = [[[60 + t % 5, 64] for t in range(25)] for _ in range(20)]
        (tmp_path / given).write_text(json.dumps(dict.fromkeys(("train", "valid", "test"), chords)))
    elif source == "characters":
        (tmp_path / given).write_text("to be or not to be, " * 600)
    elif not os.environ.get("SEQDYN_DATA"):
        pytest.skip("needs MNIST: set SEQDYN_DATA to a TFDS data directory that holds mnist")
    where = ("--file", str(tmp_path / given)) if given else ("--data-dir", os.environ["SEQDYN_DATA"])
    text = smoke("sequences", out, "--source", source, *where, "--cells", "rnn", "--no-verify")
    check_figures(out, text, "norms_by_lag", "carried_by_lag", "learning")
    ds = load(out)
    assert ds["finite"].all()
    runs, best = sequences.columns(out), int(ds["validation_loss"].values[0].argmin())
    assert runs["nats"] == ds["test_loss"].values[0, best] and np.isnan(runs["right"]) == (source == "music")
    first = ds["carried_norm"].isel(run=0, step=0, layer=-1).values[::-1]  # by lag
    np.testing.assert_allclose(runs["carried_start"][0], np.log10(first[len(first) // 2] / first[1]), rtol=1e-5)
    if source == "music":
        assert "--file" in refusal("sequences", "--source", "music", "--smoke")


@pytest.mark.slow
def test_edge_of_chaos(tmp_path):
    text = smoke("edge_of_chaos", tmp_path / "out", "--no-verify")
    check_figures(tmp_path / "out", text, "against_gain", "plane", "collapse", "spectra")
    assert "critical" in text and "Theory against 2 wide networks" in (tmp_path / "out" / "report.html").read_text()
    assert "verdict" not in text  # nothing is claimed at these sizes
    runs, exponent = judged(tmp_path / "out", "distance_start"), load(tmp_path / "out")["lyapunov_exponent"]
    chi1 = [
        theory.MeanField("tanh", *at).chi1 for at in zip(runs["gain"].values, runs["input_gain"].values, strict=True)
    ]
    delay = 5 - xor_steps(6)[0]
    np.testing.assert_array_equal(runs["within"], 6 / np.abs(np.log(chi1)) >= delay)
    np.testing.assert_array_equal(runs["near"], 3 / np.abs(np.log(chi1)) >= delay)
    first, last = exponent.values[:, [0, -1], 0, 0].T
    np.testing.assert_allclose(runs["distance_start"], np.abs(first))
    np.testing.assert_allclose(runs["exponent_end"], last)
    np.testing.assert_allclose(runs["off"], np.abs(first - np.log(chi1) / 2), rtol=1e-5)


@pytest.mark.slow
def test_throughput(tmp_path):
    one_of_a_kind = ("watch", "autodiff", "flax", "bfloat16", "torch-1", "alone", "probes", "looks")
    text = smoke("throughput", tmp_path / "out", "--cells", "rnn", "--contenders", *one_of_a_kind)
    assert (tmp_path / "out" / "throughput.json").exists() and "autodiff" in text and "…" not in text


@pytest.mark.slow
def test_maps(tmp_path):
    text = smoke("maps", tmp_path / "out", "--maps", "clip", "activations", "--no-verify")
    check_figures(tmp_path / "out", text, "planes")
    found = maps.summary({name: tmp_path / "out" / name for name in ("clip", "activations")})
    assert found["clip"].others == [0.001, 0.3] and found["activations"].others == ["sigmoid", "tanh"]
    of = found["clip"].values
    assert of["learned"].shape == (3, 2) and not np.isnan(of["diverged"]).any()


@pytest.mark.slow
def test_costs(tmp_path):
    """Of each size a time; fewer lags take less room; and the exponent of a power is that power."""
    text = smoke("costs", tmp_path / "out", "--cells", "rnn")
    found = json.loads((tmp_path / "out" / "costs.json").read_text())
    assert all(len(row["ms"]) == 2 and min(row["ms"]) > 0 for row in found["time"])
    every, some = found["disk"][2:]
    assert every["lags"] > some["lags"] and every["bytes"] > some["bytes"] and every["disk"] > some["disk"]
    assert "GB" in text and (tmp_path / "out" / "costs.png").read_bytes().startswith(PNG)
    sizes = [2, 4, 8, 16]
    assert np.isclose(costs.exponent(sizes, [0.1 * size**1.5 for size in sizes]), 1.5)


@pytest.mark.slow
def test_tiles_on_an_accelerator(tmp_path, monkeypatch):
    """On a CPU at tiny sizes alone: the same path."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    text = smoke("throughput", tmp_path / "out", "--accelerator", "--cells", "rnn")
    assert "4 runs" in text and "2 on all" in text
    assert "must find a GPU" in refusal("throughput", "--accelerator", "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_theory_check(tmp_path):
    """What is exact agrees at any size; a network too small for mean field theory is seen not to."""
    text = smoke("theory_check", tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "theory_check.json").read_text())["rows"]
    exact = [row for row in rows if row["quantity"].startswith(("adjoint", "orthogonal", "above"))]
    assert len(exact) == 8 and all(row["agrees"] for row in exact)
    assert not all(row["agrees"] for row in rows if row["quantity"] == "growth")
    assert all(f"{row['difference']:+.1e}" in text for row in exact)
    assert (tmp_path / "out" / "theory_check.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_reproduce_newton(tmp_path):
    """Chaos takes longer; other settings do not get into what was measured."""
    text = smoke("reproduce/newton", tmp_path / "out", "--steps", "60", "--hidden", "20")
    rows = json.loads((tmp_path / "out" / "newton.json").read_text())["rows"]
    steps = {gain: max(r["steps"]["60"] for r in rows if r["gain"] == gain) for gain in (0.5, 2.0)}
    assert steps[0.5] < 6 < steps[2.0] <= 60 and "few, whatever T" in text and "undecided" in text
    assert all(r["share"] == r["steps"]["60"] / 60 for r in rows) and "times as long" in text
    assert (tmp_path / "out" / "newton.png").read_bytes().startswith(PNG)
    assert "other settings" in refusal("reproduce/newton", "--smoke", "--out", tmp_path / "out")


MEASURED = ("attractors", "ghost", "learnability", "linear_dynamics", "long_products", "sensitivity", "smoothness")
"""Reproductions that keep a row a seed and setting, and state their claims of those."""
TRAINED = ("attractors", "learnability", "linear_dynamics", "smoothness")
"""Those of them that train runs."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_reproductions_that_measure(name, tmp_path):
    """Each prints what the paper says beside ours, of every claim, and comes to the same table again."""
    text = smoke(f"reproduce/{name}", tmp_path / "out", *(["--no-verify"] if name in TRAINED else []))
    for word in ("claim", "paper", "ours", "interval", "verdict", "undecided"):
        assert word in text
    assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(PNG)
    assert {row["seed"] for row in json.loads((tmp_path / "out" / f"{name}.json").read_text())["rows"]} == {0, 1}
    if name == "long_products":
        assert smoke(f"reproduce/{name}", tmp_path / "out") == text
        assert "other settings" in refusal(f"reproduce/{name}", "--smoke", "--seeds", "3", "--out", tmp_path / "out")


@pytest.mark.slow
def test_edge_of_stability(tmp_path):
    """The probes see the loss that is descended; a rate far above 2/sharpness diverges, and only that."""
    text = smoke("edge_of_stability", tmp_path / "out", "--cells", "rnn", "--no-verify")
    check_figures(tmp_path / "out", text, "training", "against_rate")
    ds = load(tmp_path / "out")
    lost = ~ds["finite"].all("step").values
    np.testing.assert_array_equal(lost, ds["lr"].values == 100)
    assert text.count("2/2") == 1
    looks, sequences = ds["probe_step"].values[:-1], 8
    seen = (ds["gradient_square"] + ds["gradient_variance"] / sequences).values[~lost, :-1]
    np.testing.assert_allclose(seen, ds["grad_norm"].values[~lost][:, looks] ** 2, rtol=1e-4)
    np.testing.assert_allclose(ds["gradient_update_cosine"].values[~lost], 1, rtol=1e-5)
    above = ds["sharpness"].values * (1 + 1e-5) - ds["directional_sharpness"].values
    assert (above[~lost] > 0).all()  # a Rayleigh quotient is at most the largest eigenvalue
    assert "verdict" not in text  # nothing is claimed at these sizes
    runs, (before, *_, after) = judged(tmp_path / "out", "test_loss"), ds["sharpness"].values.T
    np.testing.assert_array_equal(runs["diverged"], lost)
    np.testing.assert_allclose(runs["off"].values[~lost], (after * ds["lr"].values / 2)[~lost] - 1, rtol=1e-5)
    assert np.isnan(runs["off"].values[lost]).all() and np.isnan(runs["met"].values[before * ds["lr"].values > 2]).all()
    assert (runs["met"].values[before * ds["lr"].values < 2] <= 1).all()


@pytest.mark.slow
def test_jacobian_spectra(tmp_path):
    """One directory holds both initialisations; the product of the steps' norms bounds a window's from above."""
    text = smoke("jacobian_spectra", tmp_path / "out", "--cells", "tanh", "lstm", "--no-verify")
    check_figures(tmp_path / "out", text, "spectra", "along_training", "against_lag", "clocks")
    page = (tmp_path / "out" / "report.html").read_text()
    for init in ("orthogonal", "gaussian"):
        assert f"rnn tanh, {init}: " in page and f"lstm, {init}: " in page
    ds = jacobian_windows.read(tmp_path / "out")
    for group in jacobian_windows.groups(ds):
        for stage in jacobian_windows.STAGES:
            largest = jacobian_windows.spectra(ds, group, stage)[..., 0]
            product = jacobian_windows.bound(ds, group, stage)[:, ds["window"].values - 1]
            np.testing.assert_allclose(largest[:, 0], product[:, 0], atol=1e-5)  # a window of one step is the step
            assert (largest[:, 1:] < product[:, 1:]).all()
    assert "verdict" not in text  # nothing is claimed at these sizes
    runs = judged(tmp_path / "out", "excess_trained")
    assert runs["u_init"].values.tolist() == ["gaussian"] * 4 + ["orthogonal"] * 4
    parts = (tmp_path / "out" / "gaussian", tmp_path / "out")
    whole = np.concatenate([load(part)["window_log_singular"].values for part in parts])
    for stage, look in (("untrained", 0), ("trained", -1)):
        np.testing.assert_allclose(runs[f"first_{stage}"], whole[:, look, 0, -1, 0])
        np.testing.assert_array_equal(runs[f"alive_{stage}"], (10 ** whole[:, look, 0, -1] > 0.1).sum(axis=1))


@pytest.mark.slow
def test_clipping(tmp_path):
    """Each gain is a directory, and the threshold is drawn against what it does."""
    text = smoke("clipping", tmp_path / "out", "--no-verify")
    check_figures(tmp_path / "out" / "gain_2", text, "norms_by_lag", "against")
    ds = load(tmp_path / "out" / "gain_2")
    assert (ds["clipped"].sel(run=np.isinf(ds["clip"].values)) == 0).all()
    assert (ds["clip_scale"].sel(run=ds["clip"].values == 0.01) < 1).any()


@pytest.mark.slow
def test_exploding(tmp_path):
    """A wall, a plane over gains and thresholds, optimisers, ways to clip; what overflows is counted, not a crash."""
    text = smoke("exploding", tmp_path / "out", "--optimizers", "sgd", "adam", "--no-verify")
    check_figures(tmp_path / "out", text, "cliff", "plane", "ways")
    assert load(tmp_path / "out" / "tensor")["bound"].values.tolist() == [1.0, 1.0, np.inf, np.inf]


@pytest.mark.slow
def test_minimal_cells(tmp_path):
    """A part beside a word, drawn and told as one; every cell has its place in the figure."""
    chosen = ("--cells", "GRU", "minGRU", "--no-verify")
    text = smoke("minimal_cells", tmp_path / "out", *chosen)
    check_figures(tmp_path / "out", text, "norms_by_lag")
    assert "minGRU" in text and "LSTM" not in text
    drawn = [cell for of in analysis_of_cells.COLUMNS.values() for cell in of]
    assert sorted(drawn) == sorted(minimal_cells.Config().cells)


@pytest.mark.slow
def test_activations(tmp_path):
    text = smoke("activations", tmp_path / "out", "--no-verify")
    check_figures(tmp_path / "out", text, "norms_by_lag", "against")
    assert "softsign, gain 1.4" in text and "tanh, gain 1" in text


@pytest.mark.slow
def test_regularisation(tmp_path):
    """A weight of 0 is measured and changes nothing: the penalties' networks without weight are one network.

    Whole and in shards: of two the first trains its tiles of every experiment and waits, the second draws; the records
    are those of one.
    """
    weights = [0, 0.1, 1, 10]  # two tiles
    out, chosen = tmp_path / "out", ("--weights", *map(str, weights), "--no-verify")
    waiting, _ = script("regularisation", "--smoke", "--out", str(out), *chosen, "--shard", "1/2")
    assert waiting.returncode == 0 and "this shard is done" in waiting.stderr
    for part in (out / "l1", out / "omega"):
        assert [p.name for p in sorted((part / "checkpoints").iterdir())] == ["tile-0001"]
        assert not (part / "report.html").exists()
    check_figures(out / "omega", smoke("regularisation", out, *chosen, "--shard", "0/2"), "norms_by_lag", "against")
    smoke("regularisation", tmp_path / "alone", *chosen)
    l1, omega = (load(out / name).load() for name in ("l1", "omega"))
    for name, ds in {"l1": l1, "omega": omega}.items():
        assert ds.identical(load(tmp_path / "alone" / name).load())
    assert (l1["penalty_l1"] > 0).all() and (omega["penalty_omega"] > 0).all()
    np.testing.assert_allclose(l1["loss"][l1["l1"] == 0], omega["loss"][omega["omega"] == 0], rtol=1e-5)
    assert np.abs(l1["loss"][l1["l1"] == 10].values - l1["loss"][l1["l1"] == 0].values)[:, -1].max() > 1e-4


@pytest.mark.slow
def test_penalties(tmp_path, capsys):
    """At λ = 0 all methods without gates are one network; training sets differ, the test split does not."""
    out = tmp_path / "out"
    text = smoke("penalties", out, "--no-verify", "--methods", "l2", "decoupled decay", "l0")
    check_figures(out, text, "errors", "bias_and_variance", "weights", "gradients")
    first, second = (load(out / f"draw_{i}") for i in (0, 1))
    losses = {
        label: first["loss"].values[(first["label"] == label) & (first["l2"] == 0)][0]
        for label in first["label"].values
    }
    np.testing.assert_allclose(losses["decoupled decay"], losses["l2"], rtol=1e-5)
    assert np.abs(losses["l0"] - losses["l2"]).max() > 1e-3
    assert np.abs(first["test_loss"].values - second["test_loss"].values).min() > 0
    learned = [np.load(out / f"draw_{i}" / "learned.npz") for i in (0, 1)]
    np.testing.assert_array_equal(learned[0]["classes"], learned[1]["classes"])
    accuracy = (learned[0]["probabilities"].argmax(-1) == learned[0]["classes"]).mean(-1)
    np.testing.assert_allclose(accuracy, first["test_accuracy"].values[:, -1], atol=1e-6)
    parts = [out / f"draw_{i}" for i in (0, 1)]
    runs = penalty_pairs.columns(*parts)
    np.testing.assert_allclose(runs["error"], np.concatenate([1 - load(p)["test_accuracy"][:, -1] for p in parts]))
    truth = np.eye(10)[learned[0]["classes"]]
    brier = np.mean([np.square(of["probabilities"] - truth).sum(-1).mean(-1) for of in learned], axis=0)
    begins = runs["seed"].values == 0  # the pair
    np.testing.assert_allclose((runs["bias"] + runs["variance"]).values[begins], brier, rtol=1e-5)
    assert runs["bias"].isnull().values[~begins].all()
    assert (runs["radius_chosen"].notnull().groupby(runs["seed"]).sum() == 3).all()  # one λ of each method
    xr.testing.assert_equal(runs, penalty_pairs.columns(*reversed(parts)).sortby("seed"))
    claims.main(claims.Config((out,)))  # both training sets together
    said = capsys.readouterr().out
    assert said.count("undecided") == text.count("undecided") > 0 and str(out / "draw_0") not in said
    assert "undecided" in (out / "report.html").read_text()
    refused = refusal("penalties", "--seeds", "1", "--out", str(tmp_path / "new"))
    assert "seeds is 1" in refused and not (tmp_path / "new").exists()
    refused = refusal("penalties", "--methods", "prayer", "--out", str(tmp_path / "new"))
    assert "'prayer'" in refused and not (tmp_path / "new").exists()


@pytest.mark.slow
def test_dropout(tmp_path, imdb_dir):
    """Monte Carlo evaluation changes no bit of the training that it judges."""
    out = tmp_path / "out"
    text = smoke("dropout", out, "--data-dir", imdb_dir, "--no-verify")
    check_figures(out, text, "dropout_rates", "dropout_gradient", "monte_carlo")
    kinds, sampled = load(out / "kinds"), load(out / "sampled")
    runs = kinds["label"].values == "zoneout"
    np.testing.assert_array_equal(kinds["loss"].values[runs], sampled["loss"].values)
    assert (kinds["test_loss"].values[runs, -1] != sampled["test_loss"].values[:, -1]).all()
    counted = dropout.columns(*(out / name for name in ("none", "kinds", "sampled")))
    assert {*dropout.VALUES} <= {*counted} and not np.isnan(counted["test"]).any()
    assert "Zoneout raises the test accuracy" in text and "undecided" in text


@pytest.mark.slow
def test_normalisation(tmp_path):
    text = smoke("normalisation", tmp_path / "out", "--no-verify")
    check_figures(tmp_path / "out", text, "norms_by_lag", "against")
    assert "rnn, batch of W x" in text


@pytest.mark.slow
def test_schedules(tmp_path):
    text = smoke("schedules", tmp_path / "out", "--no-verify")
    check_figures(tmp_path / "out" / "sgd_warm", text, "norms_by_lag", "against")
    assert "1/t, warm-up" in text


@pytest.mark.slow
def test_initialisations(tmp_path):
    text = smoke("initialisations", tmp_path / "out", "--no-verify")
    for kind in ("rnn", "lstm", "chrono"):
        check_figures(tmp_path / "out" / f"{kind}_10", text, "norms_by_lag", "against")


@pytest.mark.slow
def test_causes(tmp_path):
    text = smoke("causes", tmp_path / "out", "--no-verify")
    for part in ("rnn", "lstm"):
        check_figures(tmp_path / "out" / part, text, "norms_by_lag", "norms_by_layer", "against")
    for part in ("rate", "words"):
        check_figures(tmp_path / "out" / part, text, "norms_by_lag", "against")
    assert "embedding of 4" in text
    assert not [*(tmp_path / "out" / "rate" / "figures").glob("norms_by_layer*")]  # of one


@pytest.mark.slow
def test_gating(tmp_path):
    """At equal size the rnn is wider: its parameters are within 3% of the gated cell's."""
    text = smoke("gating", tmp_path / "out", "--no-verify")
    check_figures(tmp_path / "out" / "T_10", text, "norms_by_lag", "against")
    for gates in (3, 4):
        for h in (6, 32, 64):
            count = gates * (h * h + 7 * h)
            h = gating.wide(h, 6, gates)
            assert abs(h * h + 7 * h - count) < 0.06 * count


@pytest.mark.slow
def test_cures(tmp_path):
    """The one table has every cure that was asked for, each with what it costs beside the first."""
    text = smoke("cures", tmp_path / "out", "--no-verify")
    assert "×1.00" in text and (tmp_path / "out" / "report.html").exists()
    times = json.loads((tmp_path / "out" / "milliseconds.json").read_text())
    assert len(times) == 2 and min(times.values()) > 0
    refused = refusal("cures", "--cures", "prayer", "--out", str(tmp_path / "new"))
    assert "'prayer'" in refused and not (tmp_path / "new").exists()


@pytest.mark.slow
def test_reproduce_flossing(tmp_path):
    """What was flossed starts elsewhere, nearer to exponents of 0; the last, which was not, is no nearer."""
    out = tmp_path / "out"
    text = smoke("reproduce/flossing", out, "--no-verify")
    check_figures(out, text, "learning", "norms_by_lag", "spectra", "success")
    assert "orders of magnitude smaller" in text and "keeps its size" in text and "undecided" in text
    plain, flossed = (load(out / "T_6" / case)["lyapunov_exponent"].values[:, 0, 0] for case in ("plain", "flossed"))
    assert (np.square(flossed[:, :6]).sum(axis=1) < 0.95 * np.square(plain[:, :6]).sum(axis=1)).all()


@pytest.mark.slow
def test_synthetic(tmp_path):
    """Every judgement is drawn; a size that is too large is refused."""
    pytest.importorskip("aeon")
    out = tmp_path / "out"
    text = smoke("synthetic", out, "--data", "vowels", "--no-verify")
    check_figures(out, text, "samples_vowels", "collapse", "bounds", "judged", "gradients")
    for word in ("TSTR", "TRTS", "discriminative", "real + GAN", "history 0.5, annealed", "chosen"):
        assert word in (out / "report.html").read_text()
    with pytest.raises(ConfigError, match="sizes is"):
        _generators.fitting(_generators.Config(sizes=(5000,)), "digits", 1000)
    # Of vowels alone two claims are made. Were there digits as well, and all sizes, all would be.
    found = generated.read(out)
    runs = synthetic.columns(found)
    told = json.loads((out / claims.TOLD).read_text())
    assert len(told) == 2 and all("vowels" in row["claim"] and row["claim"] in html.unescape(text) for row in told)
    sized = [
        runs.assign(data=("run", np.full(runs.sizes["run"], name)), size=xr.where(runs["size"] > 0, size, 0))
        for name, size in (("vowels", 50), ("digits", 50), ("digits", 200))
    ]
    main = importlib.import_module("experiments.synthetic")
    assert len(claims.judged(main.CLAIMS, xr.concat(sized, "run"))) == len(main.CLAIMS)
    score = runs["value"].values[(runs["what"] == "told").values & (runs["of"] == "gan").values]
    assert score == np.abs(found.scores["vowels", "discriminative", "gan", 40] - 0.5)


REPRODUCED = sorted(
    p.stem for p in (ROOT / "experiments" / "reproduce").glob("[!_]*.py") if p.stem not in ("newton", *MEASURED)
)
"""Those that train runs and publish a page of them."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [r for r in REPRODUCED if r != "flossing"])
def test_reproduce(name, tmp_path):
    """Each says what the papers say, what it found, and the verdicts; so does a command of its directory."""
    main = importlib.import_module(f"experiments.reproduce.{name}")
    text = smoke(f"reproduce/{name}", tmp_path / "out", "--no-verify")
    check_figures(tmp_path / "out", text, "norms_by_lag", "learning")
    ((out, parts),) = claimants.experiments([tmp_path]).items()
    assert out == tmp_path / "out" and claimants.script_of(parts[0]) == main.__name__
    page = html.unescape((tmp_path / "out" / "report.html").read_text())
    for column in ("claim", "paper", "ours", "interval", "verdict", "learned"):
        assert column in text and f"<th>{column}" in page
    found = claims.verdicts(main.CLAIMS, *parts, columns=claimants.columns)
    assert found and all(v.claim.statement in page and v.verdict == "undecided" for v in found)
    if name == "temporal_order":
        assert all(load(part)["attractors"].values[:, -1].min() >= 1 for part in parts) and "after 40 steps" in page


CURES = "initialisations clipping activations regularisation normalisation schedules gating cures".split()


@pytest.mark.parametrize(
    "name",
    [
        *CURES,
        "capacity",
        "augmentation",
        *(f"reproduce.{name}" for name in (*REPRODUCED, *TRAINED)),
    ],
)
def test_every_full_setting_is_valid_and_larger_than_the_default(name, monkeypatch):
    """Nothing is trained: it is hours long."""
    main = importlib.import_module(f"experiments.{name}")
    seen = []

    def launched(parts, *_):
        seen.append(sum(len(e.specs) * len(e.numbers) * e.updates for e in parts.values()))
        raise InterruptedError

    for module in (main, _cases):
        monkeypatch.setattr(module, "launch_all", launched, raising=False)
    monkeypatch.setattr(main, "launch", lambda one, *_: launched({"": one}), raising=False)
    monkeypatch.setattr(main.backend, "start", lambda: None)
    for paper in (False, True):
        with pytest.raises(InterruptedError):
            main.main(main.Config(paper=paper))
    assert seen[0] < seen[1]


def test_a_tiny_or_full_setting_leaves_what_was_given(tmp_path):
    """--smoke and --paper fill in what stands at its default; they are two sizes."""
    tiny = _cures.with_preset(gating.Config(smoke=True, seeds=1), smoke={})
    assert (tiny.seeds, tiny.hidden, tiny.updates) == (1, 6, 20)
    given = gating.Config(paper=True, seeds=2)
    full = _cures.with_preset(given, smoke={})
    assert (full.seeds, full.hidden, full.updates) == (2, 50, 30_000)
    refused = refusal("reproduce/adding", "--paper", "--smoke", "--out", str(tmp_path / "new"))
    assert "smoke and paper" in refused and not (tmp_path / "new").exists()


@pytest.mark.slow
def test_augmentation(tmp_path):
    text = smoke("augmentation", tmp_path / "out", "--data", "images", "--no-verify")
    check_figures(tmp_path / "out", text, "augmentation", "augmented_images")
    ds, runs = load(tmp_path / "out" / "digits30"), shown_augmentation.columns(tmp_path / "out" / "digits30")
    assert "flipped" in text and ds["finite"].all()
    look = ds["validation_loss"].values.argmin(axis=1)
    np.testing.assert_allclose(runs["error"], 100 * (1 - ds["test_accuracy"].values[range(len(look)), look]))
    settled = runs.isel(run=np.flatnonzero(runs["settled_error"].notnull()))
    assert (settled["label"] == "kept").all() and len(set(settled["strength"].values) - {0.0}) == 1
    np.testing.assert_array_equal(settled["error"], settled["settled_error"])
    for name, option in (("audio", "--audio-dir"), ("text", "--data-dir")):
        refused = refusal("augmentation", "--smoke", "--data", name)
        assert option in refused


def test_a_smaller_training_set_is_part_of_a_larger_one_and_keeps_its_variants():
    rng = np.random.default_rng(0)
    ys = np.resize(np.int32([0, 1]), 40)
    whole = Examples(rng.normal(size=(40, 3, 1)).astype(np.float32), np.full(40, 3, np.int32), ys)
    bank = Examples(np.stack([whole.xs, whole.xs + 9], axis=1), np.full((40, 2), 3, np.int32), ys)
    splits = {"train": whole, "validation": whole, "bank": bank}
    setting = augmentation.Setting("spoken", "audio", splits, (10, 20), {}, ("bank",))
    few, more = (augmentation.fewer(setting, n) for n in (10, 20))
    assert len(few["train"].ys) == len(more["train"].ys) == 20  # one program for both
    rows = [{row.tobytes() for row in data["train"].xs} for data in (few, more)]
    assert len(rows[0]) == 10 and len(rows[1]) == 20 and rows[0] < rows[1]
    np.testing.assert_array_equal(few["bank"].xs[:, 1], few["train"].xs + 9)
    assert few["validation"] is whole
    with pytest.raises(ConfigError, match="audio has 50, but must be at most the training examples, 40"):
        augmentation.fewer(setting, 50)


def test_every_experiment_has_a_smoke_test_here():
    scripts = {p.stem for p in (ROOT / "experiments").glob("*.py") if not p.stem.startswith("_")}
    assert all(f"test_{name}" in globals() for name in scripts - {"say"})  # which test_predictions runs


def test_training_sets_are_nested_and_a_share_of_their_labels_is_wrong():
    c = capacity.Config(training=(50, 200), wrong=(0.0, 0.2))
    sets = capacity.data(c)
    assert list(sets) == ["n50_wrong0", "n200_wrong0", "n50_wrong0.2", "n200_wrong0.2"]
    right, few, noisy = (sets[name]["train"] for name in ("n200_wrong0", "n50_wrong0", "n200_wrong0.2"))
    np.testing.assert_array_equal(right.xs[:50], few.xs)
    np.testing.assert_array_equal(right.xs, noisy.xs)
    assert np.sum(right.ys != noisy.ys) == 40 and set(noisy.ys) == set(range(10))
    assert np.bincount(few.ys).min() >= 4  # of ten classes
    for split in ("validation", "test"):
        np.testing.assert_array_equal(sets["n50_wrong0.2"][split].ys, sets["n200_wrong0"][split].ys)


@pytest.mark.slow
def test_capacity(tmp_path):
    out = tmp_path / "out"
    text = smoke("capacity", out, "--no-verify")
    check_figures(out, text, "against_width", "along_training")
    assert "not selectable" in (out / "report.html").read_text()
    ds = load(out / "n50_wrong0.2")
    assert {"train_accuracy", "validation_loss", "test_accuracy", "group_weight_norm"} <= set(ds.data_vars)
    runs = shown_capacity.columns(out / "n50_wrong0", out / "n50_wrong0.2")
    assert runs["experiment"].values.tolist() == ["capacity_n50_wrong0"] * 2 + ["capacity_n50_wrong0.2"] * 2
    np.testing.assert_allclose(runs["test_last"][2:], 1 - ds["test_accuracy"].values[:, -1])
    look = ds["validation_loss"].values.argmin(axis=1)
    np.testing.assert_allclose(runs["test_chosen"][2:], 1 - ds["test_accuracy"].values[range(2), look])
    refused = refusal("capacity", "--training", "5000", "--out", str(tmp_path / "new"))
    assert "1078" in refused and not (tmp_path / "new").exists()


@pytest.mark.slow
def test_polynomials(tmp_path):
    """What was measured is kept, with its settings, and wrong input is a sentence."""
    out = tmp_path / "out"
    text = smoke("polynomials", out)
    check_figures(out, text, "fits", "parabola", "trade", "beyond", "descent")
    page = (out / "report.html").read_text()
    assert "greatest at degree 19" in page and "autodiff" not in page
    told = json.loads((out / claims.TOLD).read_text())
    assert told and all(row["claim"] in page for row in told)  # but of degree 31, which is beyond
    assert len(told) == len(polynomials.CLAIMS) - 2 and text.count("undecided") > 0
    kept = (out / "polynomials.npz").stat().st_mtime_ns
    with np.load(out / "polynomials.npz") as found:
        whole = found["parts"].sum(1) + found["sigma"] ** 2
        np.testing.assert_allclose(whole, found["test"].mean(1), rtol=1e-9)
    same = dataclasses.replace(polynomials.Config(), **polynomials.SMOKE)
    polynomials.measure(same, out / "polynomials.npz")
    assert (out / "polynomials.npz").stat().st_mtime_ns == kept
    with pytest.raises(ConfigError, match="other settings"):
        polynomials.measure(polynomials.Config(), out / "polynomials.npz")
    refused = refusal("polynomials", "--draws", "1", "--out", str(tmp_path / "new"))
    assert "at least 2" in refused and not (tmp_path / "new").exists()


@pytest.mark.slow
def test_overfitting(tmp_path):
    refused = refusal("overfitting", "--smoke", "--data", "digits")
    assert "audio_dir" in refused
    recordings = os.environ.get("SEQDYN_AUDIO")
    if recordings is None:
        pytest.skip("needs spoken digits: set SEQDYN_AUDIO to the folder of recordings")
    given = ("--data", "digits", "--audio-dir", recordings, "--no-verify")
    text = smoke("overfitting", tmp_path / "out", *given)
    check_figures(tmp_path / "out", text, "overfitting", "overfitting_curves")
    found = overfitting.summary(tmp_path / "out")
    assert [row.method for row in found] == list(overfitting.ORDER)
    assert all(len(row.test) == 2 and row.ms > 0 and np.isfinite(row.horizon).all() for row in found)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "by test accuracy in percent" in page and "Overfitted: " in page
    # What claims are about is what the table says.
    runs = overfitting.columns(*sorted(p.parent for p in (tmp_path / "out").glob(f"*/{manifest.NAME}")))
    for row in found:
        for what, values in (("test", 100 * row.test), ("reach", row.horizon)):
            column = runs[f"{what} {row.method}"].values
            np.testing.assert_allclose(np.sort(column[~np.isnan(column)]), np.sort(values), err_msg=row.method)
    # What helped on validation, and nothing else, is switched on together.
    helped = overfitting.helped(tmp_path / "out" / "digits60")
    numbers = load(tmp_path / "out" / "digits60_together")
    names = manifest.experiment(tmp_path / "out" / "digits60_together").settings["numbers"]
    for method, name in names.items():
        assert np.all(numbers[name].values == helped.get(method, 0.0)), method
