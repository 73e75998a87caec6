"""What a probe sees besides the state it looks at."""

import math
from collections.abc import Sequence
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


def among(values: Any, gates: Sequence[str], every: Sequence[str], axis: int) -> Any:
    """What a layer has one of for each of its gates, along `axis`, at their places among those of every layer of a
    stack; NaN elsewhere. Of NumPy's arrays or JAX's."""
    if tuple(gates) == tuple(every):
        return values
    rows = [values.take(gates.index(gate), axis) if gate in gates else None for gate in every]
    nothing = values.take(0, axis) * math.nan
    return values.__array_namespace__().stack([nothing if row is None else row for row in rows], axis=axis)
