"""A script's shards as processes of their own: on this machine, or a Slurm array through submitit.

The run directory is all they share. A worker is the script's own command line with `--launcher none --shard i/n` after
it; whoever is last sees that all is there and draws.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqdyn.runs import signals
from seqdyn.runs.signals import Interrupted
from seqdyn.types import ConfigError

LOGS = Path("runs") / "slurm"
"""Submitit's own files: its pickles and the jobs' output, never in a run directory."""


def commands(workers: int) -> list[list[str]]:
    """This process's command line, once for each shard; ConfigError if there is none to make."""
    if workers < 1:
        raise ConfigError(f"workers is {workers}; it must be at least 1.")
    this = [sys.executable, *sys.orig_argv[1:]]
    return [[*this, "--launcher", "none", "--shard", f"{i}/{workers}"] for i in range(workers)]


def local(shards: Sequence[Sequence[str]]) -> None:
    """Runs the shards here, each on its share of the cores, and waits for them; a signal is passed on.

    Raises Interrupted after a signal, RuntimeError if a shard failed; its own output says why.
    """
    cores = sorted(os.sched_getaffinity(0))
    with signals.awaited() as stop:
        workers = []
        for i, command in enumerate(shards):
            os.sched_setaffinity(0, cores[i :: len(shards)] or cores)  # a child begins with what its parent has
            workers.append(subprocess.Popen(command))
        os.sched_setaffinity(0, cores)
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


class Job:
    """A shard as a job: what submitit calls on a node, and what it asks for another job when time is up."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)

    def __call__(self) -> int:
        """Runs the shard; RuntimeError if it fails."""
        self._child = subprocess.Popen(self.command)
        code = self._ended()
        if code:
            raise RuntimeError(f"{' '.join(self.command)} ended with exit code {code}.")
        return code

    def checkpoint(self) -> Any:
        """Called on Slurm's USR2: the shard saves and ends, and the same job is queued again."""
        import submitit

        self._child.send_signal(signal.SIGUSR2)
        self._ended()
        return submitit.helpers.DelayedSubmission(Job(self.command))

    def _ended(self) -> int:
        while self._child.poll() is None:  # not wait(): a signal handler may be here a second time
            time.sleep(0.1)
        return self._child.returncode


def submit(shards: Sequence[Sequence[str]], options: Sequence[str] = (), cluster: str = "slurm") -> list[Any]:
    """Submits the shards as one array and returns submitit's jobs; `options` are its parameters, name=value.

    Raises ConfigError if submitit is missing, finds no Slurm, or does not know an option.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError("launcher is 'slurm', which needs submitit: install seqdyn[slurm].") from None
    pairs = [option.partition("=") for option in options]
    wrong = [option for option, pair in zip(options, pairs, strict=True) if not pair[0] or not pair[1]]
    if wrong:
        raise ConfigError(f"slurm has {wrong[0]!r}; it must be name=value, as timeout_min=600.")
    chosen: dict[str, Any] = {name: int(value) if value.isdecimal() else value for name, _, value in pairs}
    try:
        executor = submitit.AutoExecutor(folder=LOGS / "%j", cluster=cluster)
        executor.update_parameters(**({"name": "seqdyn", "timeout_min": 60} | chosen))
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise ConfigError(
            f"slurm is {list(options)}, and submitit refuses: {str(error).partition(chr(10))[0]}"
        ) from None
    with executor.batch():
        return [executor.submit(Job(command)) for command in shards]
