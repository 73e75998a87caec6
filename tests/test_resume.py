"""Killed at any moment, the same command goes on, and ends with the bits of a run that nobody touched.

Real processes, real signals, both kinds of data: a task sampled on the device and a data set.
"""

import signal
import time

import pytest
from _digests import digests
from _processes import Process

import seqdyn

X64 = False
# A script's own config and main, but for the drawing: that reads what is compared here, and takes as long again. Told
# to hold, it waits with its `hold`-th chunk recorded until the signal is heard: no machine is too fast or slow.
DRIVER = """
import os, time
from pathlib import Path
from experiments import {name} as experiment
from seqdyn.runs.records import Store
from seqdyn.runs.script import script
experiment.analysis.show = lambda *given: None
write, hold, gate, chunks = Store.write, int(os.environ["HOLD"]), Path(os.environ["GATE"]), []
def held(self, tile, number, metrics):
    write(self, tile, number, metrics)
    chunks.extend([1] if "loss" in metrics else [])
    if hold and len(chunks) >= hold:
        gate.with_suffix(".held").touch()
        while not gate.exists():
            time.sleep(0.005)
Store.write = held
script(experiment.Config, experiment.main, None)
"""
OFTEN = ["--checkpoint-seconds", "0", "--no-verify"]
ADDING = ["gradient_flow", "--cells", "tanh", "--gains", "1.0", "--clips", "0.1", "--seeds", "4", "--steps", "8"]
ADDING += ["--hidden", "16", "--batch", "4", "--tile", "2", "--updates", "120", "--chunk", "20", *OFTEN]
LAST = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGUSR2: 140, signal.SIGKILL: -9}


def start(command, out, hold=0):
    name, *arguments = command
    gate = {"HOLD": str(hold), "GATE": str(out.with_suffix(".gate"))}
    return Process(["-c", DRIVER.format(name=name), *arguments, "--out", out], COLUMNS="200", **gate)


def finish(process, expected=0):
    text = process.finish()
    assert process.returncode == expected, text
    return text


def stop(command, out, signum, chunks):
    """Starts the command, lets it record `chunks` more chunks and sends a signal that it hears before it goes on."""
    gate = out.with_suffix(".gate")
    held = gate.with_suffix(".held")
    gate.unlink(missing_ok=True)
    held.unlink(missing_ok=True)
    process = start(command, out, chunks)
    while not held.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signum)
    said = ""
    while signum != signal.SIGKILL and "stopping" not in said and (line := process.stdout.readline()):
        said += line
    gate.touch()
    return said + finish(process, LAST[signum])


@pytest.mark.slow
def test_a_run_that_was_interrupted_again_and_again_equals_one_that_was_not_bit_for_bit(tmp_path):
    finish(start(ADDING, tmp_path / "whole"))
    out = tmp_path / "broken"
    for signum, chunks in [(signal.SIGTERM, 1), (signal.SIGKILL, 3), (signal.SIGINT, 2)]:
        text = stop(ADDING, out, signum, chunks)
        assert not seqdyn.load(out).recorded.all(), "the process was not interrupted"
        if signum != signal.SIGKILL:
            assert f"{signal.Signals(signum).name}: stopped at the end of a chunk and saved" in text
    finish(start(ADDING, out))
    assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_on_a_data_set_goes_on_after_usr1_kill_and_usr2(tmp_path):
    """A stream, whose state is more than parameters: each batch begins with the carries that the one before left."""
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, " * 600)
    command = ["sequences", "--source", "characters", "--file", str(text), "--cells", "gru", "--smoke", *OFTEN]
    finish(start(command, tmp_path / "whole"))
    assert seqdyn.load(tmp_path / "whole").finite.all()
    out = tmp_path / "broken"
    for signum in (signal.SIGUSR1, signal.SIGKILL, signal.SIGUSR2):
        stop(command, out, signum, 1)
        assert not seqdyn.load(out).recorded.all(), "the process was not interrupted"
    finish(start(command, out))
    assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.parametrize(
    "command, sentence",
    [
        ([*ADDING, "--hidden", "0"], "hidden is 0; it must be a whole number of at least 1."),
        ([*ADDING, "--gains", "-1"], "gain is -1.0; it must be at least 0."),
        (["imdb_gradients", "--data-dir", "nowhere"], "data_dir"),
    ],
    ids=["hidden", "gains", "data_dir"],
)
def test_bad_values_are_one_sentence_with_exit_code_2_and_nothing_is_written(command, sentence, tmp_path):
    text = finish(start(command, tmp_path / "out"), 2)
    assert sentence in text and len(text.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
