"""What does an update cost, and a run on disk, as sequences, batches, widths, layers and grids grow?

Time: from one setting, the adding problem at T = 100, B = 16, H = 32, one layer, one run, each of T, B, H, layers and
runs grows by itself, the rest staying. An update is that of training itself: forward, the hand-written
backward pass, every norm read, Adam; on one core, in chunks, all sizes of one axis taking turns, medians over rounds.
The exponent p of ms ∝ size^p is the slope of log ms over log size in the upper half of the sizes, by least squares.
Disk: the same records as any run's, of short sequences and long, of all lags and of lags spaced by their logarithm
(`Experiment.lags`); from them the plan of 1,000 runs × 10,000 updates × 1,000 lags.
Cost: two minutes of processor time; figures mean something where nothing else runs.
Expect: time in proportion to runs and, while all is in cache, to T; less than in proportion to B and H while an update
is small, near H² at 256; records of 1,000 lags shrunk to a thirteenth by lags spaced by their logarithm.
"""

import tempfile
from dataclasses import dataclass
from typing import Any, Literal

import jax

import seqdyn as sd
from analysis import costs as analysis
from experiments import _measured, _timing
from seqdyn import backend
from seqdyn.fields import CellName
from seqdyn.runs import sweep
from seqdyn.runs.script import script
from seqdyn.types import ConfigError

BASE = {"T": 100, "B": 16, "H": 32, "layers": 1, "runs": 1}
SIZES = {
    "T": (25, 50, 100, 200, 400, 800),
    "B": (4, 8, 16, 32, 64, 128),
    "H": (16, 32, 64, 128, 256),
    "layers": (1, 2, 4, 8),
    "runs": (1, 4, 16),
}
TINY = {"T": 6, "B": 2, "H": 3, "layers": 1, "runs": 1}
UPDATES = 10
"""Of a chunk that is timed."""


@dataclass(frozen=True, kw_only=True)
class Config(_measured.Once):
    """Each cell is measured at every size."""

    rounds: int = 7
    """Timed chunks of each size."""
    cells: tuple[Literal["rnn", "lstm", "gru"], ...] = ("rnn", "lstm", "gru")
    """The rnn's activation is tanh."""


def milliseconds(cell: CellName, axis: str, base: dict[str, int], sizes: tuple[int, ...], rounds: int) -> list[float]:
    """An update at each size of an axis."""
    calls = []
    for n in (base | {axis: size} for size in sizes):
        spec = sd.Spec("adding", n["T"], n["B"], hidden=(n["H"],) * n["layers"], cell=cell, holdout=2)
        calls.append(_timing.chunk(sweep.programs(spec, 1), sd.grid(spec, seeds=n["runs"]).arrays(), UPDATES))
        calls[-1]()  # compiles
    return [1e3 * taken / UPDATES for taken in _timing.seconds(calls, rounds)]


def of_cell(cell: CellName, base: dict[str, int], sizes: dict[str, tuple[int, ...]], rounds: int) -> list[dict]:
    """A row of each axis; the setting that all of them have in common is compiled once."""
    rows = [
        {"cell": cell, "axis": axis, "sizes": of, "ms": milliseconds(cell, axis, base, of, rounds)}
        for axis, of in sizes.items()
    ]
    jax.clear_caches()  # a process has room for some hundred programs, as each takes many mappings of memory
    return rows


def stored(steps: int, lags: str | None, runs: int, updates: int) -> dict[str, Any]:
    """What the records of an LSTM's runs take, in float32 and on disk."""
    spec = sd.Spec("adding", steps, 1, hidden=(4,), cell="lstm", holdout=2)
    e = sd.Experiment("stored", sd.grid(spec, seeds=runs), updates=updates, probe_every=updates, lags=lags)
    with tempfile.TemporaryDirectory() as folder:
        out = sd.run(e, folder, verify=False)
        files = [path for path in (out / "records.zarr").rglob("*") if path.is_file()]
        ds = sd.load(out)
        numbers = sum(v.size for v in ds.data_vars.values() if "step" in v.dims)
        return {
            "steps": steps,
            "lags": ds.sizes["time"],
            "runs": runs,
            "updates": updates,
            "bytes": 4 * numbers,
            "disk": sum(path.stat().st_size for path in files),
        }


def main(config: Config) -> None:
    """Measures once, keeps every number, draws."""
    if config.rounds < 1:
        raise ConfigError(f"rounds is {config.rounds}; it must be at least 1.")
    kept, settings = _measured.place("costs", config)
    if not kept.exists():
        backend.start(1)
        base = TINY if config.smoke else BASE
        sizes = {axis: (base[axis], 2 * base[axis]) for axis in SIZES} if config.smoke else SIZES
        rounds = 2 if config.smoke else config.rounds
        rows = [row for cell in config.cells for row in of_cell(cell, base, sizes, rounds)]
        small = (8, 16, 2, 4) if config.smoke else (125, 1000, 16, 200)
        disk = [stored(steps, lags, *small[2:]) for steps in small[:2] for lags in (None, "log")]
        _measured.keep(kept, {"config": settings, "base": base, "time": rows, "disk": disk})
    analysis.show(kept.parent)


if __name__ == "__main__":
    script(Config, main, __doc__)
