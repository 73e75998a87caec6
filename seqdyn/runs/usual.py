"""The options that many scripts have: what is meant by them, and what no script can take."""

import dataclasses
from pathlib import Path
from typing import Any

from seqdyn.types import ConfigError, check_address, whole


class Usual:
    """What is meant by options that many scripts have, each with a default of its own. A config has those that it
    names; where it says nothing of one, `--help` says this."""

    seeds: Any
    """Seeds of each setting, of parameters, data and their order: how many, from 0 on, a range or a list."""
    steps: Any
    """T, time steps of a sequence."""
    lengths: Any
    """T, time steps of a sequence: one experiment each."""
    hidden: Any
    """Units of a recurrent layer."""
    batch: Any
    """Sequences per update."""
    lr: Any
    """Adam's learning rate."""
    clip: Any
    """Bound on the gradient's global norm."""
    updates: Any
    """Updates of each run; may grow when the same command is run again."""
    chunk: Any
    """Updates in one compiled call; a signal is obeyed at its end."""
    probe_every: Any
    """Updates between looks at the test error."""
    tile: Any
    """Runs in one program on one device."""
    data_dir: Any
    """TFDS data directory that holds imdb_reviews; by default TFDS's own, downloaded on first use."""
    length: Any
    """Words kept of a review, its last ones."""


def check_options(chosen: Any) -> None:
    """Raises ConfigError for options that are NaN, whole numbers of more than 32 bits, or addresses in place of paths;
    and for `Usual` ones that are 0 or less, or have no value, and not by default: scripts divide by them and take the
    largest."""
    for field in dataclasses.fields(chosen) if dataclasses.is_dataclass(chosen) else ():
        value, usual = getattr(chosen, field.name), field.name in Usual.__annotations__
        if value == field.default:
            continue
        if usual and value == ():
            raise ConfigError(f"{field.name} is empty; it must have one value or more.")
        if usual and type(value) is int:
            whole(field.name, value, 1)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Path):
                check_address(field.name, one)
            if one != one:
                raise ConfigError(f"{field.name} is {value!r}; it must be a number, not NaN.")
            if type(one) is int and not -(2**31) <= one < 2**31:
                raise ConfigError(f"{field.name} is {value!r}; it must be below 2³¹.")
