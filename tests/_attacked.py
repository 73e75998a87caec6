"""What `test_attack` kills: a small script that says which phase it is in and, told to, sends itself a signal there.

Settings come by the environment: OUT; PHASE_FILE, one byte, the phase it is in; KILL 'signal phase occurrence seconds':
a signal comes that long after the phase was entered for that time, wherever the process is by then. GATE: wait until
this file is there, in the first record of training or where HOLD 'phase occurrence' says. UPDATES: how long to train.
JOINED 'address index': one of two processes under jax.distributed.
"""

import mmap
import os
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

PHASES = ("compile", "train", "probe", "record", "checkpoint", "delete", "report")
_memory = mmap.mmap(os.open(os.environ["PHASE_FILE"], os.O_RDWR), 1)
_signum, _phase, _occurrence, _seconds = os.environ.get("KILL", "0 none 1 0").split()
_count = {phase: 0 for phase in PHASES}


def entered(phase):
    _memory[0] = PHASES.index(phase)
    _count[phase] += 1
    if phase == _phase and _count[phase] == int(_occurrence):
        timer = threading.Timer(float(_seconds), os.kill, (os.getpid(), int(_signum)))
        timer.daemon = True
        timer.start()


def held(phase):
    gate, (where, nth) = os.environ.get("GATE"), os.environ.get("HOLD", "record 1").split()
    if gate and phase == where and _count[phase] >= int(nth):
        Path(gate).with_suffix(".held").touch()
        while not Path(gate).exists():
            time.sleep(0.005)


def during(phase, function):
    def wrapped(*args, **options):
        before = _memory[0]
        entered(phase)
        try:
            return function(*args, **options)
        finally:
            _memory[0] = before

    return wrapped


def main(config):
    import _own  # whose cell, task, optimiser and record are a user's: they must come again as the library's do
    import jax

    from analysis import report
    from seqdyn import backend
    from seqdyn.learn.config import Experiment, grid
    from seqdyn.runs.script import launch

    if "JOINED" in os.environ:
        address, index = os.environ["JOINED"].split()
        jax.distributed.initialize(address, num_processes=2, process_id=int(index))
    backend.start()
    updates = int(os.environ.get("UPDATES", "24"))
    out = launch(Experiment("attacked", grid(_own.SPEC, seeds=4), None, updates, 2, 4, tile=2), config)
    entered("report")
    report.write(out, "Attacked <script>alert(1)</script>", ["all & everything"], [])
    shutil.copyfile(out / "report.html", out / "report.copy")


if __name__ == "__main__":
    entered("compile")
    from seqdyn.runs import checkpoint, records, run, script

    write, probe = records.Store.write, run._probe

    def gated(self, tile, number, metrics):
        write(self, tile, number, metrics)
        if "loss" in metrics:
            held("record")

    def probing(*args):
        held("probe")
        return probe(*args)

    records.Store.write = during("record", gated)
    run._probe = during("probe", probing)
    checkpoint.save = during("checkpoint", checkpoint.save)
    checkpoint.shutil = type("Shutil", (), {"rmtree": staticmethod(during("delete", shutil.rmtree))})
    at = run.Display.at

    def training(self, tile, step, alive, metrics=None):
        entered("train")
        at(self, tile, step, alive, metrics)

    run.Display.at = training

    @dataclass(frozen=True, kw_only=True)
    class Config(script.Options):
        """The options of every script."""

    sys.argv[1:1] = ["--out", os.environ["OUT"], "--no-verify", "--checkpoint-seconds", "0"]
    script.script(Config, main, None)
