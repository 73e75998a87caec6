"""A real Slurm of one node (`.ci/slurm`): what is stopped goes on, what is lost is told, nothing runs twice.

The laws about the table and about what is asked for hold without one.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from _digests import digests

from seqdyn.runs import slurm
from seqdyn.runs.lock import Shard
from seqdyn.types import ConfigError

X64 = False
ROOT = Path(__file__).parents[1]


def asked(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def node():
    """Sets the state of the only node; it takes jobs again in the end, and has none."""
    try:
        cluster = asked("scontrol", "show", "config")
    except (OSError, subprocess.SubprocessError):
        pytest.skip('needs Slurm: eval "$(.ci/slurm)"')
    if not re.search(r"ClusterName\s*= seqdyn\n", cluster):
        pytest.skip('drains a node, so it needs a Slurm of its own: eval "$(.ci/slurm)"')

    def put(state):
        tried("scontrol", "update", "nodename=one", f"state={state}", "reason=test")

    yield put
    put("resume")
    asked("scancel", "--partition=all")


def tried(*command):
    """For what may have become needless by itself."""
    subprocess.run(command, capture_output=True, timeout=60)


def until(true, what, seconds=100):
    """Waits for what comes by itself."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited in vain for {what}; {asked('squeue', '-r', '--states=all')}{logs()}"
        time.sleep(0.1)


def logs():
    """What the jobs wrote last."""
    return "".join(f"\n{log}:\n{log.read_text()[-2000:]}" for log in sorted(slurm.LOGS.rglob("*_log.*")))


def states():
    """The state of each job that Slurm remembers."""
    rows = asked("squeue", "-r", "--noheader", "--states=all", "--format=%i %T").split("\n")
    return dict(row.split() for row in rows if row)


@pytest.mark.slow
def test_jobs_that_are_stopped_killed_and_cancelled_end_as_an_uninterrupted_run(node, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    hold = tmp_path / "hold"
    hold.mkdir()

    def said(out, *arguments, **more):
        script = [sys.executable, str(ROOT / "tests" / "_slurmed.py"), "--out", str(out), *arguments]
        env = os.environ | {"COLUMNS": "300"} | more
        done = subprocess.run(script, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def submit(**more):
        options = ("--slurm", "timeout_min=1", "slurm_signal_delay_s=5")
        return said("out", "--launcher", "slurm", "--workers", "2", *options, **more)

    def job(of):
        return json.loads(Path("out", slurm.TABLE).read_text())[of]

    def held(tile, step):
        file = hold / f"{tile}-{step}"
        until(file.exists, f"tile {tile} after {step} updates")
        file.unlink()

    # One of two fails at once: the next command says of what, and submits it alone.
    assert "shards 0/2, 1/2; the last to end draws" in submit(FAIL="0/2", HOLD=str(hold))
    failed = job("0/2")
    until(lambda: states()[failed] == "FAILED", "a failure")
    text = submit(HOLD=str(hold))
    assert f"shard 0/2 (job {failed}) is FAILED (NonZeroExitCode)" in text and "is: RuntimeError: asked to" in text
    assert f"shard 1/2 (job {job('1/2')}) is RUNNING" in text and f"submitted {job('0/2')}: shards 0/2;" in text
    # One is stopped more often than submitit allows, the other by Slurm itself, at its limit.
    for step in (4, 8, 12, 16):
        held(1, step)
        tried("scancel", "--signal=USR2", job("1/2"))
    until(lambda: states()[job("1/2")] == "COMPLETED", "a shard that was stopped four times")
    said("alone")
    held(0, 4)
    held(0, 8)  # no one but Slurm has sent it a signal in between
    # The node is drained under a shard that is stopped: it waits, and is not submitted twice; then it is cancelled.
    lost = job("0/2")
    node("drain")
    tried("scancel", "--signal=USR2", lost)
    until(lambda: states()[lost] == "PENDING", "a job queued again")
    text = submit()
    assert f"shard 0/2 (job {lost}) is PENDING (" in text and "submitted nothing" in text and "1/2" not in text
    asked("scancel", lost)
    node("resume")
    text = said("out", "--shard", "1/2")
    assert "0/2" not in text and "this shard is done" in text
    text = submit()
    assert f"shard 0/2 (job {lost}) is CANCELLED" in text and "SIGUSR2: stopped at the end of a chunk" in text
    assert f"submitted {job('0/2')}: shards 0/2;" in text
    until(Path("out", "drawn").exists, "the end")
    assert digests("out") == digests("alone")
    assert not list(Path("out").rglob("*.pkl"))


@pytest.mark.slow
def test_what_slurm_refuses_is_a_sentence(node, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = slurm.Job(["true"], tmp_path, Shard(0, 1))
    with pytest.raises(ConfigError, match="slurm_partition=nowhere.*Slurm refuses: .*partition"):
        slurm.submit([job], ("slurm_partition=nowhere",))


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Slurm's tools, which say what they are told to, with an exit code; there is no accounting."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)

    def say(text, code=0):
        for name, what, status in (("squeue", text, code), ("sacct", "Slurm accounting storage is disabled", 1)):
            (tools / name).write_text(f"#!/bin/sh\necho '{what}'\nexit {status}\n")
            (tools / name).chmod(0o755)

    return say


def table(out, jobs):
    out.mkdir(exist_ok=True)
    (out / slurm.TABLE).write_text(json.dumps(jobs))


def nothing(mine):
    return False


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"])
def test_a_job_that_ended_is_told_with_its_last_words(squeue, tmp_path, state):
    table(tmp_path / "out", {"0/2": "7_0", "1/2": "7_1"})
    log = tmp_path / slurm.LOGS / "7_0" / "7_0_0_log.err"
    log.parent.mkdir(parents=True)
    log.write_text(
        "begun\nhidden is \x1b[31m-1; it must be more.\nsrun: error: one: task 0: Exited with exit code 2\n\n"
    )
    squeue(f"7_0|{state}|None\n7_1|RUNNING|None")
    ended, running = slurm.job_states(tmp_path / "out", nothing, Shard())
    assert ended.startswith(f"shard 0/2 (job 7_0) is {state}; the last line of ")
    assert ended.endswith("7_0_0_log.err is: hidden is [31m-1; it must be more.")  # what could steer a terminal is gone
    assert running == "shard 1/2 (job 7_1) is RUNNING."
    assert slurm.job_states(tmp_path / "out", nothing, Shard(1, 2)) == [running]
    assert slurm.job_states(tmp_path / "out", lambda mine: mine.index == 0, Shard()) == [running]


@pytest.mark.parametrize("said", [("slurm_load_jobs error: Invalid job id specified", 1), ("", 0)])
def test_a_job_that_slurm_forgot_is_told_as_unknown(squeue, tmp_path, said):
    table(tmp_path, {"0/1": "7"})
    squeue(*said)
    (line,) = slurm.job_states(tmp_path, nothing, Shard())
    assert "shard 0/1 (job 7) is UNKNOWN (Slurm has forgotten it); no log in runs/slurm/7." == line


def test_nothing_is_submitted_when_slurm_does_not_answer(squeue, tmp_path):
    jobs = {"0/1": "7"}
    table(tmp_path, jobs)
    squeue("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", 1)
    with pytest.raises(RuntimeError, match="Slurm does not answer: .*Unable to contact"):
        slurm.spread(tmp_path, nothing, 1)
    assert json.loads((tmp_path / slurm.TABLE).read_text()) == jobs
    (line,) = slurm.job_states(tmp_path, nothing, Shard())  # a plain command goes on
    assert "UNKNOWN (Slurm does not answer: " in line


def test_other_shards_of_the_same_tiles_are_not_submitted_while_a_job_has_them(squeue, tmp_path):
    table(tmp_path, {"0/1": "7"})
    squeue("7|PENDING|Resources")
    with pytest.raises(slurm.Queued, match=r"shard 0/1 \(job 7\) is PENDING \(Resources\)\.\nsubmitted nothing"):
        slurm.spread(tmp_path, nothing, 3)


def test_what_is_trained_needs_no_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    table(tmp_path, {"0/2": "7_0"})
    slurm.spread(tmp_path, lambda mine: True, 2)
    assert slurm.job_states(tmp_path, lambda mine: True, Shard()) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"0/2": "7; rm -r /"}', '{"2/2": "7"}', '{"0/2": 7}', '{"0/2": "../7"}'])
def test_a_damaged_table_is_refused(tmp_path, text):
    (tmp_path / slurm.TABLE).write_text(text)
    with pytest.raises(ConfigError, match=f"{slurm.TABLE} is damaged"):
        slurm.job_states(tmp_path, nothing, Shard())


def test_where_no_directory_can_be_there_is_no_table(tmp_path):
    (tmp_path / "file").write_text("")
    assert slurm._read(tmp_path / "file") == slurm._read(tmp_path / "none") == {}


def test_a_shard_is_queued_again_as_long_as_it_has_new_checkpoints(tmp_path):
    def stopped(job):
        return job.checkpoint().function

    def begun(step, tile=2):
        job = slurm.Job(["true"], tmp_path, Shard(0, 2), idle=slurm.IDLE - 1)
        job._before = slurm._checkpoints(tmp_path, job.mine)
        (tmp_path / "part" / "checkpoints" / f"tile-{tile:04d}" / str(step)).mkdir(parents=True)
        return job

    assert stopped(begun(10)).idle == 0
    job = stopped(begun(20))
    job._before = slurm._checkpoints(tmp_path, job.mine)
    for idle in range(1, slurm.IDLE):
        before, job = job._before, stopped(job)
        job._before = before
        assert job.idle == idle
    with pytest.raises(SystemExit, match="shard 0/2 was stopped 3 times in a row before it had a new checkpoint"):
        job.checkpoint()
    with pytest.raises(SystemExit):  # a tile of the other shard is none of its
        begun(20, tile=1).checkpoint()


def test_a_stop_may_come_at_any_place_of_a_job_that_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "SAME_SECONDS", 0)

    def stopped(place):
        """Where in Python's calls of C the signal came: the `place`-th from the start of the shard."""
        job, calls, came = slurm.Job(["sleep", "9"], tmp_path, Shard()), [], []

        def handler(signum, frame):
            came.append(job.checkpoint())

        def seen(frame, event, what):
            if event == "c_call" and job._child and not came:
                calls.append(what)
                if len(calls) == place:
                    sys.setprofile(None)
                    signal.raise_signal(signal.SIGUSR2)

        before = signal.signal(signal.SIGUSR2, handler)
        sys.setprofile(seen)
        try:
            with pytest.raises(SystemExit, match="shard 0/1 was ended by SIGUSR2"):
                job()
        finally:
            sys.setprofile(None)
            signal.signal(signal.SIGUSR2, before)
        assert len(came) == 1
        return calls[-1]

    calls = {stopped(place).__name__ for place in range(1, 7)}
    assert {"waitid", "sleep"} <= calls


@pytest.mark.parametrize(("ends", "code"), [("exit 3", 3), ("kill -9 $$", "shard 0/1 was ended by SIGKILL.")])
def test_a_shard_that_fails_fails_its_job(tmp_path, ends, code):
    with pytest.raises(SystemExit) as failed:
        slurm.Job(["sh", "-c", ends], tmp_path, Shard())()
    assert failed.value.code == code
