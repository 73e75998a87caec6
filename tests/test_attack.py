"""Real processes under attack: kills, shards, other machines, full and vanished disks, planted files.

A short form always runs; `pytest --attack` runs all of it.
"""

import collections
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _own  # noqa: F401  the parts of what is attacked, for `restore`
import numpy as np
import pytest
from _digests import digests
from _processes import ROOT, Process

import seqdyn
from seqdyn.runs.checkpoint import steps

X64 = False
SCRIPT = ROOT / "tests" / "_attacked.py"
PHASES = ("compile", "train", "probe", "record", "checkpoint", "delete", "report")
LONGEST = dict(compile=4.0, train=0.01, probe=0.05, record=0.1, checkpoint=0.2, delete=0.005, report=0.03)
"""Seconds within which a kill comes after its phase was entered."""


@pytest.fixture
def attack(request):
    """Is this the long form?"""
    return request.config.getoption("--attack", default=False)


@pytest.fixture(scope="module", autouse=True)
def updates(request):
    """Half as many in the short form: 6 chunks of each of two tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPDATES", "24" if request.config.getoption("--attack", default=False) else "12")
        yield


@pytest.fixture
def long_form(attack):
    if not attack:
        pytest.skip("part of the long form: pytest --attack")


def start(out, *arguments, devices=1, kill="0 none 1 0", cwd=ROOT, **more):
    phase = Path(tempfile.mkstemp(prefix="phase-")[1])  # not beside `out`, whose disk may be full
    phase.write_bytes(b"\0")
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    ours = {"COLUMNS": "300", "XLA_FLAGS": flags, "OUT": str(out), "KILL": kill, "PHASE_FILE": str(phase)}
    process = Process([SCRIPT, *arguments], cwd=cwd, **ours | more)
    process.phase = phase  # type: ignore[attr-defined]
    return process


def finish(process, *expected):
    text = process.finish()
    if process.returncode == 0:
        process.phase.unlink()
    assert process.returncode in (expected or (0,)), text
    return text


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Nobody touched this one."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(start(out))
    page = (out / "report.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>" not in page
    return out


def test_killed_at_any_instant_nothing_is_lost(whole, tmp_path, attack, capsys):
    out, wanted, landed, done = tmp_path / "out", digests(whole), collections.Counter(), 0
    draw, kills = random.Random(0), 100 if attack else 2
    plan = [PHASES[i % len(PHASES)] for i in range(kills)] if attack else ["record", "checkpoint"]
    while plan:
        phase, signum = plan[0], draw.choice([signal.SIGKILL, signal.SIGTERM]) if attack else signal.SIGKILL
        nth = 1 if phase in ("compile", "report") else draw.randint(1, 4)
        seconds = draw.uniform(0, LONGEST[phase])
        process = start(out, kill=f"{int(signum)} {phase} {nth} {seconds:.4f}")
        text = finish(process, 0, -9, -15, 143)
        if process.returncode:
            assert "Traceback" not in text, text
            landed[PHASES[process.phase.read_bytes()[0]], signum.name] += 1
            plan.pop(0)
        else:  # it was through before the signal came
            assert digests(out) == wanted
            shutil.rmtree(out)
            done += 1
    finish(start(out))
    assert digests(out) == wanted
    if attack:
        with capsys.disabled():
            rows = [f"{p}: {landed[p, 'SIGKILL']} KILL, {landed[p, 'SIGTERM']} TERM" for p in PHASES]
            print(f"\n{kills} kills, {done + 1} runs ended, no digest differed; " + "; ".join(rows))


@pytest.mark.slow
def test_two_shards_at_once_make_the_same_and_hold_off_a_third(whole, tmp_path):
    out, gate = tmp_path / "out", tmp_path / "gate"
    shards = [start(out, "--shard", f"{i}/2", GATE=str(gate)) for i in range(2)]
    while not gate.with_suffix(".held").exists():
        time.sleep(0.01)
    third = finish(start(out, "--shard", "0/1"), 1)
    assert f"another process trains in {out}: host {socket.gethostname()}, process " in third and ", since 20" in third
    gate.touch()
    texts = [finish(process) for process in shards]
    assert sum("run any of the commands again" in text for text in texts) <= 1, texts
    assert digests(out) == digests(whole)


@pytest.mark.slow
def test_two_processes_joined_by_jax_distributed_are_two_shards(whole, tmp_path):
    out = tmp_path / "out"
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    texts = [finish(process) for process in [start(out, JOINED=f"{address} {i}") for i in range(2)]]
    assert sum("run any of the commands again" in text for text in texts) <= 1, texts
    assert sorted(p.name for p in out.glob(".lock-*")) == [".lock-0-of-2", ".lock-1-of-2"]
    assert digests(out) == digests(whole) and (out / "report.html").exists()


def test_topology_does_not_matter(whole, tmp_path, long_form):
    wanted = digests(whole)
    for devices in (2, 4):
        finish(start(tmp_path / f"on-{devices}", devices=devices))
        assert digests(tmp_path / f"on-{devices}") == wanted
    out = tmp_path / "changing"
    for devices, nth in ((4, 1), (1, 2), (4, 3)):
        finish(start(out, devices=devices, kill=f"9 checkpoint {nth} 0.3"), -9)
    finish(start(out, devices=2))
    assert digests(out) == wanted
    for i in (1, 0):
        text = finish(start(tmp_path / "shards", "--shard", f"{i}/2"))
        assert ("run any of the commands again" in text) == (i == 1)
    assert digests(tmp_path / "shards") == wanted


def test_a_second_signal_stops_at_once_and_the_first_says_how_long_it_took(whole, tmp_path, long_form):
    out, gate = tmp_path / "out", tmp_path / "gate"

    def held():
        gate.unlink(missing_ok=True)
        gate.with_suffix(".held").unlink(missing_ok=True)
        process = start(out, GATE=str(gate))
        while not gate.with_suffix(".held").exists():
            time.sleep(0.01)
        return process

    process = held()
    process.send_signal(signal.SIGUSR1)
    assert any("SIGUSR1: stopping; a second signal stops at once" in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    finish(process, -15)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        process = held()
        process.send_signal(signum)
        assert any("stopping; a second" in line for line in process.stdout)
        gate.touch()
        text = finish(process, 128 + signum)
        assert f"{signum.name}: stopped at the end of a chunk and saved" in text and " s later" in text
    finish(start(out, kill="12 report 1 0.0"), 140)
    finish(start(out))
    assert digests(out) == digests(whole)


@pytest.mark.slow
def test_a_signal_in_a_probe_finishes_the_probe_and_saves(whole, tmp_path, attack):
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)[: 4 if attack else 1]:
        out, gate = tmp_path / signum.name, tmp_path / f"{signum.name}.gate"
        process = start(out, GATE=str(gate), HOLD="probe 2")  # the first tile's, after 4 updates
        while not gate.with_suffix(".held").exists():
            time.sleep(0.01)
        process.send_signal(signum)
        assert any("stopping; a second" in line for line in process.stdout)
        gate.touch()
        assert "stopped at the end of a chunk and saved" in finish(process, 128 + signum)
        assert {p.name: steps(p) for p in (out / "checkpoints").iterdir()} == {"tile-0000": [4, 2]}
        looked = np.isfinite(seqdyn.load(out).test_loss.values).sum(axis=1)
        assert list(looked) == [2, 2, 0, 0]
        finish(start(out))
        assert digests(out) == digests(whole)


STUCK = """
import ctypes
from seqdyn.runs.script import Options, script

def main(config):
    mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    print("stuck", flush=True)
    lock(mutex)

script(Options, main, None)
"""


def test_a_signal_before_training_does_not_wait_for_the_compiler_to_return():
    """Nor for any code that never asks Python whether a signal has come."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        process = Process(["-c", STUCK])
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(signum)
        text = process.finish(timeout=60)
        assert process.returncode == 128 + signum
        assert text == f"{signum.name}: stopped at once; the same command goes on from here.\n"


def mounted(path, *options):
    path.mkdir(exist_ok=True)
    if subprocess.run(["mount", *options, str(path)], capture_output=True).returncode:
        pytest.skip("needs the right to mount")


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(whole, tmp_path, long_form):
    disk = tmp_path / "disk"
    mounted(disk, "-t", "tmpfs", "-o", "size=2m", "tmpfs")
    try:
        ends = []
        for blocks in (150, 400, 800):  # kB: full at the start, in the records, at a checkpoint
            subprocess.run(["mount", "-o", f"remount,size={blocks}k", str(disk)], check=True)
            text = finish(start(disk / "out"), 0, 1).strip().splitlines()
            ends.append(text[-1])
            assert "No space left" in text[-1] or "RESOURCE_EXHAUSTED" in text[-1], text
            assert not any("Traceback" in line for line in text), text
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        finish(start(disk / "out"))
        assert digests(disk / "out") == digests(whole)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_directory_that_cannot_be_written_is_one_sentence(whole, tmp_path, long_form):
    out, before = tmp_path / "out", digests(whole)
    shutil.copytree(whole, out)
    mounted(out, "--bind", str(out))
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(out)], check=True)
        text = finish(start(out), 1)  # of its report, which lies there
        assert "is done; nothing can be written in it" in text and "Traceback" not in text
        text = finish(start(out, UPDATES="32"), 2)
        assert "Read-only file system" in text and "Traceback" not in text
    finally:
        subprocess.run(["umount", str(out)], check=True)
    assert digests(out) == before


def test_a_directory_that_vanishes_is_one_sentence(whole, tmp_path, long_form):
    out, gate = tmp_path / "out", tmp_path / "gate"
    process = start(out, GATE=str(gate))
    while not gate.with_suffix(".held").exists():
        time.sleep(0.01)
    shutil.rmtree(out)
    gate.touch()
    text = finish(process, 1)
    assert "Traceback" not in text and str(out) in text.replace("\n", ""), text
    shutil.rmtree(out, ignore_errors=True)
    finish(start(out))
    assert digests(out) == digests(whole)


def test_workers_of_the_local_launcher_make_the_same_and_are_stopped_together(whole, tmp_path, long_form):
    out, gate = tmp_path / "out", tmp_path / "gate"
    process = start(out, "--launcher", "local", "--workers", "2", GATE=str(gate))
    while not gate.with_suffix(".held").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert any("SIGTERM: stopping; a second signal stops at once" in line for line in process.stdout)
    gate.touch()
    finish(process, 143)
    finish(start(out, "--launcher", "local", "--workers", "2"))
    assert (out / "report.html").exists()
    assert digests(out) == digests(whole)


def test_a_shard_on_submitit_s_local_executor_ends_like_any_other(whole, tmp_path, long_form, monkeypatch):
    from seqdyn.runs import slurm
    from seqdyn.runs.lock import Shard

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1")
    monkeypatch.setenv("PHASE_FILE", tempfile.mkstemp(prefix="phase-")[1])
    Path(os.environ["PHASE_FILE"]).write_bytes(b"0")
    script = [sys.executable, str(SCRIPT)]
    shards = [slurm.Job([*script, "--shard", f"{i}/2"], tmp_path / "out", Shard(i, 2)) for i in range(2)]
    for job in slurm.submit(shards, (), "local"):
        assert job.result() == 0
    assert digests(tmp_path / "out") == digests(whole)


def test_slurm_is_given_an_array_that_is_queued_again_on_usr2(tmp_path, long_form):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in (("srun", ""), ("sbatch", f'cp "$1" {tmp_path}/submitted; echo Submitted batch job 7')):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    arguments = ("--launcher", "slurm", "--workers", "3", "--slurm", "timeout_min=30", "slurm_partition=gpu")
    process = start(tmp_path / "out", *arguments, cwd=tmp_path, PATH=f"{tools}:{os.environ['PATH']}")
    # Four runs are two tiles of two, so the third shard has nothing to do and is no job.
    assert "submitted 7_0, 7_1: shards 0/3, 1/3; the last to end draws" in finish(process)
    text = (tmp_path / "submitted").read_text()
    for line in ("--array=0-1", "--signal=USR2@90", "--time=30", "--partition=gpu", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {line}" in text or line == "--requeue", text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "slurm.json"}
