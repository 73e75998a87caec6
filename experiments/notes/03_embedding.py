"""Notes: an embedding layer, `Embedding(10, 4)` on shuffled ids. See [10] → [10, 4], and who learns from a batch.

python experiments/notes/03_embedding.py
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


def main() -> None:
    """Prints ids, their rows, and the gradient of the table."""
    ids = jax.random.permutation(jax.random.key(1), 10)
    layer = nn.Embed(10, 4)  # in a `seqdyn.Spec`: vocabulary=10, embedding=4
    params: Any = layer.init(jax.random.key(0), ids)
    out: Any = layer.apply(params, ids)
    table = params["params"]["embedding"]
    print("ids", ids, "→", list(out.shape), "from a table", list(table.shape))
    print("each row is the table's row of that id:", bool(jnp.array_equal(out, table[ids])))
    print(np.asarray(out, float).round(2))

    grads = jax.grad(lambda p: jnp.sum(jnp.square(jnp.asarray(layer.apply(p, ids[:3])))))(params)["params"]["embedding"]
    moved = jnp.flatnonzero(jnp.any(grads != 0, axis=1))
    print(f"\nof a batch with the ids {ids[:3]} only the rows {moved} have a gradient: rare words learn rarely")


if __name__ == "__main__":
    main()
