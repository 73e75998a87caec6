"""Running statistics among what `init` of a cell or a network gives: kept, saved and carried as parameters are, but
moved by each update's batch and not by the optimiser. They stand under the name `statistics`, in a dict or a
NamedTuple.

`Cell.update_batch_stats` moves them: that of the library's batch normalisation (`nets.normalised`) and, by
`cell(…, statistics=)`, that of a cell of one's own. Those of a network that is no stack its loss comes with.
"""

from typing import Any

import jax

NAME = "statistics"


def of(params: Any) -> Any:
    """Those of a layer; None where it keeps none."""
    if isinstance(params, dict):
        return params.get(NAME)
    return getattr(params, NAME, None) if isinstance(params, tuple) else None


def put(params: Any, new: Any) -> Any:
    """The parameters with these in the place of theirs."""
    return params | {NAME: new} if isinstance(params, dict) else params._replace(**{NAME: new})


def constant(params: Any) -> Any:
    """The parameters with statistics that no gradient reaches."""
    return params if of(params) is None else put(params, jax.lax.stop_gradient(of(params)))
