"""A user's terms of the objective, one for each thing that a term may read."""

import jax.numpy as jnp

import seqdyn as sd


@sd.part
class Flat:
    """Mean of (log₂ ‖λ_{t+1}‖ − log₂ ‖λ_t‖)², over steps, summed over layers."""

    weight: sd.Number = sd.number(0.1, low=0.0)
    reads = "adjoints"

    def value(self, seen: sd.Pass):
        total = 0.0
        for layer in seen.layers:
            both = layer.reached[1:] & layer.reached[:-1]
            total += jnp.sum((layer.log2[1:] - layer.log2[:-1]) ** 2, where=both) / jnp.maximum(jnp.sum(both), 1)
        return total


@sd.part
class Aligned:
    """Σ u_ij Σ λ_t,i h_t,j, both constants."""

    weight: sd.Number = sd.number(0.1)
    reads = "adjoints"
    detached = True

    def value(self, seen):
        (layer,) = seen.layers
        return jnp.sum(seen.params.layers[0].u[:, :3] * jnp.einsum("tbi,tbj->ij", layer.adjoint, layer.states))


@sd.part
class Fourth:
    """Σ h⁴ over valid steps."""

    weight: sd.Number = sd.number(0.1)
    power: int = 4
    reads = "states"

    def value(self, seen):
        return sum(jnp.sum(layer.states**self.power, where=layer.mask[..., None]) for layer in seen.top)


@sd.part
class Readout:
    weight: sd.Number = sd.number(0.1)
    reads = "weights"
    name = "square"

    def value(self, seen):
        return jnp.sum(seen.params.readout.w**2)


SPEC = sd.Spec(steps=6, batch=4, holdout=4, hidden=(3,), penalties=("l2", "omega", Flat()))


def experiment(spec=SPEC, **axes):
    """Four runs, if no axes are named."""
    runs = sd.grid(spec, **(axes or {"seeds": 2, "weight": [0.0, 0.5]}))
    return sd.Experiment("terms", runs, updates=4, chunk=2, tile=2, probes=())
