"""What `test_slurm` has Slurm run: two tiles, thus two shards, that cannot end in one sitting.

Settings come by the environment: HOLD, a folder: with every second chunk a process leaves a file there that names its
tile and update, and waits to be stopped. FAIL: a shard that fails before training.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

UPDATES, CHUNK = 20, 2


def main(config):
    from seqdyn import backend
    from seqdyn.learn.config import Experiment, Spec, grid
    from seqdyn.runs.script import launch

    if os.environ.get("FAIL") == config.shard:
        raise RuntimeError("asked to")
    backend.start()
    specs = (Spec(steps=6, batch=3, hidden=(4,), holdout=6),)
    out = launch(Experiment("slurmed", specs, grid(seeds=4), UPDATES, CHUNK, 4, tile=2), config)
    (out / "drawn").touch()


if __name__ == "__main__":
    from seqdyn.runs import run, script, signals

    at, ask, asked = run.Display.at, signals.Stop.ask, []

    def asking(self, signum=0):  # in a signal's handler, so without an Event's lock
        ask(self, signum)
        asked.append(signum)

    def holding(self, tile, step, alive, metrics=None):
        at(self, tile, step, alive, metrics)
        if "HOLD" in os.environ and metrics is not None and step % (2 * CHUNK) == 0 and step < UPDATES:
            Path(os.environ["HOLD"], f"{tile.index}-{step}").touch()
            while not asked:
                time.sleep(0.01)

    signals.Stop.ask = asking
    run.Display.at = holding

    @dataclass(frozen=True, kw_only=True)
    class Config(script.Options):
        """The options of every script."""

    sys.argv[1:1] = ["--no-verify", "--checkpoint-seconds", "0"]
    script.script(Config, main, None)
