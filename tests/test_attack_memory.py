"""A long sweep holds no more memory at its end than at its beginning, and large records fit a small machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONG = """
import os, sys
import numpy as np
from seqdyn import backend
backend.start(1)
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs import run
from seqdyn.runs.records import Store
write, chunks, resident = Store.write, [], {}
def counted(self, tile, number, metrics):
    write(self, tile, number, metrics)
    if "loss" in metrics:
        chunks.append(1)
        pages = int(open("/proc/self/statm").read().split()[1])
        resident[len(chunks)] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
Store.write = counted
e = Experiment("long", (Spec(steps=20, batch=8, hidden=(16,), holdout=8),), grid(seeds=4), 1000, 5, 25, tile=4)
run.run(e, sys.argv[1], verify=False, checkpoint_seconds=0.5)
print(resident[20], resident[200])
"""
LARGE = """
import resource, sys
import numpy as np
from pathlib import Path
import seqdyn
from seqdyn.learn.config import Experiment, Spec, grid
from seqdyn.runs import manifest
from seqdyn.runs.records import Store
out = Path(sys.argv[1])
e = Experiment("large", (Spec(steps=200, hidden=(4,)),), grid(seeds=256), 2000, 100, 2000, tile=8)
manifest.open_run(out, e, {})
store = Store(out / "records.zarr", e.layout)
store.create(["loss", "recorded", "adjoint_norm", "carried_norm"], {"layer": [0], "group": [], "gate": []})
draw = np.random.default_rng(0)
for tile in e.layout.tiles:
    for start in range(0, 2000, 100):
        norms = draw.random((8, 100, 1, 200), np.float32)
        some = {"loss": norms[:, :, 0, 0], "recorded": np.ones((8, 100), bool)}
        store.write(tile, start, some | {"adjoint_norm": norms, "carried_norm": norms})
ds = seqdyn.load(out)
print(float(ds.adjoint_norm.median("step").mean()), float(ds.carried_norm.mean()))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.fixture
def long_form(request):
    if not request.config.getoption("--attack", default=False):
        pytest.skip("part of the long form: pytest --attack")


def said(code, out):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, str(out)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [float(number) for number in done.stdout.split()]


def test_resident_memory_after_20_chunks_is_that_after_200(tmp_path, long_form, capsys):
    early, late = said(LONG, tmp_path / "out")
    with capsys.disabled():
        print(f"\nresident after 20 chunks {early:.0f} MiB, after 200 {late:.0f} MiB")
    assert late < early * 1.02


def test_large_records_are_written_and_analysed_within_two_gib(tmp_path, long_form, capsys):
    *_, peak = said(LARGE, tmp_path / "out")
    with capsys.disabled():
        print(f"\npeak {peak:.2f} GiB")
    assert peak < 2
