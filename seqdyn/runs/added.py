"""Variables of probes that looked after the fact: room for them in a record store that is there."""

import os
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from seqdyn.learn.context import Variable, check_beside
from seqdyn.runs.records import VARIABLES, Store

_ADDING = ".adding-"


def add(
    store: Store,
    names: Iterable[str],
    coordinates: Mapping[str, list[Any]],
    own: Mapping[str, Variable],
    done: Mapping[int, int],
) -> None:
    """Allocates variables of probes that are not there yet, with nothing in them at every look within the updates
    that each tile, by its index, has `done`: an array is whole or not there. Raises ConfigError where their
    axes are not those that are there."""
    known, there, out = VARIABLES | dict(own), store.there(), store.path.parent
    new = {name: known[name] for name in names if name not in there}
    check_beside("probes", there, {name: known[name] for name in names})
    for left in out.glob(f"{_ADDING}*"):  # of a process that was killed
        shutil.rmtree(left)
    if not new:
        return
    other = Store(out / f"{_ADDING}{os.getpid()}", store.layout)
    other.make(new, coordinates)
    for tile in store.layout.tiles:
        for number in range(done[tile.index] // store.layout.probe_every + 1):
            other.write(tile, number, {next(iter(new)): np.asarray(np.nan, np.float32)})
    for name in new:
        (other.path / name).rename(store.path / name)
    shutil.rmtree(other.path)
