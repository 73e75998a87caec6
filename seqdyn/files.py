"""Files that are whole or not there."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from seqdyn.types import ConfigError


@contextlib.contextmanager
def writing(folder: Path, cure: str) -> Iterator[None]:
    """ConfigError, which names the `cure`, where a folder is somebody else's or read-only; not where a disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise ConfigError(f"{folder} cannot be written in ({error.strerror}); {cure}.") from None


def make_folder(folder: Path) -> None:
    """Makes it, if need be. Raises OSError if nothing can be written in it, before there is anything to lose."""
    folder.mkdir(parents=True, exist_ok=True)
    TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def in_one_step(path: Path) -> Iterator[Path]:
    """A name beside `path`, to write; what was written takes its place at the end, so that a reader sees the old file
    or the whole new one. Nothing is left of what could not be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
