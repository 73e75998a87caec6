"""Where parameters came from: what was read is known by its digest for as long as this process lives."""

from collections.abc import Mapping
from typing import Any

from seqdyn.learn.start import named
from seqdyn.runs.checkpoint import digest
from seqdyn.types import Tree

_KNOWN: dict[str, dict[str, Any]] = {}


def noted(params: Tree, parent: Mapping[str, Any]) -> Tree:
    """The parameters; `of` says from now on where they, and all that are equal bit for bit, came from."""
    _KNOWN[digest(named(params))] = dict(parent)
    return params


def of(params: Tree) -> list[dict[str, Any]]:
    """The one parent of these parameters, as JSON: {"path", "run", "step", "best"} of a run, {"file", …} of a file,
    {"framework"} of weights from elsewhere; none where nothing is known, as after a change."""
    found = _KNOWN.get(digest(named(params)))
    return [] if found is None else [found]
