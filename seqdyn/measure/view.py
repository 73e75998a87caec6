"""What a probe sees besides the state it looks at."""

from typing import Any, NamedTuple

from seqdyn.data.tasks import Batch


class View(NamedTuple):
    """The same at every probe of a run directory, so that what changes between two looks is the network."""

    batch: Batch
    """The fixed diagnostic batch, a few sequences that no update is made on (or, if asked for, that every one is)."""
    data: Any
    """The task's data, from which the next training batches are drawn."""
    modes: int
    """How many singular values and exponents are recorded, largest first."""
