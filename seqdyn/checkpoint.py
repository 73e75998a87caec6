"""Checkpoints of one tile's states, by Orbax; each is verified against a digest of its own when read."""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from seqdyn.types import Device, Tree


def digest(tree: Tree) -> str:
    """SHA-256 over paths, types, shapes and bytes of all leaves: equal if and only if two states are, bit for bit."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


class Checkpoints:
    """The newest two checkpoints of one tile, in a directory of their own.

    Orbax writes to a temporary directory and renames it, so a killed save leaves nothing that is listed; but deleting
    an old step is not atomic and the data carry no checksum, so reading falls back to the step before.
    """

    def __init__(self, directory: Path) -> None:
        newest: Any = ocp.training.preservation_policies.LatestN(2)
        self._checkpointer = ocp.training.Checkpointer(
            str(directory), preservation_policy=newest, cleanup_tmp_directories=True
        )

    def save(self, step: int, states: Tree) -> None:
        """Writes the states after `step` updates and returns when they are on disk."""
        self._checkpointer.save(step, states, overwrite=True, custom_metadata={"sha256": digest(states)})

    def latest(self, like: Tree, device: Device | None = None) -> tuple[int, Tree] | None:
        """(step, states) of the newest checkpoint that is whole, with the structure, shapes and types of `like`.

        None if there is none. One that cannot be read or does not match its digest is passed over with a warning.
        """
        for step in sorted((c.step for c in self._checkpointer.checkpoints), reverse=True):
            states = self.at(step, like, device)
            if states is not None:
                return step, states
        return None

    def at(self, step: int, like: Tree, device: Device | None = None) -> Tree | None:
        """The states after `step` updates, or None (with a warning) if they are damaged or not there."""
        sharding = jax.sharding.SingleDeviceSharding(device or jax.devices()[0])
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
        try:
            states = self._checkpointer.load(step, target)
            expected: Any = self._checkpointer.metadata(step).custom_metadata
            if digest(states) == expected["sha256"]:
                return states
            reason = "its digest does not match"
        except Exception as error:  # Orbax raises a dozen kinds for a damaged step
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        warnings.warn(f"passed over the checkpoint {self._checkpointer.directory / str(step)}: {reason}", stacklevel=2)
        return None

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._checkpointer.close()
