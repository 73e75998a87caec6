"""A script's shards as processes of their own on this machine; `slurm` makes them jobs.

The run directory is all they share. A worker is the script's own command line with
`--launcher none --slurm --shard i/n` after it, which takes back what was for the launcher; whoever is last sees that
all is there and draws.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from seqdyn.backend import cores
from seqdyn.runs import signals
from seqdyn.runs.signals import Interrupted
from seqdyn.types import ConfigError

WORKERS = 2
"""Shards of a launcher, if nobody says how many."""
A_CORE = 4
"""The most workers here for each core: each is a process that holds JAX and its programs."""


def commands(workers: int) -> list[list[str]]:
    """This process's command line, once for each shard; ConfigError if there is none to make."""
    if workers < 1:
        raise ConfigError(f"workers is {workers}; it must be at least 1.")
    this = [sys.executable, *sys.orig_argv[1:]]
    alone = ["--launcher", "none", "--workers", str(WORKERS), "--slurm"]
    return [[*this, *alone, "--shard", f"{i}/{workers}"] for i in range(workers)]


def check_local(workers: int) -> None:
    """ConfigError for more workers than this machine has room for, of which nobody could stop the start."""
    most = A_CORE * cores()
    if workers > most:
        raise ConfigError(
            f"workers is {workers}; it must be at most {most} with --launcher local, {A_CORE} for each core that this "
            "process may use."
        )


def local(shards: Sequence[Sequence[str]]) -> None:
    """Runs the shards here, each on its share of the cores, and waits for them; a signal is passed on.

    Raises Interrupted after a signal, RuntimeError if a shard failed; its own output says why.
    """
    pins = hasattr(os, "sched_setaffinity")  # elsewhere, as on macOS, the system spreads them
    mine = sorted(os.sched_getaffinity(0)) if pins else []
    with signals.awaited() as stop:
        workers = []
        for i, command in enumerate(shards):
            if pins:
                os.sched_setaffinity(0, mine[i :: len(shards)] or mine)  # a child begins with what its parent has
            workers.append(subprocess.Popen(command))
        if pins:
            os.sched_setaffinity(0, mine)
        passed = False
        while any([worker.poll() is None for worker in workers]):
            if stop.signum is not None and not passed:
                passed = True
                for worker in workers:
                    worker.send_signal(stop.signum)
            time.sleep(0.05)
    if stop.signum is not None:
        raise Interrupted(stop.signum, stop.seconds)
    for command, worker in zip(shards, workers, strict=True):
        if worker.returncode - 128 in signals.STOPPING:
            raise Interrupted(worker.returncode - 128)
        if worker.returncode:
            raise RuntimeError(f"shard {command[-1]} ended with exit code {worker.returncode}.")
