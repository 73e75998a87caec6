"""Files that are whole or not there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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
