"""Every experiment runs with `--smoke`, and its analysis draws from that run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis import jacobian_spectra
from seqdyn.runs.records import load

X64 = False
ROOT = Path(__file__).parents[1]
PNG = b"\x89PNG\r\n"


def smoke(name, out, *arguments):
    """Runs a script as a user does and returns what it printed."""
    # One device and a quick compilation here: whole runs on two devices are in test_run and test_resume.
    flags = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, f"experiments/{name}.py", "--smoke", "--out", str(out), *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "PYTHONWARNINGS": "error", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_figures(out, text, *names):
    figures = {p.name: p for p in (out / "figures").glob("*.png")}
    assert all(any(f.startswith(name) for f in figures) for name in names), sorted(figures)
    assert all(p.read_bytes().startswith(PNG) and p.stat().st_size > 5_000 for p in figures.values())
    assert "report.html" in text
    page = (out / "report.html").read_text()
    assert "<img" in page or "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_gradient_flow(tmp_path):
    text = smoke("gradient_flow", tmp_path / "out")
    check_figures(tmp_path / "out", text, "norms_by_lag", "norms_through_training", "learning", "outcomes")
    for cell in ("rnn tanh", "rnn relu", "lstm", "gru"):
        assert cell in text


def test_imdb_gradients(tmp_path, imdb_dir):
    text = smoke("imdb_gradients", tmp_path / "out", "--data-dir", str(imdb_dir))
    check_figures(tmp_path / "out", text, "norms_by_lag", "norms_through_training", "learning")
    assert "chosen on validation" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_edge_of_chaos(tmp_path):
    text = smoke("edge_of_chaos", tmp_path / "out")
    check_figures(tmp_path / "out", text, "against_gain", "plane", "collapse", "spectra")
    assert "critical" in text and "Theory against 2 wide networks" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_throughput(tmp_path):
    text = smoke("throughput", tmp_path / "out", "--cells", "lstm")
    assert (tmp_path / "out" / "throughput.json").exists() and "autodiff" in text


@pytest.mark.slow
def test_theory_check(tmp_path):
    """What is exact agrees at any size; a network too small for mean field theory is seen not to."""
    text = smoke("theory_check", tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "theory_check.json").read_text())["rows"]
    exact = [row for row in rows if row["quantity"].startswith(("adjoint", "orthogonal"))]
    assert len(exact) == 7 and all(row["agrees"] for row in exact)
    assert not all(row["agrees"] for row in rows if row["quantity"] == "growth")
    assert all(f"{row['difference']:+.1e}" in text for row in exact)
    assert (tmp_path / "out" / "theory_check.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_edge_of_stability(tmp_path):
    """The probes see the loss that is descended; a rate far above 2/sharpness diverges, and only that."""
    text = smoke("edge_of_stability", tmp_path / "out", "--cells", "rnn", "lstm", "--no-verify")
    check_figures(tmp_path / "out", text, "training", "against_rate")
    ds = load(tmp_path / "out")
    lost = ~ds["finite"].all("step").values
    np.testing.assert_array_equal(lost, ds["lr"].values == 100)
    assert text.count("2/2") == 2
    looks, sequences = ds["probe_step"].values[:-1], 8
    seen = (ds["gradient_square"] + ds["gradient_variance"] / sequences).values[~lost, :-1]
    np.testing.assert_allclose(seen, ds["grad_norm"].values[~lost][:, looks] ** 2, rtol=1e-4)
    np.testing.assert_allclose(ds["gradient_update_cosine"].values[~lost], 1, rtol=1e-5)
    above = ds["sharpness"].values * (1 + 1e-5) - ds["directional_sharpness"].values
    assert (above[~lost] > 0).all()  # a Rayleigh quotient is at most the largest eigenvalue


@pytest.mark.slow
def test_jacobian_spectra(tmp_path):
    """One directory holds both initialisations; the product of the steps' norms bounds a window's from above."""
    text = smoke("jacobian_spectra", tmp_path / "out", "--cells", "tanh", "lstm", "--no-verify")
    check_figures(tmp_path / "out", text, "spectra", "along_training", "against_lag", "clocks")
    page = (tmp_path / "out" / "report.html").read_text()
    for init in ("orthogonal", "gaussian"):
        assert f"rnn tanh, {init}: " in page and f"lstm, {init}: " in page
    ds = jacobian_spectra.read(tmp_path / "out")
    for group in jacobian_spectra.groups(ds):
        for stage in jacobian_spectra.STAGES:
            largest = jacobian_spectra.spectra(ds, group, stage)[..., 0]
            product = jacobian_spectra.bound(ds, group, stage)[:, ds["window"].values - 1]
            np.testing.assert_allclose(largest[:, 0], product[:, 0], atol=1e-5)  # a window of one step is the step
            assert (largest[:, 1:] < product[:, 1:]).all()


def test_every_experiment_has_a_smoke_test_here():
    scripts = {p.stem for p in (ROOT / "experiments").glob("*.py")} - {"__init__"}
    assert all(f"test_{name}" in globals() for name in scripts)
