"""Which device takes which tile. JAX compiles a program for each device anew: so a device stays with the specs whose
programs it has, then begins one that none has begun, and only then helps another."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from seqdyn.layout import Tile

MOMENT = 0.05
"""Seconds after which a device that has nothing to do asks again."""


class Lanes:
    """Tiles that several devices, a thread each, share."""

    def __init__(self, tiles: Sequence[Tile]) -> None:
        self._left, self._lock = list(tiles), threading.Lock()
        self._begun: dict[int, float] = {}
        """when the first tile of a spec was taken"""

    def tiles(self, stopped: Callable[[], bool]) -> Iterator[Tile | None]:
        """Those that one device takes, one after the other, until none is left or all is to stop; None for a moment in
        which there is nothing to do.

        It helps with a spec of another that has been at it for twice as long as compiling took here: a shorter one may
        well be over before its programs are compiled once more.
        """
        own: set[int] = set()
        first, other, compiling = 0.0, math.inf, 0.0
        while self._left and not stopped():
            tile = self._taken(own, 2 * compiling)
            if tile is None:
                yield None
                continue
            new, start = tile.spec not in own, time.monotonic()
            own.add(tile.spec)
            yield tile
            took = time.monotonic() - start
            first, other = (took, math.inf) if new else (first, min(other, took))
            compiling = first - other if other < first else first

    def _taken(self, own: set[int], patience: float) -> Tile | None:
        with self._lock:
            now = time.monotonic()
            mine = [tile for tile in self._left if tile.spec in own]
            free = mine or [tile for tile in self._left if tile.spec not in self._begun]
            if not free:
                late = [tile for tile in self._left if now - self._begun[tile.spec] >= patience]
                most = Counter(tile.spec for tile in late).most_common(1)
                free = [tile for tile in late if tile.spec == most[0][0]]
            if not free:
                return None
            self._left.remove(free[0])
            self._begun.setdefault(free[0].spec, now)
            return free[0]
