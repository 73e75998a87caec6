"""Variables that are added to the records of a run directory after the fact, and filled where there is nothing yet."""

import os
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from seqdyn.layout import Tile
from seqdyn.learn.context import Variable
from seqdyn.runs.records import VARIABLES, Store, opened
from seqdyn.types import ConfigError

_ADDING = ".adding-"


def add(
    store: Store,
    names: Iterable[str],
    coordinates: Mapping[str, list[Any]],
    own: Mapping[str, Variable],
    done: Mapping[int, int],
) -> None:
    """Allocates variables of probes that are not there yet, with nothing in them at every look within the updates that
    each tile, by its index, has `done`: an array is whole or not there.

    Raises ConfigError for one that is there with other axes.
    """
    names, known, there = list(names), VARIABLES | dict(own), store.there()
    for name in (name for name in names if name in there and there[name].dims != known[name].dims):
        raise ConfigError(f"probes has {name!r}, which {store.path.parent} has of another probe; take another name.")
    for left in store.path.parent.glob(f"{_ADDING}*"):  # of a process that was killed
        shutil.rmtree(left)
    new = {name: known[name] for name in names if name not in there}
    if not new:
        return
    other = Store(store.path.parent / f"{_ADDING}{os.getpid()}", store.layout)
    other.allocate(new, coordinates)
    arrays = opened(other.path)
    for tile in store.layout.tiles:
        for number in range(done[tile.index] // store.layout.probe_every + 1):
            for array in arrays.values():
                array[_rows(store, tile), number] = np.nan
    for name in new:
        (other.path / name).rename(store.path / name)
    shutil.rmtree(other.path)


def fill(store: Store, tile: Tile, number: int, metrics: Mapping[str, np.ndarray]) -> None:
    """The metrics [run, …] of a probe of one tile, where there is nothing yet."""
    for name, array in opened(store.path).items():
        if name in metrics and np.isnan(array[_rows(store, tile), number]).all():
            array[_rows(store, tile), number] = metrics[name]


def _rows(store: Store, tile: Tile) -> slice:
    return slice(tile.index * store.layout.tile, (tile.index + 1) * store.layout.tile)
