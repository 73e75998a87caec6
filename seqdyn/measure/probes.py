"""The instruments by the names an experiment knows them by: each looks at a state between chunks, changing nothing.

In a notebook call their functions under `seqdyn.compiled`: XLA's CPU compiler gets some shapes of loops wrong without.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from seqdyn.data.tasks import task_of
from seqdyn.learn import model, network, precision, train
from seqdyn.learn.objective import kind, layer_passes
from seqdyn.learn.probe_config import Look, ProbeConfig, measured
from seqdyn.learn.spec import Spec
from seqdyn.learn.terms import LayerPass
from seqdyn.learn.train import TrainState
from seqdyn.measure import curvature, jacobians, lyapunov, units, updates, weights
from seqdyn.measure.view import View
from seqdyn.nets.bptt import taps
from seqdyn.types import Array, Tree


class Probe(NamedTuple):
    """One instrument, in the two halves its module defines."""

    names: tuple[str, ...]
    """What it records."""
    measure: Callable[[Spec, TrainState, View], dict[str, Array]]
    """On the device, compiled over a tile of runs like training itself."""
    finish: Callable[[Spec, dict[str, np.ndarray], int], dict[str, np.ndarray]] | None = None
    """On the host, in float64: what devices cannot do; takes `View.modes`, too. None: the look is the record."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PROBES = {
    "weights": Probe(
        _names(
            "spectral_radius largest_singular_value departure_from_normality orthogonality_distance eigenvalue_real "
            "eigenvalue_imag singular_value"
        ),
        weights.measure,
        weights.finish,
    ),
    "units": Probe(
        _names(
            "gate_mean saturation_margin saturated dead_fraction time_constant adjoint_c_through_c adjoint_c_through_h"
        ),
        units.measure,
    ),
    "jacobians": Probe(
        _names("step_norm window_log_singular window_log_condition"), jacobians.measure, jacobians.finish
    ),
    "lyapunov": Probe(_names("lyapunov_exponent lyapunov_error kaplan_yorke local_exponent"), lyapunov.measure),
    "curvature": Probe(
        _names(
            "sharpness sharpness_error least_curvature directional_sharpness noise_scale gradient_square "
            "gradient_variance"
        ),
        curvature.measure,
    ),
    "updates": Probe(
        _names(
            "group_weight_norm group_gradient_ratio group_update_ratio group_gradient_cosine gradient_cosine "
            "gradient_update_cosine effective_lr adjoint_histogram adjoint_zero adjoint_nonfinite"
        ),
        updates.measure,
    ),
}
"""By the words of `Experiment.probes`; `records.VARIABLES` says what each records."""


def made(one: Any) -> Probe:
    """The probe of a word, or of a user's part."""
    return PROBES[one] if isinstance(one, str) else Probe(tuple(one.variables), partial(_measured, one))


def called(one: Any) -> str:
    """What a probe is called among others: parts of one class may be several."""
    return one if isinstance(one, str) else f"{type(one).__name__}: {', '.join(one.variables)}"


def _measured(probe: Any, spec: Spec, state: TrainState, view: View) -> dict[str, Array]:
    """What a user's part says of the diagnostic batch."""
    batch: Any = view.batch._replace(noise=None)
    ran: tuple[LayerPass, ...] = ()
    if spec.network is None:
        steps, *size = batch.xs.shape[:2]
        cells = model.layers(spec)
        watches = tuple(taps(cell, steps, tuple(size), ranged=True, adjoint=True) for cell in cells)
        ran = layer_passes(spec, state.params, batch, watches)

    def loss_of(params: Tree) -> Array:
        return kind(spec).forward(spec, params, batch).loss

    key = train.key_of(spec, train.PROBES, state.step)
    layers = len(spec.widths) if spec.network is None else len(network.scans(spec))
    sizes = {"layer": layers, "time": spec.steps, "group": len(model.groups(state.params)), "unit": max(spec.hidden)}
    return measured(probe, Look(batch, state.params, state.step, key, loss_of, ran), sizes)


def measure(spec: Spec, looking: ProbeConfig, state: TrainState, data: Tree) -> dict[str, dict[str, Array]]:
    """What each probe sees of one run, by the probe's name. A run no longer running costs nothing at width 1."""

    def on(spec: Spec, state: TrainState, data: Tree) -> dict[str, dict[str, Array]]:
        source, key = looking.diagnostic_from, train.keys(spec).data
        batch: Any = None  # weights are looked at without one, however small the data set
        if any(one != "weights" for one in looking.probes):
            batch = task_of(spec).diagnostic(data, key, source, looking.diagnostic)
        view, exact = View(batch, data, looking.modes), precision.exact(spec)
        return {called(one): made(one).measure(exact, state, view) for one in looking.probes}

    def off(*given: Any) -> dict[str, dict[str, Array]]:
        return jax.tree.map(train.nan_like, jax.eval_shape(on, *given))

    return jax.lax.cond(state.running, on, off, spec, state, data)


def finish(
    spec: Spec, looking: ProbeConfig, looked: dict[str, dict[str, Array]], running: np.ndarray
) -> dict[str, np.ndarray]:
    """The records of some runs from what was seen of them, NaN for those no longer running."""
    records: dict[str, np.ndarray] = {}
    for one in looking.probes:
        values, done = jax.tree.map(np.asarray, looked[called(one)]), made(one).finish
        records |= done(spec, values, looking.modes) if done else values
    for name, values in records.items():
        on = running.reshape(-1, *(1,) * (values.ndim - 1))
        records[name] = np.where(on, values, np.nan)
    return records
