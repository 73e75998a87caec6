"""Arrays that took time to make, kept on disk: verified by a digest when read, and made again if anything is amiss."""

import hashlib
import json
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from seqdyn.types import ConfigError

VERSION = 2
"""Part of every key: raise it when code changes what the cached arrays hold."""
Arrays = dict[str, np.ndarray]


def cached(name: str, facts: object, make: Callable[[], Arrays], cache_dir: str | Path | None = None) -> Arrays:
    """`make()`, or what it returned before for the same `facts` (JSON, others by `str`), from <name>-<key>.npz in
    `cache_dir`, else `SEQDYN_CACHE`, else ~/.cache/seqdyn.

    A file that is damaged, cut short, another key's or another version's is made again; one that cannot be placed or
    written costs a warning.
    """
    key = hashlib.sha256(json.dumps([VERSION, name, facts], default=str).encode()).hexdigest()
    caches = Path(cache_dir or os.environ.get("SEQDYN_CACHE") or "~/.cache/seqdyn")
    try:
        path = caches.expanduser() / f"{name}-{key[:16]}.npz"
    except RuntimeError:  # nobody's home: no HOME and no such user, as in a container
        warnings.warn(f"{caches} has no home here: the data set is not cached; set SEQDYN_CACHE", stacklevel=3)
        return make()
    found = _load(path, key)
    if found is None:
        found = make()
        _save(path, key, found)
    return found


def content(path: Path) -> tuple[str, int]:
    """Path and checksum of a file, for the facts of what is made of it: a recording made louder keeps its size.

    ConfigError if it cannot be read.
    """
    try:
        return str(path.resolve()), zlib.crc32(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); it must be a file.") from None


def _digest(key: str, arrays: Arrays) -> str:
    digest = hashlib.sha256(key.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _load(path: Path, key: str) -> Arrays | None:
    """What `_save` wrote for this key, or None if it is not there, not whole, or another key's."""
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return arrays if arrays.pop("digest").item() == _digest(key, arrays) else None
    except Exception:  # damage shows in a dozen ways, and the answer to each is to make the file again
        return None


def _save(path: Path, key: str, arrays: Arrays) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # renamed when whole: never seen in part
            part = Path(folder, path.name)
            with open(part, "wb") as file:
                np.savez(file, digest=np.array(_digest(key, arrays)), **arrays)  # type: ignore[arg-type]
            os.replace(part, path)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        warnings.warn(f"{path} could not be written ({error}): the data set is not cached", stacklevel=4)
