r"""A small character-level transformer, once in torch and once in JAX, over one dict of weights.

With :math:`h` of shape (n, T, D), ``n`` texts of ``T`` characters, and layers :math:`k`:

.. math::

    h &= E[\text{tokens}] + P \\
    h &\leftarrow h + A(N(h))\, W_o, \qquad h \leftarrow h + \mathrm{gelu}(N(h)\, W_u)\, W_d \\
    z &= N(h)\, U

:math:`N` is the layer norm with a scale and no bias, :math:`A` causal self-attention with four
heads. The loss is the mean cross entropy of the next characters, in nats. No weight starts at 0:
a multiplicative rule (Madam) would leave it there. Each function imports its own framework.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, Any]
HEADS = 4
EPS = 1e-5  # of the layer norm


class Text(NamedTuple):
    """A text as numbers: ``letters[tokens[i]]`` is its character ``i``."""

    letters: str
    tokens: NDArray[np.int64]
    source: str  # the package that has it, and its version


def text() -> Text:
    """The descriptions of scikit-learn's data sets, one after the other (BSD 3-Clause)."""
    from importlib import resources

    import sklearn

    folder = resources.files("sklearn.datasets.descr")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".rst")), key=lambda f: f.name)
    whole = "\n".join(f.read_text(encoding="utf-8") for f in files)
    letters = "".join(sorted(set(whole)))
    tokens = np.array([letters.index(c) for c in whole])
    return Text(letters, tokens, f"scikit-learn {sklearn.__version__}")


def weights(letters: int, context: int, width: int, layers: int, seed: int) -> Weights:
    """The first weights, in float64."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape) / shape[0] ** 0.5

    found = {"embed": 0.1 * rng.standard_normal((letters, width))}
    found["place"] = 0.1 * rng.standard_normal((context, width))
    for k in range(layers):
        found |= {f"{k}.norm_a": np.ones(width), f"{k}.qkv": normal(width, 3 * width)}
        found |= {f"{k}.out": normal(width, width), f"{k}.norm_b": np.ones(width)}
        found |= {f"{k}.up": normal(width, 4 * width), f"{k}.down": normal(4 * width, width)}
    return found | {"norm": np.ones(width), "unembed": normal(width, letters)}


def batches(tokens: Any, steps: int, size: int, context: int, seed: int) -> NDArray[np.int64]:
    """Places drawn at random: shape (steps, size, context + 1), the last one to be predicted."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    first = rng.integers(0, len(tokens) - context, (steps, size, 1))
    return tokens[first + np.arange(context + 1)]


def layers_of(w: Weights) -> int:
    return sum(name.endswith(".qkv") for name in w)


def torch_loss(w: Weights, batch: Any) -> Any:
    """Of torch tensors: its own layer norm, attention and cross entropy."""
    from torch.nn import functional as f

    tokens, after = batch[:, :-1], batch[:, 1:]
    width = w["embed"].shape[1]
    h = w["embed"][tokens] + w["place"]
    for k in range(layers_of(w)):
        x = f.layer_norm(h, (width,), w[f"{k}.norm_a"], eps=EPS) @ w[f"{k}.qkv"]
        q, key, v = (y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in x.chunk(3, dim=-1))
        x = f.scaled_dot_product_attention(q, key, v, is_causal=True)
        h = h + x.transpose(1, 2).flatten(-2) @ w[f"{k}.out"]
        x = f.layer_norm(h, (width,), w[f"{k}.norm_b"], eps=EPS) @ w[f"{k}.up"]
        h = h + f.gelu(x, approximate="tanh") @ w[f"{k}.down"]
    z = f.layer_norm(h, (width,), w["norm"], eps=EPS) @ w["unembed"]
    return f.cross_entropy(z.flatten(0, 1), after.flatten())


def jax_loss(w: Weights, batch: Any) -> Any:
    """Of JAX arrays."""
    import jax
    import jax.numpy as jnp

    def norm(x: Any, scale: Any) -> Any:
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        return x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPS) * scale

    tokens, after = batch[:, :-1], batch[:, 1:]
    n, context = tokens.shape
    future = jnp.triu(jnp.ones((context, context), bool), 1)
    h = w["embed"][tokens] + w["place"]
    for k in range(layers_of(w)):
        x = norm(h, w[f"{k}.norm_a"]) @ w[f"{k}.qkv"]
        q, key, v = jnp.moveaxis(x.reshape(n, context, 3, HEADS, -1), 2, 0)
        scores = jnp.einsum("nihd,njhd->nhij", q, key) / q.shape[-1] ** 0.5
        scores = jax.nn.softmax(jnp.where(future, -jnp.inf, scores), axis=-1)
        x = jnp.einsum("nhij,njhd->nihd", scores, v).reshape(h.shape)
        h = h + x @ w[f"{k}.out"]
        h = h + jax.nn.gelu(norm(h, w[f"{k}.norm_b"]) @ w[f"{k}.up"]) @ w[f"{k}.down"]
    z = jax.nn.log_softmax(norm(h, w["norm"]) @ w["unembed"], axis=-1)
    return -jnp.mean(jnp.take_along_axis(z, after[..., None], axis=-1))
