"""Notes: an embedding layer, `Embedding(10, 4)` on shuffled ids. See [10] → [10, 4], and who learns from a batch.

python experiments/notes/03_embedding.py
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import seqdyn as sd


def main() -> None:
    """Prints ids, their rows, and the gradient of the table."""
    ids = np.random.default_rng(1).permutation(10)
    layer = nn.Embed(10, 4)  # in a `seqdyn.Spec`: vocabulary=10, embedding=4
    params = sd.compiled(layer.init)(jax.random.key(0), ids)
    out, table = (np.asarray(each, float) for each in (layer.apply(params, ids), params["params"]["embedding"]))
    print("ids", ids, "→", list(out.shape), "from a table", list(table.shape))
    print("each row is the table's row of that id:", np.array_equal(out, table[ids]))
    print(out.round(2))

    def loss(params: Any) -> jax.Array:
        return jnp.sum(jnp.square(jnp.asarray(layer.apply(params, ids[:3]))))

    grads = sd.compiled(jax.grad(loss))(params)["params"]["embedding"]
    moved = np.flatnonzero(np.any(np.asarray(grads) != 0, axis=1))
    print(f"\nof a batch with the ids {ids[:3]} only the rows {moved} have a gradient: rare words learn rarely")


if __name__ == "__main__":
    main()
