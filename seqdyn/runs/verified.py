"""Every run verifies itself: the gradient of each of its specs is held against autodiff's before it trains."""

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.text import Text

from seqdyn.learn.config import Experiment, Spec
from seqdyn.learn.verify import TOLERANCE, comparison, gradient_error
from seqdyn.runs import manifest
from seqdyn.types import ConfigError


def verify_gradients(experiment: Experiment, out: Path, noted: dict[str, Any], data: Any, console: Console) -> None:
    """Checks each spec's gradient once per directory and notes the result in its manifest."""
    new = [one for one in zip(experiment.specs, experiment.runs, strict=True) if one[0].label not in noted["verified"]]
    with ThreadPoolExecutor(len(jax.local_devices())) as pool, contextlib.ExitStack() as left:
        errors = [pool.submit(_error, runs, data) for _, runs in new]
        left.callback(lambda: [one.cancel() for one in errors])
        for (spec, _), one in zip(new, errors, strict=True):
            error = one.result()
            told = f" against autodiff: relative difference {error:.1e}"
            console.print(Text.assemble("gradient of ", (spec.label, "bold"), told), soft_wrap=True)
            if np.isnan(error) or (spec.network is not None and not np.isfinite(error)):
                continue  # it begins diverged: data, and nothing to compare
            if not error < TOLERANCE:
                why = "this compiler gets these shapes wrong, so try another batch or hidden size"
                if spec.network is not None:
                    why = "this compiler gets these shapes wrong, so try others"
                if spec.layers:
                    why = "vjp, transposed or weight_gradients of one of its cells is not its step's derivative"
                raise RuntimeError(
                    f"the gradient of {spec.label} is {error:.1e} away from autodiff's (at most {TOLERANCE:g} is "
                    f"right); {why}."
                )
            verified = {spec.label: error}
            manifest.note(out, lambda noted, new=verified: noted | {"verified": noted["verified"] | new})


def _error(runs: Spec, data: Any) -> float:
    """`gradient_error` of a spec's first run. The numbers of a network that is no stack may switch a part of it off, or
    let it overflow: of such a one it is that of the first run, of up to eight, of which it can be told, else NaN."""
    some = range(0, len(runs), -(-len(runs) // 8)) if runs.network is not None else [0]
    error, refused, program = math.nan, None, comparison()
    for one in (runs.at(i).arrays() for i in some):
        try:
            error = gradient_error(one, data, program)
        except ConfigError as why:
            refused = why
        if math.isfinite(error):
            return error
    if refused:
        raise refused
    return error
