"""Checkpoints of one tile's states, by Orbax; each is verified against a digest of its own when read."""

import contextlib
import gc
import hashlib
import math
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed

from seqdyn.types import Device, Tree

_ORBAX = threading.RLock()
"""Orbax numbers its operations per process: two threads that save at once, even to two places, collide."""
_DELETED = ".deleted"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Orbax for one thread of one process. Under `jax.distributed` it would have all processes save one state together,
    whatever its options say; but each has tiles of its own, so meanwhile it is told that there is one process."""
    with _ORBAX, contextlib.ExitStack() as told:
        if jax.process_count() > 1:
            told.enter_context(mock.patch.multiple(jax, process_count=lambda: 1, process_index=lambda: 0))
            told.enter_context(mock.patch.object(distributed, "global_state", distributed.State()))
        yield


def digest(tree: Tree) -> str:
    """SHA-256 over paths, types, shapes and bytes of all leaves: equal if and only if two states are, bit for bit."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


@contextlib.contextmanager
def _plainly_named(directory: Path) -> Iterator[Path]:
    """The directory, by a link to it where Orbax would misread its name: brackets, stars and question marks are a
    pattern to it, a backslash is a slash, and what is not UTF-8 is nothing."""
    name = str(directory)
    if not (set(name) & set("[]*?\\") or any("\ud800" <= c <= "\udfff" for c in name)):
        yield directory
        return
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "tile")
        link.symlink_to(directory, target_is_directory=True)
        yield link


def _written(states: Tree) -> Tree:
    """What Orbax is given of states: it takes no array without numbers."""
    return jax.tree.map(lambda leaf: leaf if leaf.size else None, states)


def marks(runs: Tree) -> dict[str, str]:
    """Of every number of some runs, by its path: whose states they are. One that is new in a later version has none."""
    found = jax.tree_util.tree_leaves_with_path(runs)
    return {jax.tree_util.keystr(path): digest(leaf)[:16] for path, leaf in found}


def other(theirs: Mapping[str, str], of: Mapping[str, str] | None) -> str | None:
    """What the runs with the marks `theirs` have another value of than those that are asked for, if anything."""
    name = next((name for name, mark in (of or {}).items() if theirs.get(name, mark) != mark), None)
    return None if name is None else name.lstrip(".")


def save(directory: Path, step: int, states: Tree, of: Mapping[str, str] | None = None) -> None:
    """Writes the states after `step` updates, returns when they are on disk, and keeps the newest two. `of` are the
    `marks` of the runs whose states they are.

    Orbax writes to a temporary directory and renames it, so a killed save leaves nothing that `steps` lists; an old
    step is renamed before it is deleted, for the same reason. Raises OSError if they cannot be written.
    """
    from orbax.checkpoint import v1 as ocp  # takes a quarter of a second, which `import seqdyn` need not

    path, noted = str(directory / str(step)), {"sha256": digest(states), "of": dict(of or {})}
    try:
        with _alone(), _plainly_named(directory) as named:
            ocp.save(str(named / str(step)), _written(states), overwrite=True, custom_metadata=noted)
    except Exception as error:  # a full disk, a vanished directory: Orbax and TensorStore raise several kinds
        raise OSError(f"the checkpoint {path} cannot be written: {str(error).partition(chr(10))[0]}") from error
    there = steps(directory)
    # A later step than the one just reached was passed over as damaged.
    for old in [s for s in there if s > step] + [s for s in there if s < step][1:]:
        gone = directory / f"{old}{_DELETED}"
        (directory / str(old)).rename(gone)
        shutil.rmtree(gone)


def steps(directory: Path) -> list[int]:
    """The steps that have a checkpoint, newest first."""
    if not directory.is_dir():
        return []
    return sorted((int(p.name) for p in directory.iterdir() if p.name.isdecimal()), reverse=True)


def latest(
    directory: Path,
    like: Tree,
    device: Device | None = None,
    until: float = math.inf,
    of: Mapping[str, str] | None = None,
) -> tuple[int, Tree] | None:
    """(step, states) of the newest checkpoint that is whole, with the structure, shapes and types of `like`, not after
    `until`, and `of` the runs with these `marks`.

    None if there is none. One that cannot be read, does not match its digest or is of other runs, put there by hand, is
    passed over with a warning; raises RuntimeError if that is true of all.
    """
    candidates = [step for step in steps(directory) if step <= until]
    for step in candidates:
        states = restore(directory, step, like, device, of)
        if states is not None:
            return step, states
    if candidates:
        raise RuntimeError(f"no checkpoint in {directory} can be read; remove it to begin these runs again.")
    return None


def restore(
    directory: Path, step: int, like: Tree, device: Device | None = None, of: Mapping[str, str] | None = None
) -> Tree | None:
    """The states after `step` updates, or None (with a warning) if they are damaged, of other runs, of another update
    (renamed by hand), or not there."""
    from orbax.checkpoint import v1 as ocp

    path = str(directory / str(step))
    sharding = jax.sharding.SingleDeviceSharding(device or jax.local_devices()[0])
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
    try:
        with _alone(), _plainly_named(directory) as named:
            found = iter(jax.tree.leaves(ocp.load(str(named / str(step)), _written(target))))
            states = jax.tree.map(lambda leaf: next(found) if leaf.size else jnp.zeros(leaf.shape, leaf.dtype), like)
            noted: Any = ocp.metadata(str(named / str(step))).custom_metadata
        whole, another = digest(states) == noted["sha256"], other(noted.get("of", {}), of)
        made = sorted({int(n) for n in np.ravel(getattr(states, "step", step))})
        if not whole:
            reason = "its digest does not match"
        elif another is not None:
            reason = f"it is of runs with another {another}"
        elif made != [step]:
            reason = f"its states are those after {made} updates"
        else:
            return states
    except Exception as error:  # Orbax raises a dozen kinds for a damaged step
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    _forget()
    warnings.warn(f"passed over the checkpoint {path}: {reason}", stacklevel=2)
    return None


def _forget() -> None:
    """Collects, in silence, what a read that failed leaves: Orbax's other reads, never awaited, each of which would
    print a traceback of its own whenever it is collected."""
    with _ORBAX, warnings.catch_warnings():  # hook and filters are the process's, not a thread's
        warnings.simplefilter("ignore", RuntimeWarning)
        heard, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            gc.collect()
        finally:
            sys.unraisablehook = heard


def sweep_up(directory: Path) -> None:
    """Removes what killed saves and deletions have left."""
    for left in [*directory.glob("*.orbax-checkpoint-tmp*"), *directory.glob(f"*{_DELETED}")]:
        shutil.rmtree(left)


def of_tile(out: Path, index: int) -> Path:
    """Where the checkpoints of tile `index` of a run directory lie."""
    return (out / "checkpoints" / f"tile-{index:04d}").absolute()
