"""Why did a run diverge? The first number that was not finite, and the updates before it.

    python -m seqdyn.why RUN_DIR [--run 7]

Without `--run` each run that has diverged has a line. Of runs on a data set, call `seqdyn.why(RUN_DIR, run, data)` with
the data that they were run on.
"""

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from seqdyn.runs.script import script
from seqdyn.runs.why import diverged, why


@dataclass
class Config:
    """Of which runs."""

    path: tyro.conf.Positional[Path]
    """The run directory."""
    run: int | None = None
    """One run, whose last updates are shown, too."""


def main(config: Config) -> None:
    """Prints why each run, or one of them, diverged."""
    runs = diverged(config.path) if config.run is None else [config.run]
    if not runs:
        print(f"no run of {config.path} has diverged")
    for run in runs:
        found = why(config.path, run)
        print(found or f"run {run} of {config.path} has not diverged")
        if found and config.run is not None:
            print(f"the updates before it, {found.shown}:")
            print(found.before.to_string(float_format=lambda value: f"{value:.3g}"))


class _Callable(types.ModuleType):
    """Whoever imports this module has it in the place of the function of its name: then it is that function."""

    def __call__(self, *args: Any, **named: Any) -> Any:
        return why(*args, **named)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    script(Config, main, __doc__)
