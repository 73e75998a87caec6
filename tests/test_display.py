"""Laws of what is shown while a run trains: a map of what was recorded on a terminal, plain lines anywhere else."""

import io
import sys
from types import ModuleType

import numpy as np
import pytest
from _digests import digests
from rich.console import Console

import seqdyn as sd
from seqdyn.layout import Tile
from seqdyn.runs import display
from seqdyn.runs.display import Display, plain_console
from seqdyn.runs.lag_map import ASCII, LagMap

X64, DEVICES = False, 2
RUNS = sd.grid(sd.Spec(steps=4, batch=2, hidden=(3,), holdout=4), seeds=3, lr=[1e-2, 1e30])
EXPERIMENT = sd.Experiment("shown", RUNS, updates=8, chunk=2, probe_every=4, tile=4, probes=())


def test_a_cell_of_the_map_is_the_record_of_its_lag_and_of_the_newest_update_in_its_column():
    norms = 10.0 ** -np.random.default_rng(0).uniform(0, 9, (3, 80, 20))
    norms[1, 33:] = np.nan  # this run diverged
    shown = LagMap("title", 80, 20, "01234")
    for stop in (20, 40, 60):
        shown.put(stop, norms[:, stop - 20 : stop])
    logs = np.log10(np.nanmedian(norms, axis=0))[1:60:2, ::-1][:, [0, 3, 5, 8, 11, 14, 16, 19]]
    fifths = np.clip((logs - logs.min()) / (logs.max() - logs.min()) * 5, 0, 4.999).astype(int)
    wanted = ["".join(map(str, row)) + " " * 10 for row in fifths.T[::-1]]
    title, *rows, updates, scale = shown.lines()
    assert title == "title" and [row[7:] for row in rows] == wanted
    assert [row[:7].strip() for row in rows] == ["lag 19", "16", "14", "11", "8", "5", "3", "0"]
    assert updates.split() == ["update", "0", "80"]
    edges = np.linspace(logs.min(), logs.max(), 6)[1:5]
    assert np.allclose(np.log10(np.array(scale.split()[1::2], float)), edges, atol=0.2)


@pytest.mark.parametrize(
    "norms, wanted",
    [
        ([[[1.0, 1.0]]], ["4", "4"]),
        ([[[0.0, 0.0]]], ["0", "0"]),
        ([[[0.0, 1e30]]], ["0", "4"]),
        ([[[1e-30, 1.0]]], ["0", "4"]),
        ([[[np.inf, 1.0]]], [" ", "4"]),
    ],
)
def test_the_map_takes_any_norm(norms, wanted):
    shown = LagMap("", 1, 2, "01234")
    assert not shown.lines()
    shown.put(1, np.array(norms))
    assert [row[-1] for row in shown.lines()[1:-2]] == wanted


@pytest.mark.slow
def test_the_map_of_runs_that_train_has_their_records_and_changes_no_bit(tmp_path):
    said = io.StringIO()
    console = plain_console(file=said, force_terminal=True, width=120, height=40)
    out = sd.run(EXPERIMENT, tmp_path / "shown", verify=False, console=console)
    assert digests(out) == digests(sd.run(EXPERIMENT, tmp_path / "quiet", verify=False, console=Console(quiet=True)))
    ds = sd.load(out).load()
    last = said.getvalue().split("‖∂L/∂h_t‖")[-1].splitlines()
    runs = slice(0, 4) if "runs 0 to 3" in last[0] else slice(4, 6)  # of two tiles at once either may end last
    wanted = LagMap("", 8, 4)
    wanted.put(8, ds["adjoint_norm"].values[runs, :, 0])
    assert [line.rstrip() for line in last[1 : len(wanted.lines())]] == [line.rstrip() for line in wanted.lines()[1:]]


@pytest.mark.parametrize("kind", ["pipe", "dumb", "notebook"])
def test_where_nothing_can_be_drawn_over_there_are_plain_lines(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    said, printed = io.StringIO(), []
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    if kind == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    console = plain_console(file=said, force_terminal=kind == "dumb", force_jupyter=kind == "notebook", width=100)
    monkeypatch.setattr(console, "print", lambda *a, **k: printed.append(a[0]) or Console.print(console, *a, **k))
    if kind == "notebook":  # without IPython, which would show what is printed
        monkeypatch.setattr("rich.jupyter.display", lambda segments, text: said.write(text))
    tile, alive = Tile(0, 0, (0, 1)), np.ones(2, bool)
    metrics = {"loss": np.ones((2, 2)), "adjoint_norm": np.ones((2, 2, 1, 4))}
    with Display(EXPERIMENT, console, [tile]) as shown:
        shown.at(tile, 0, alive)
        for step in (2, 4, 6, 8):
            shown.at(tile, step, alive, metrics)
    assert [line.split("%")[0].strip() for line in printed] == ["25", "50", "75", "100"]
    lines = said.getvalue().splitlines()
    assert [line.rstrip() for line in lines] == printed
    assert all(letter.isprintable() for line in lines for letter in line)


def test_the_map_of_runs_that_were_added_counts_them_in_the_whole():
    console = plain_console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    with Display(EXPERIMENT, console, [tile := Tile(0, 0, (0, 1))], first=6) as shown:
        shown.at(tile, 0, np.ones(2, bool))
        shown.at(tile, 8, np.ones(2, bool), {"loss": np.ones((2, 8)), "adjoint_norm": np.ones((2, 8, 1, 4))})
        assert str(shown._bar.below).split("\n")[0].endswith("median of runs 6 to 7")


def test_a_notebook_that_has_widgets_is_drawn_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", ModuleType("ipywidgets"))
    monkeypatch.setattr(sys.modules["ipywidgets"], "__spec__", object())
    assert display.draws(plain_console(file=io.StringIO(), force_jupyter=True))


def test_a_terminal_without_unicode_is_drawn_in_ascii():
    said = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    tile, alive = Tile(0, 0, (0, 1)), np.ones(2, bool)
    with Display(EXPERIMENT, plain_console(file=said, force_terminal=True, width=100, height=40), [tile]) as shown:
        shown.at(tile, 0, alive)
        shown.at(tile, 8, alive, {"loss": np.ones((2, 8)), "adjoint_norm": np.ones((2, 8, 1, 4))})
    said.flush()
    text = said.buffer.getvalue().decode("ascii")
    assert "norm of dL/dh_t of" in text and ASCII[-1] * 8 in text
