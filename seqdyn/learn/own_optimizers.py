"""An optimiser of a user's part, built and checked: what it returns is added to the parameters as it is."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from seqdyn.building import built, known_at_run_time, shapes_of
from seqdyn.parts import lenient
from seqdyn.types import Array, ConfigError, Tree


def made_optimizer(optimizer: Any) -> optax.GradientTransformation:
    """An optimiser whose state has definite types, and keeps them; its keys are numbers, as a checkpoint has them.

    Its `update` raises ConfigError where the rule wants more than gradients and parameters, or gives other shapes.
    """
    name = f"optimizer is {type(optimizer).__name__}"
    rule = built("optimizer", optimizer, optax.GradientTransformation, "an optax.GradientTransformation")

    def cast(new: Any, old: Any) -> Array:
        return jnp.asarray(new).astype(old.dtype)

    def is_key(leaf: Any) -> bool:
        return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)

    def numbers(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return jax.random.key_data(leaf) if is_key(leaf) else cast(leaf, leaf)

    def init(params: Tree) -> Any:
        with lenient(), known_at_run_time(name):
            return jax.tree.map(numbers, rule.init(params))

    def update(updates: Tree, state: Any, params: Any = None) -> tuple[Tree, Any]:
        with lenient(), known_at_run_time(name):
            like = jax.eval_shape(lambda p: jax.tree.map(jnp.asarray, rule.init(p)), params)
            given = jax.tree.map(lambda of, leaf: jax.random.wrap_key_data(leaf) if is_key(of) else leaf, like, state)
            try:
                made, after = rule.update(updates, given, params)
            except TypeError as error:
                if "required keyword" not in str(error):
                    raise
                raise ConfigError(f"{name}, whose update needs more than gradients and parameters: {error}.") from error
        if jax.tree.structure(made) != jax.tree.structure(updates) or shapes_of(made) != shapes_of(updates):
            raise ConfigError(f"{name}, whose updates have the shapes {shapes_of(made)}; they must be the parameters'.")
        return jax.tree.map(cast, made, updates), jax.tree.map(lambda n, o: cast(numbers(n), o), after, state)

    return optax.GradientTransformation(init, update)
