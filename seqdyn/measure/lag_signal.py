"""How far back a gradient can be told from its noise: what each step gives the parameters, over examples.

Of example b, ∂L_b/∂θ = Σ_t g_b,t with g_b,t = (∂state_t/∂θ)ᵀ ∂L_b/∂state_t: what a layer's own parameters receive
through step t alone. A sum over examples finds the direction of E g_t once their scatter is averaged away:

    signal       ‖E g_t‖, the root of ‖ḡ_t‖² − tr Σ_t / B, which has no bias
    scatter      √ tr Σ_t, with tr Σ_t = Σ_b ‖g_b,t − ḡ_t‖² / (B − 1)
    examples     (scatter / signal)², so many until both are alike: the noise scale of `measure.curvature`, at one lag
    tail index   α of the symmetric stable law that has the quantiles of the examples' projections on ḡ_t of the other
                 half of the batch: 2 is Gaussian. Means over n draws of such a law err by n^(1/α − 1) (Livi 2025)

The same of the whole gradient, Σ_t g_b,t.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from seqdyn.learn.context import Variable
from seqdyn.learn.probe_config import Look
from seqdyn.learn.terms import LayerPass
from seqdyn.nets.bptt import at_end
from seqdyn.nets.cells import step
from seqdyn.nets.stack import scan_forward
from seqdyn.norms import power_of_two
from seqdyn.parts import part
from seqdyn.types import Array, Bool, ConfigError, Float

RATIOS = (2.439, 2.5, 2.6, 2.7, 2.8, 3.0, 3.2, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 25.0)
INDICES = (2.0, 1.916, 1.808, 1.729, 1.664, 1.563, 1.484, 1.391, 1.279, 1.128, 1.029, 0.896, 0.818, 0.698, 0.593)
"""(q₉₅ − q₅) / (q₇₅ − q₂₅) of symmetric stable laws, and their α: McCulloch 1986, table III."""


def tail_index(x: Float[Array, " b"], some: Bool[Array, " b"] | None = None) -> Float[Array, ""]:
    """α of the symmetric stable law with the quantiles of x, from 0.593 to 2, of those that are in `some`; NaN where
    half of all are equal. McCulloch 1986."""
    x = x if some is None else jnp.where(some, x, jnp.nan)
    low, first, third, high = (jnp.nanquantile(x, q) for q in (0.05, 0.25, 0.75, 0.95))
    ratio = (high - low) / (third - first)
    found = jnp.interp(ratio, jnp.asarray(RATIOS, x.dtype), jnp.asarray(INDICES, x.dtype))
    return jnp.where(third > first, found, jnp.nan)


def of_examples(g: Float[Array, "b n"], some: Bool[Array, " b"]) -> dict[str, Float[Array, ""]]:
    """`signal`, `scatter` and `tail_index` of examples' gradients, of those in `some`; see above. `signal` is NaN where
    the estimate of its square is not positive: the examples are too few to see it."""
    count = jnp.sum(some.astype(g.dtype))
    rows = some[:, None].astype(g.dtype)
    g = jnp.where(some[:, None], g, 0)
    size = jnp.max(jnp.abs(g))  # squares of what lies below 1e-19 would be 0
    g = g / jnp.where(size > 0, size, 1)
    mean = jnp.sum(g, axis=0) / count
    variance = jnp.sum(jnp.square(g - mean[None]) * rows) / (count - 1)
    square = jnp.sum(jnp.square(mean)) - variance / count
    half = (jnp.arange(g.shape[0]) % 2).astype(g.dtype)[:, None] * rows
    odd, even = jnp.sum(g * half, axis=0), jnp.sum(g * (rows - half), axis=0)
    along = jnp.where(half[:, 0] > 0, g @ even / jnp.linalg.norm(even), g @ odd / jnp.linalg.norm(odd))
    return {
        "signal": size * jnp.sqrt(jnp.where(square > 0, square, jnp.nan)),
        "scatter": size * jnp.sqrt(variance),
        "tail_index": tail_index(along, some),
    }


def of_layer(layer: LayerPass) -> tuple[dict[str, Float[Array, " t"]], dict[str, Float[Array, ""]]]:
    """(of each step, the last valid one of an example at the end; of their sum) what `of_examples` says.

    A layer's pass was read with its adjoints (`learn.objective.layer_passes`, `Look.layers`).
    """
    ran, reading = layer.ran, layer.reading
    assert reading is not None and reading.adjoint is not None
    power = 1.0 if reading.exponent is None else power_of_two(reading.exponent, ran.hs.dtype)[..., None]
    adjoint = jax.tree.map(lambda part: ran.hs.shape[1] * part * power, reading.adjoint)
    before, _, _ = scan_forward(ran.cell, ran.params, ran.carry, ran.xs, ran.mask)
    reach = at_end(jnp.where(layer.mask, 1.0, 0.0).astype(ran.hs.dtype), ran.mask) > 0

    def ended(x: Array) -> Array:
        return x if ran.mask is None else jax.vmap(lambda of: at_end(of, ran.mask), -1, -1)(x)

    def given(carry: Any, x: Array, adjoint: Any) -> Float[Array, " n"]:
        pull = jax.vjp(lambda params: step(ran.cell, params, carry, x), ran.params)[1]
        return ravel_pytree(pull(adjoint)[0])[0]

    def at(total: Float[Array, "b n"], inputs: Any) -> tuple[Float[Array, "b n"], dict[str, Array]]:
        *inputs, some = inputs
        g = jnp.where(some[:, None], jax.vmap(given)(*inputs), 0)
        return total + g, of_examples(g, some)

    inputs = *jax.tree.map(ended, (before, ran.xs, adjoint)), reach
    flat = ravel_pytree(ran.params)[0]
    total, each = jax.lax.scan(at, jnp.zeros((ran.hs.shape[1], flat.size), flat.dtype), inputs)
    return each, of_examples(total, reach.any(axis=0))


@part
class LagSignal:
    """A probe: signal, scatter and tail index of the gradient that goes through each step of each layer.

    Take a `diagnostic` of a hundred sequences or more. `(lag_scatter / lag_signal)²` is how many it takes to see the
    gradient through one lag beside what scatters there, `(layer_scatter / lag_signal)²` beside all that scatters in the
    layer's gradient.
    """

    variables = {
        "lag_signal": Variable(("layer", "time"), "‖E g_t‖ of what step t gives the parameters", "loss / parameter"),
        "lag_scatter": Variable(("layer", "time"), "√ tr Cov g_t over examples", "loss / parameter"),
        "lag_tail_index": Variable(("layer", "time"), "α of g_t along its mean; 2 is Gaussian"),
        "layer_signal": Variable(("layer",), "‖E Σ_t g_t‖ of a layer's gradient", "loss / parameter"),
        "layer_scatter": Variable(("layer",), "√ tr Cov Σ_t g_t over examples", "loss / parameter"),
        "layer_tail_index": Variable(("layer",), "α of Σ_t g_t along its mean; 2 is Gaussian"),
    }

    def measure(self, look: Look) -> dict[str, Any]:
        """Of every layer, by its own parameters. ConfigError for a network that is no stack."""
        if not look.layers:
            raise ConfigError("probes has LagSignal, which looks at layers; network must be None.")
        found = [of_layer(layer) for layer in look.layers]
        return {
            f"{what}_{name}": jnp.stack([of[at][name] for of in found])
            for at, what in enumerate(("lag", "layer"))
            for name in ("signal", "scatter", "tail_index")
        }
