"""How gradients become updates: clip, then a rule from optax, at a scheduled learning rate.

All are parts, whose numbers are axes of a grid: `Spec(optimizer=(ClipByNorm(1.0), Adam(1e-3, Cosine(1000))))` is a
chain, first link first. A word of `Spec.clip`, `Spec.optimizer` or `Spec.schedule` is the name of one of them, with the
numbers of `Numbers`. Numbers are arrays inside the trace, so sweeping them recompiles nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from seqdyn.building import check_part
from seqdyn.fields import Fields
from seqdyn.learn.rules import At, Rule, chained, factor, forgetful, made_clip, made_link
from seqdyn.norms import tree_norm
from seqdyn.parts import Number, Part, is_part, number, part
from seqdyn.types import Array, Float, Int, Tree

if TYPE_CHECKING:
    import optax

# --- clipping -------------------------------------------------------------------------------------------------


class Clipped(NamedTuple):
    """What clipping did to one gradient."""

    grads: Tree
    scale: Float[Array, ""]
    """‖after‖ / ‖before‖, 1 where it did not bite."""
    fraction: Float[Array, ""]
    """By norm: 1 if it bit, else 0. By value: the fraction of entries it changed."""


def clip_by_norm(grads: Tree, bound: Float[Array, ""], size: Float[Array, ""]) -> Clipped:
    """g · min(1, bound / ‖g‖), ‖g‖ = `size` over all parameters. Pascanu, Mikolov & Bengio 2013, algorithm 1."""
    over = size > bound
    scale = jnp.where(over, bound / jnp.where(over, size, 1), 1)
    return Clipped(jax.tree.map(lambda g: g * scale, grads), scale, over.astype(scale.dtype))


def clip_by_value(grads: Tree, bound: Float[Array, ""], size: Float[Array, ""]) -> Clipped:
    """Every entry into [−bound, bound]; turns the gradient as well as shortening it. Mikolov 2012, §3.2.2."""
    clipped = jax.tree.map(lambda g: jnp.clip(g, -bound, bound), grads)
    entries = sum(g.size for g in jax.tree.leaves(grads))
    changed = sum(jnp.sum(jnp.abs(g) > bound) for g in jax.tree.leaves(grads))
    scale = jnp.where(size > 0, tree_norm(clipped) / jnp.where(size > 0, size, 1), 1)
    return Clipped(clipped, scale, jnp.float32(changed) / entries)


def _clip(by: Callable[..., Clipped], bound: Any) -> Rule:
    def update(grads: Tree, state: Any, params: Tree, at: At) -> Any:
        clipped = by(grads, bound, at.norm(grads))
        return clipped.grads, state, {"clip_scale": clipped.scale, "clipped": clipped.fraction}

    return Rule(forgetful, update)


@part
class ClipByNorm:
    """The link g · min(1, bound / ‖g‖), ‖g‖ over all parameters: see `clip_by_norm`."""

    bound: Number = number(above=0.0, infinite=True)

    def build(self) -> Rule:
        """Reports clip_scale, and 1 as clipped where it bit."""
        return _clip(clip_by_norm, self.bound)


@part
class ClipByValue:
    """The link min(max(g, −bound), bound) of every entry: see `clip_by_value`."""

    bound: Number = number(above=0.0, infinite=True)

    def build(self) -> Rule:
        """Reports clip_scale, and as clipped the fraction of entries that it changed."""
        return _clip(clip_by_value, self.bound)


# --- schedules ------------------------------------------------------------------------------------------------
# Written out because optax's schedules compare their numbers in Python, and ours are traced.


def _after(warmup: Any, decay: Callable[[Float[Array, ""]], Any]) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    """n -> decay(s) · min(1, (n + 1) / warmup), s = max(n − warmup, 0)"""

    def factor(n: Int[Array, ""]) -> Float[Array, ""]:
        n = jnp.asarray(n).astype(jnp.float32)
        return decay(jnp.maximum(n - warmup, 0)) * jnp.minimum(1, (n + 1) / jnp.maximum(warmup, 1))

    return factor


@part
class Warmup:
    """The factor min(1, (n + 1) / warmup) of the learning rate at update n = 0, 1, …: a linear rise, then 1."""

    warmup: Number = number(0.0, low=0.0)

    def build(self) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
        """n -> the factor"""
        return _after(self.warmup, lambda s: jnp.ones(()))


@part
class Cosine:
    """After a linear rise ½ (1 + cos(π min(1, s / decay_steps))), s updates later. Loshchilov & Hutter 2017, eq. 5."""

    decay_steps: Number = number(1000.0, above=0.0)
    warmup: Number = number(0.0, low=0.0)

    def build(self) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
        """n -> the factor"""
        return _after(self.warmup, lambda s: 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(s / self.decay_steps, 1))))


@part
class Exponential:
    """After a linear rise decay_rate^(s / decay_steps), s updates after it."""

    decay_steps: Number = number(1000.0, above=0.0)
    decay_rate: Number = number(0.1, low=0.0, high=1.0)
    warmup: Number = number(0.0, low=0.0)

    def build(self) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
        """n -> the factor"""
        return _after(self.warmup, lambda s: self.decay_rate ** (s / self.decay_steps))


@part
class Inverse:
    """After a linear rise 1 / (1 + s / decay_steps), s updates after it. Robbins & Monro 1951."""

    decay_steps: Number = number(1000.0, above=0.0)
    warmup: Number = number(0.0, low=0.0)

    def build(self) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
        """n -> the factor"""
        return _after(self.warmup, lambda s: 1 / (1 + s / self.decay_steps))


# --- rules ----------------------------------------------------------------------------------------------------


@part
class Descent:
    """What the library's rules have in common: Δw = −η_n d_n, η_n = lr · schedule(n), d_n a direction of optax.

    `schedule` is a part whose `build()` returns a function of n, the updates done before: one of those above, or one of
    optax (`optax.cosine_decay_schedule(1.0, 1000)`). None: η = lr.
    """

    lr: Number = number(1e-3, above=0.0)
    schedule: Part = None

    def check(self) -> None:
        """Raises ConfigError for a schedule that is no part with a build."""
        if self.schedule is not None:
            check_part(f"{type(self).__name__}.schedule", self.schedule, "build")

    def rate(self, n: Int[Array, ""]) -> Float[Array, ""]:
        """η_n"""
        if self.schedule is None:
            return jnp.asarray(self.lr)
        return self.lr * factor(f"{type(self).__name__}.schedule", self.schedule, n)

    def direction(self, decayed: Callable[[Tree], Tree]) -> "optax.GradientTransformation":
        """d, of which `decayed` says for each parameter whether it decays."""
        import optax

        return optax.identity()

    def build(self) -> Rule:
        """Reports learning_rate, η_n."""

        def init(params: Tree) -> Any:
            return self.direction(lambda tree: jax.tree.map(lambda _: True, tree)).init(params)

        def update(grads: Tree, state: Any, params: Tree, at: At) -> Any:
            found, state = self.direction(at.decayed).update(grads, state, params)
            lr = self.rate(at.step)
            return jax.tree.map(lambda u: -lr * u, found), state, {"learning_rate": lr}

        return Rule(init, update)


@part
class SGD(Descent):
    """d = g."""


@part
class Momentum(Descent):
    """d_n = g + momentum · d_{n−1}. Polyak 1964."""

    momentum: Number = number(0.9, low=0.0, high=1.0)

    def direction(self, decayed: Callable[[Tree], Tree]) -> "optax.GradientTransformation":
        """The trace of gradients."""
        import optax

        return optax.trace(decay=self.momentum)


@part
class RMSProp(Descent):
    """d = g / √(v + 1e-8), v the running mean of g². Tieleman & Hinton 2012."""

    decay: Number = number(0.9, low=0.0, high=1.0)

    def direction(self, decayed: Callable[[Tree], Tree]) -> "optax.GradientTransformation":
        """g over its running root mean square."""
        import optax

        return optax.scale_by_rms(decay=self.decay)


@part
class Adam(Descent):
    """d = m̂ / (√v̂ + eps), m and v the running means of g and g². Kingma & Ba 2015, algorithm 1."""

    b1: Number = number(0.9, low=0.0, below=1.0)
    b2: Number = number(0.999, low=0.0, below=1.0)
    eps: Number = number(1e-8, low=0.0)

    def direction(self, decayed: Callable[[Tree], Tree]) -> "optax.GradientTransformation":
        """The means, corrected for their start."""
        import optax

        return optax.scale_by_adam(self.b1, self.b2, self.eps)


@part
class AdamW(Adam):
    """Adam's d + weight_decay · w, of the matrices of `Spec.penalised` alone. Loshchilov & Hutter 2019, algorithm 2."""

    weight_decay: Number = number(1e-4, low=0.0)

    def direction(self, decayed: Callable[[Tree], Tree]) -> "optax.GradientTransformation":
        """Adam's, and w where it decays."""
        import optax

        return optax.chain(
            optax.scale_by_adam(self.b1, self.b2, self.eps), optax.add_decayed_weights(self.weight_decay, decayed)
        )


# --- a spec's -------------------------------------------------------------------------------------------------


def links(spec: Fields) -> tuple[Part, ...]:
    """The parts of `Spec.optimizer`, first link first; none of a word."""
    return spec.optimizer if isinstance(spec.optimizer, tuple) else (spec.optimizer,) if is_part(spec.optimizer) else ()


def named(spec: Fields) -> dict[str, Part]:
    """The same by where they stand: 'optimizer', or 'optimizer[0]', …"""
    several = isinstance(spec.optimizer, tuple)
    return {f"optimizer[{i}]" if several else "optimizer": link for i, link in enumerate(links(spec))}


def decays(spec: Fields) -> bool:
    """Does its rule heed `Spec.penalised`?"""
    return spec.optimizer == "adamw" or any(isinstance(link, AdamW) for link in links(spec))


def of_words(spec: Fields) -> Descent:
    """The part of a rule and a schedule that are words; the schedule may be a part."""
    schedule, steps, warmup = spec.schedule, spec.numbers.decay_steps, spec.numbers.warmup
    if not is_part(schedule):
        schedule = {
            "constant": Warmup(warmup),
            "cosine": Cosine(steps, warmup),
            "exponential": Exponential(steps, spec.numbers.decay_rate, warmup),
            "inverse": Inverse(steps, warmup),
        }[schedule]
    match spec.optimizer:
        case "sgd":
            return SGD(spec.numbers.lr, schedule)
        case "momentum":
            return Momentum(spec.numbers.lr, schedule, spec.numbers.momentum)
        case "rmsprop":
            return RMSProp(spec.numbers.lr, schedule, spec.numbers.momentum)
        case "adam":
            return Adam(spec.numbers.lr, schedule)
        case "adamw":
            return AdamW(spec.numbers.lr, schedule, weight_decay=spec.numbers.weight_decay)
    raise ValueError(f"optimizer is {spec.optimizer!r}")


def rule(spec: Fields) -> Rule:
    """From gradient to Δw: what clips, then the optimiser. Of adjoints it is `nets.bptt` that clips.

    Call it under `jax.numpy_dtype_promotion("standard")`.
    """
    if is_part(spec.clip):
        clips = (made_clip("clip", spec.clip),)
    else:
        worded = {"norm": ClipByNorm, "value": ClipByValue}.get(spec.clip)
        clips = () if worded is None else (worded(spec.numbers.clip).build(),)
    own = tuple(made_link(where, link) for where, link in named(spec).items())
    return chained((*clips, *(own or (of_words(spec).build(),))))
