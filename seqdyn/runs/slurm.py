"""Shards as jobs of a Slurm array, through submitit: queued again as long as they get on, asked after when they ended.

`slurm.json` in the run directory says which job a shard was last given to. What became of the job Slurm says, what is
trained the checkpoints say; so the same command submits what is missing and nothing twice.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqdyn.files import in_one_step
from seqdyn.runs import checkpoint, launchers
from seqdyn.runs.lock import Shard, gate, shard
from seqdyn.runs.signals import SAME_SECONDS
from seqdyn.types import ConfigError

LOGS = Path("runs") / "slurm"
"""Submitit's own files: its pickles and the jobs' output, never in a run directory."""
TABLE = "slurm.json"
IDLE = 3
"""Times that a shard may be stopped in a row without a new checkpoint; a job is then queued no more."""
ENDED = (
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT UNKNOWN"
).split()
"""States a job does not leave by itself; UNKNOWN is ours: Slurm has forgotten the job."""

_THEIRS = re.compile(r"srun: |slurmstepd|submitit |[A-Z]+:submitit:")
"""How lines of a log begin that the shard did not write."""


class Queued(Exception):
    """Jobs train what is missing, so there is nothing to draw yet; says which, and what became of those before."""


class Job:
    """A shard as a job: what submitit calls on a node, and what it asks for another job when time is up."""

    def __init__(self, command: Sequence[str], out: Path, mine: Shard, idle: int = 0) -> None:
        self.command, self.out, self.mine, self.idle = list(command), out, mine, idle
        self._child = 0
        self._before: set[str] = set()

    def __call__(self) -> int:
        """Runs the shard; ends the process with its exit code if that is not 0, its sentence the last in the log."""
        self._before = _checkpoints(self.out, self.mine)
        self._child = os.posix_spawnp(self.command[0], self.command, os.environ)
        code = self._ended()
        if code in (-signal.SIGUSR2, 128 + signal.SIGUSR2):  # sent to all of the job; ours is on its way
            time.sleep(SAME_SECONDS)
        if code < 0:
            sys.exit(f"shard {_name(self.mine)} was ended by {signal.Signals(-code).name}.")
        if code:
            sys.exit(code)
        return code

    def checkpoint(self) -> Any:
        """Called on Slurm's USR2: the shard saves and ends, and the job is queued again, unless it gets nowhere."""
        import submitit

        if self._child:
            os.kill(self._child, signal.SIGUSR2)
            self._ended()
        idle = 0 if _checkpoints(self.out, self.mine) - self._before else self.idle + 1
        if idle == IDLE:
            sys.exit(
                f"shard {_name(self.mine)} was stopped {IDLE} times in a row before it had a new checkpoint and is not "
                "queued again; give it more time, as --slurm timeout_min=600."
            )
        return submitit.helpers.DelayedSubmission(Job(self.command, self.out, self.mine, idle))

    def _ended(self) -> int:
        """The child's exit code, negative for a signal. A signal may come at any place here, and its handler asks the
        same: without a lock, as Popen's, which the handler would wait for in vain, and as often as it likes."""
        while not (end := os.waitid(os.P_PID, self._child, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            time.sleep(0.1)
        return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status


def spread(out: Path, done: Callable[[Shard], bool], workers: int, options: Sequence[str] = ()) -> None:
    """Submits each of the `workers` shards that is not `done` and that no job has already.

    Raises Queued if any is not done; ConfigError as `submit` does, RuntimeError if Slurm does not answer.
    """
    commands = launchers.commands(workers)
    missing = [mine for mine in (Shard(i, workers) for i in range(workers)) if not done(mine)]
    if not missing:
        return
    out.mkdir(parents=True, exist_ok=True)
    with gate(out):
        table = _read(out)
        states = _states(table.values())
        lines = _told(table, states, done)
        going = [shard(name) for name, job in table.items() if states[job][0] not in ENDED]
        free = [mine for mine in missing if not any(mine.meets(other) for other in going)]
        if free:
            jobs = submit([Job(commands[mine.index], out.absolute(), mine) for mine in free], options)
            kept = {name: job for name, job in table.items() if not any(shard(name).meets(mine) for mine in free)}
            new = {_name(mine): job.job_id for mine, job in zip(free, jobs, strict=True)}
            _write(out, kept | new)
            lines += [f"submitted {', '.join(new.values())}: shards {', '.join(new)}; the last to end draws."]
        else:
            lines += ["submitted nothing: jobs have all that is missing; the last to end draws."]
    raise Queued("\n".join(lines))


def job_states(out: Path, done: Callable[[Shard], bool], mine: Shard) -> list[str]:
    """What became of the jobs of a run directory: a sentence for each shard that shares tiles with `mine` and is not
    `done`. None in a job, and none after a run without Slurm."""
    if "SUBMITIT_EXECUTOR" in os.environ:
        return []
    table = {name: job for name, job in _read(out).items() if mine.meets(shard(name)) and not done(shard(name))}
    try:
        states = _states(table.values())
    except RuntimeError as error:
        states = {job: ("UNKNOWN", str(error)) for job in table.values()}
    return _told(table, states, done)


def submit(jobs: Sequence[Job], options: Sequence[str] = (), cluster: str = "slurm") -> list[Any]:
    """Submits the jobs as one array and returns submitit's; `options` are its parameters, name=value.

    Raises ConfigError if submitit is missing, finds no Slurm, or does not know an option, or if Slurm refuses.
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
    # Submitit ends a job that was stopped three times, whether it got on or not; Job knows better.
    times = chosen.pop("slurm_max_num_timeout", 10**9)
    try:
        executor = submitit.AutoExecutor(folder=LOGS / "%j", cluster=cluster, slurm_max_num_timeout=times)
        executor.update_parameters(**({"name": "seqdyn", "timeout_min": 60} | chosen))
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise ConfigError(
            f"slurm is {list(options)}, and submitit refuses: {str(error).partition(chr(10))[0]}"
        ) from None
    try:
        with executor.batch():
            return [executor.submit(job) for job in jobs]
    except RuntimeError as error:  # what sbatch printed
        raise ConfigError(f"slurm is {list(options)}, and Slurm refuses: {' '.join(str(error).split())}") from None


def _told(table: Mapping[str, str], states: Mapping[str, tuple[str, str]], done: Callable[[Shard], bool]) -> list[str]:
    lines = []
    for name, job in table.items():
        state, reason = states[job]
        if done(shard(name)) or state == "COMPLETED":  # then it did what there was to do for it
            continue
        known = reason not in ("", "None") and state != "CANCELLED"  # of which it is what it had waited for
        reason = f" ({reason})" if known else ""
        lines.append(f"shard {name} (job {job}) is {state}{reason}{_last_words(job) if state in ENDED else ''}.")
    return lines


def _last_words(job: str) -> str:
    """The last line that the shard wrote, as far as its log lies where this command would write one."""
    log = LOGS / job / f"{job}_0_log.err"
    if not log.is_file():
        return f"; no log in {log.parent}"
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        lines = file.read().decode(errors="replace").splitlines()
    own = [line.strip() for line in lines if line.strip() and not _THEIRS.match(line)]
    words = "".join(c for c in own[-1] if c.isprintable()).rstrip(".") if own else "nothing"
    return f"; the last line of {log} is: {words}"


def _states(jobs: Sequence[str] | Any) -> dict[str, tuple[str, str]]:
    """(state, reason) of each job; UNKNOWN of what Slurm has forgotten. RuntimeError if it does not answer."""
    jobs = list(jobs)
    if not jobs:
        return {}
    ask = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", f"--jobs={','.join(jobs)}"]
    code, text = _asked(ask)
    if code and "Invalid job id" not in text:  # one job alone, and it is forgotten
        raise RuntimeError(f"Slurm does not answer: {' '.join(text.split())}")
    found = {job: (state, reason) for job, state, reason in _rows(text, 3)}
    lost = [job for job in jobs if job not in found]
    if lost:  # squeue forgets a job minutes after its end; accounting, where there is any, does not
        code, text = _asked(["sacct", "-X", "-n", "-P", "--format=JobID,State", f"--jobs={','.join(lost)}"])
        found |= {job: (state.split()[0], "") for job, state in _rows(text if not code else "", 2)}
    return {job: found.get(job, ("UNKNOWN", "Slurm has forgotten it")) for job in jobs}


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = [line.strip().split("|", columns - 1) for line in text.splitlines()]
    return [row for row in rows if len(row) == columns]


def _asked(command: Sequence[str]) -> tuple[int, str]:
    """(exit code, what it printed) of one of Slurm's tools; RuntimeError if it is not there or hangs."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"Slurm does not answer: {error}") from None
    return done.returncode, done.stdout


def _checkpoints(out: Path, mine: Shard) -> set[str]:
    """The checkpoints of a shard's tiles, in all parts of a run directory."""
    found = set()
    for folder, inside, _ in os.walk(out):
        if "checkpoints" in inside:
            for tile in Path(folder, "checkpoints").glob("tile-*"):
                if mine.has(int(tile.name.removeprefix("tile-"))):
                    found |= {f"{tile}/{step}" for step in checkpoint.steps(tile)}
        inside[:] = set(inside) - {"checkpoints", "records.zarr"}
    return found


def _name(mine: Shard) -> str:
    return f"{mine.index}/{mine.count}"


def _read(out: Path) -> dict[str, str]:
    """The job of each shard, as far as it was submitted; ConfigError if the table is damaged."""
    path = out / TABLE
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        for name, job in table.items():
            shard(name)
            if not re.fullmatch(r"\d+(_\d+)?", job, re.ASCII):
                raise ValueError(f"{job!r} is no job")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise ConfigError(
            f"{path} is damaged ({error}); remove it if no job of this directory is queued or running (squeue)."
        ) from None
    return table


def _write(out: Path, table: dict[str, str]) -> None:
    with in_one_step(out / TABLE) as partial:
        partial.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
