"""What a run starts from, where its parameters are given: each array by its name, and whether it fits."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqdyn.data.arrays import array
from seqdyn.learn.model import Model
from seqdyn.types import ConfigError, Tree

OPTIONAL = re.compile(r"(embedding|readout|log_alpha|layer\d+/statistics)(/|$)")
"""Parts of a `Model` that may be None where they are given: they then begin as always."""


def names(tree: Tree) -> list[str]:
    """Of the leaves, in their order: 'embedding', 'layer0/w', 'layer0/u', …, 'readout/w'; of a network that is no stack
    their paths. Raises ConfigError where two have one name."""
    found = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in _leaves(tree)]
    if isinstance(tree, Model):
        found = [re.sub(r"^layers/(\d+)/?", r"layer\1/", name).rstrip("/") for name in found]
    found = [name or "params" for name in found]
    twice = next((name for name in found if found.count(name) > 1), None)
    if twice:
        raise ConfigError(f"the parameters have two arrays of the name {twice}; each must have its own.")
    return found


def named(tree: Tree) -> dict[str, Any]:
    """The leaves by `names`."""
    return dict(zip(names(tree), (leaf for _, leaf in _leaves(tree)), strict=True))


def _leaves(tree: Tree) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def placed(tree: Tree, given: Mapping[str, Any]) -> Tree:
    """The tree with the given arrays in the places of those of their names."""
    leaves = [given.get(name, leaf) for name, leaf in named(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def fitted(made: Tree, given: Mapping[str, Any], where: str, of: str) -> dict[str, np.ndarray]:
    """The given arrays, in the types of those that `made` has in their places.

    What `made` has and is not given must be a whole part of `OPTIONAL`. Raises ConfigError, naming the array, the two
    shapes, `where` it was given and `of` whom `made` is, for what is missing, too much, of another shape or no number,
    and in a `Model` for what is not finite.
    """
    wanted = named(made)
    for name in wanted:
        part = OPTIONAL.match(name) if isinstance(made, Model) else None
        if name not in given and not (part and not any(f"{other}/".startswith(f"{part[1]}/") for other in given)):
            raise ConfigError(f"{where} has no {name}, which {of} has, {_shape(wanted[name])}.")
    for name in given:
        if name not in wanted:
            cure = ""
            if name.startswith("log_alpha"):
                cure = " (gates of l0: seqdyn.learn.model.acting_params gives the network behind them)"
            raise ConfigError(f"{where} has {name}, {_shape(given[name])}, which {of} has not{cure}.")
    found = {}
    for name, value in given.items():
        place, right = f"{name} of {where}", wanted[name]
        if np.shape(value) != right.shape:
            cure = ""
            if "/statistics/" in name:
                cure = "; with statistics=None in its layer those of the batches begin as always"
            raise ConfigError(f"{where} has {name} {_shape(value)}; {of} has {_shape(right)}{cure}.")
        found[name] = _cast(place, value, right.dtype, finite=isinstance(made, Model))
    return found


def _shape(value: Any) -> str:
    return f"[{', '.join(map(str, np.shape(value)))}]"


def _cast(where: str, value: Any, dtype: Any, finite: bool) -> np.ndarray:
    if getattr(value, "dtype", None) == dtype:  # of any kind, complex numbers and bfloat16 as well
        found = np.asarray(value)
    else:
        found = _numbers(where, value, dtype)
    if finite and not np.isfinite(found).all():
        raise ConfigError(f"{where} has {found[~np.isfinite(found)][0]}; it must be finite.")
    return found


def _numbers(where: str, value: Any, dtype: Any) -> np.ndarray:
    found = array(where, value, "numbers")
    real = jnp.issubdtype(dtype, jnp.floating)
    if found.dtype.kind not in "biuf" or (found.dtype.kind == "f" and not real):
        raise ConfigError(f"{where} has the type {found.dtype}; it must be {np.dtype(dtype)}.")
    with np.errstate(over="ignore"):
        return found.astype(dtype)


def tree(made: Tree, given: Mapping[str, Any]) -> Tree:
    """A tree like `made` of the given arrays, None where there are none."""
    found = placed(made, dict.fromkeys(names(made)) | dict(given))
    if not isinstance(found, Model):
        return found
    there = {name.partition("/")[0] for name in given}
    parts = {"readout": found.readout, "log_alpha": found.log_alpha}
    return found._replace(**{name: part if name in there else None for name, part in parts.items()})
