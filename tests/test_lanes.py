"""Laws of devices that share tiles: each tile once, a spec's programs compiled on as few devices as pay."""

import threading

import jax
import pytest
from _digests import digests

import seqdyn as sd
from seqdyn.layout import Layout
from seqdyn.runs import lanes
from seqdyn.runs.lanes import Lanes

X64 = False
DEVICES = 2
COMPILING = 3.0


class Clock:
    """Time that passes where it is said to."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(lanes, "time", made)
    return made


def tiles(*counts):
    return Layout(counts, 1, 1, 1, 1, 1).tiles


def trained(clock, shared, costs):
    """[(device, spec)], and when all is done: of two devices that ask when they are free, and wait a second at a time.
    The first tile of a spec on a device takes it longer."""
    taken, free, over, has = [], [0.0, 0.0], 0.0, set()
    streams = [shared.tiles(lambda: False) for _ in free]
    while any(streams):
        device = min((time, i) for i, time in enumerate(free) if streams[i])[1]
        clock.now = free[device]
        try:
            tile = next(streams[device])
        except StopIteration:
            streams[device] = None
            continue
        if tile is None:
            free[device] += 1.0
            continue
        taken.append((device, tile.spec))
        free[device] += costs[tile.spec] + (0 if (device, tile.spec) in has else COMPILING)
        has.add((device, tile.spec))
        over = max(over, free[device])
    return taken, over


def test_each_device_compiles_its_own_specs(clock):
    taken, over = trained(clock, Lanes(tiles(2, 2, 2, 2)), [0.1] * 4)
    assert len(taken) == 8
    assert len(set(taken)) == 4 and over == 2 * (COMPILING + 0.2)


def test_a_device_with_nothing_left_helps_where_there_is_much_to_do(clock):
    taken, over = trained(clock, Lanes(tiles(2, 40)), [1.0, 1.0])
    assert len(taken) == 42 and len(set(taken)) == 3
    assert over <= 42 / 2 + 2 * COMPILING + 2


def test_a_device_waits_where_another_has_only_just_begun(clock):
    shared = Lanes(tiles(2, 2))
    one, other = (shared.tiles(lambda: False) for _ in range(2))
    assert next(one).spec == 0
    clock.now = 3.0
    assert next(one).spec == 0
    clock.now = 3.1
    assert next(other).spec == 1
    assert next(one) is None
    clock.now = 10.0
    assert next(one).spec == 1


def test_one_spec_alone_is_shared_at_once(clock):
    shared = Lanes(tiles(4))
    one, other = (shared.tiles(lambda: False) for _ in range(2))
    assert [next(one).index, next(other).index] == [0, 1]


def test_a_stop_ends_all(clock):
    shared, stop = Lanes(tiles(4)), threading.Event()
    stream = shared.tiles(stop.is_set)
    next(stream)
    stop.set()
    assert list(stream) == []
    assert len(shared._left) == 3


@pytest.mark.slow
def test_who_trains_a_tile_changes_no_bit(tmp_path, monkeypatch):
    specs = {cell: sd.Spec("adding", steps=5, batch=2, hidden=(3,), cell=cell, holdout=4) for cell in ("rnn", "lstm")}
    e = sd.Experiment("shared", [sd.grid(spec, seeds=3) for spec in specs.values()], updates=6, tile=1)
    assert len(jax.local_devices()) == 2
    both = digests(sd.run(e, tmp_path / "both", verify=False))
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    assert digests(sd.run(e, tmp_path / "one", verify=False)) == both
