"""Variables of probes that looked after the fact: room for them in a record store that is there."""

import os
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from seqdyn.learn.context import Variable
from seqdyn.runs.records import VARIABLES, Store
from seqdyn.types import ConfigError

_ADDING = ".adding-"


def add(
    store: Store,
    names: Iterable[str],
    coordinates: Mapping[str, list[Any]],
    own: Mapping[str, Variable],
    done: Mapping[int, int],
) -> None:
    """Allocates variables of probes that are not there yet, with nothing in them at every look within the updates
    that each tile, by its index, has `done`: an array is whole or not there. Raises ConfigError for one that is
    there with other axes."""
    known, there, out = VARIABLES | dict(own), store.there(), store.path.parent
    new = {name: known[name] for name in names if name not in there}
    for name in (name for name in names if name in there and not _alike(there[name], known[name])):
        raise ConfigError(f"probes has {name!r}, which {out} has of another probe; take another name.")
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


def _alike(one: Variable, other: Variable) -> bool:
    """Have two variables the same axes?"""
    return one.dims == other.dims and {a: [*of] for a, of in one.axes.items()} == {
        a: [*of] for a, of in other.axes.items()
    }
