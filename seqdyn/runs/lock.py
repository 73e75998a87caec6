"""Who may write in a run directory: one process a tile, and what the file system must offer for that to hold.

A process takes a shard, the tiles whose index leaves `index` when divided by `count`; a whole run is the shard 0/1. Two
shards that share a tile exclude each other. The system lets go of a lock when its process ends, however it does, so the
lock of a dead process is taken over.
"""

import contextlib
import fcntl
import math
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from seqdyn.types import ConfigError

GATE = ".lock"
"""Held for moments, while the manifest, the locks or the shape of the records change."""


class Shard(NamedTuple):
    """The tiles `index`, `index + count`, …"""

    index: int = 0
    count: int = 1

    def has(self, tile: int) -> bool:
        """Is the tile of this number one of them?"""
        return tile % self.count == self.index

    def meets(self, other: "Shard") -> bool:
        """Do the two share a tile (of sufficiently many)?"""
        return (self.index - other.index) % math.gcd(self.count, other.count) == 0


WHOLE = Shard()


def shard(given: str | Shard) -> Shard:
    """'0/2' as a `Shard`, or one that is one already; ConfigError if it is none."""
    text = f"{given.index}/{given.count}" if isinstance(given, Shard) else str(given)
    first, slash, second = text.partition("/")
    digits = first.isascii() and first.isdecimal() and second.isascii() and second.isdecimal()
    if not (slash and digits and int(first) < int(second)):
        raise ConfigError(f"shard is {text!r:.60}; it must be i/n with 0 ≤ i < n, as 0/2 and 1/2.")
    return Shard(int(first), int(second))


@contextlib.contextmanager
def gate(out: Path) -> Iterator[None]:
    """One process at a time, after each other."""
    with open(out / GATE, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def held(out: Path, mine: Shard = WHOLE) -> Iterator[None]:
    """Keeps other processes from the tiles of a shard.

    Raises RuntimeError, which says who it is, if another process has some of them.
    """
    with contextlib.ExitStack() as stack:
        with gate(out):
            for path in sorted(out.glob(f"{GATE}-*-of-*")):
                index, count = path.name.removeprefix(f"{GATE}-").split("-of-")
                who = _holder(path) if mine.meets(Shard(int(index), int(count))) else None
                if who is not None:
                    raise RuntimeError(f"another process trains in {out}: {who}; wait for it, or stop it.")
            file = stack.enter_context(open(out / f"{GATE}-{mine.index}-of-{mine.count}", "a+", encoding="utf-8"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            since = datetime.now(UTC).isoformat(" ", "seconds")
            file.write(f"host {socket.gethostname()}, process {os.getpid()}, since {since}")
            file.flush()
        yield


def _holder(path: Path) -> str | None:
    """What the living holder of a lock says of itself; None if nobody holds it."""
    with open(path, encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read() or "no name given"
    return None


def check_file_system(out: Path) -> None:
    """Does the file system replace a file in one step, and exclude by its locks?

    Raises RuntimeError if it does not: then two processes, or a kill, could spoil what is there.
    """
    mark = f"{socket.gethostname()}.{os.getpid()}"
    old, new = out / f"{GATE}.old.{mark}", out / f"{GATE}.new.{mark}"
    try:
        old.write_text("old")
        new.write_text("new")
        with open(old) as reader:
            new.replace(old)
            renames = old.read_text() == "new" and not new.exists() and reader.read() == "old"
        with open(old) as one, open(old) as two:
            fcntl.flock(one, fcntl.LOCK_EX)
            excludes = False
            try:
                fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                excludes = True
    finally:
        old.unlink(missing_ok=True)
        new.unlink(missing_ok=True)
    if not (renames and excludes):
        lacks = "replace a file in one step" if not renames else "exclude a second process by flock"
        raise RuntimeError(f"the file system of {out} does not {lacks}; choose an --out on one that does.")
