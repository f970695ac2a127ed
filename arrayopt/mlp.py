r"""The problem that ``arrayopt train`` optimises: a multilayer perceptron on handwritten digits.

For a batch of ``n`` images, ``x`` of shape ``(n, 64)`` with one-hot labels ``y`` of shape
``(n, 10)``, and layers :math:`k = 0 \dots K - 1`:

.. math::

    h_0 &= x, \qquad h_{k+1} = \max(h_k W_k + b_k,\ 0) \quad (k < K - 1) \\
    z &= h_{K-1} W_{K-1} + b_{K-1} \\
    \log p &= z' - \log \textstyle\sum_j e^{z'_j}, \qquad z' = z - \max_j z_j \\
    L &= -\tfrac1n \textstyle\sum_{ij} y_{ij} \log p_{ij}

and backwards, from :math:`\delta_{K-1} = (p - y) / n`:

.. math::

    \nabla W_k = h_k^T \delta_k, \qquad
    \nabla b_k = \textstyle\sum_i \delta_{k,i}, \qquad
    \delta_{k-1} = (\delta_k W_k^T) \odot [h_k > 0]

Parameters are a dict: ``w0`` of shape ``(in, out)``, ``b0`` of shape ``(out,)``, ``w1``, ...
Everything is computed in the dtype of the parameters; ``x`` and ``y`` should share it.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._types import Array, Namespace


class Data(NamedTuple):
    """Images (float32, in [0, 1], one row each) and labels (float32, one-hot), as NumPy arrays."""

    x_train: NDArray[np.float32]  # (1437, 64)
    y_train: NDArray[np.float32]  # (1437, 10)
    x_test: NDArray[np.float32]  # (360, 64)
    y_test: NDArray[np.float32]  # (360, 10)


def load(seed: int) -> Data:
    """The 1797 digits of scikit-learn (8 x 8 pixels of 0..16), split 80/20 within each class.

    The same ``seed`` gives the same split. Three pixels are blank in every image, so at least
    three rows of ``w0`` have a gradient of exactly zero at every step: a rule must survive that.
    """
    try:
        from sklearn import datasets, model_selection
    except ImportError as error:
        raise ImportError('the digits need scikit-learn: pip install "arrayopt[cli]"') from error
    pixels, digit = datasets.load_digits(return_X_y=True)
    x = (pixels / 16).astype(np.float32)  # exact: the pixels are integers
    y = np.eye(10, dtype=np.float32)[digit]
    x_train, x_test, y_train, y_test = model_selection.train_test_split(
        x, y, test_size=0.2, stratify=digit, random_state=seed
    )
    return Data(x_train, y_train, x_test, y_test)


def init(seed: int, sizes: tuple[int, ...] = (64, 64, 10)) -> dict[str, NDArray[np.float32]]:
    """Float32 parameters for layers of these ``sizes`` (input first), the same for one ``seed``.

    Weights are normal with standard deviation ``sqrt(2 / in)`` (He et al., 2015,
    https://arxiv.org/abs/1502.01852). Biases are normal with standard deviation 0.1 rather than
    the usual zero: a multiplicative rule (Madam) scales a parameter and never moves a zero.
    """
    rng = np.random.default_rng(seed)
    params = {}
    for k, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        w = (2 / fan_in) ** 0.5 * rng.standard_normal((fan_in, fan_out))
        params[f"w{k}"] = w.astype(np.float32)
        params[f"b{k}"] = (0.1 * rng.standard_normal(fan_out)).astype(np.float32)
    return params


def loss_and_grad(
    params: dict[str, Array], x: Array, y: Array, *, xp: Namespace
) -> tuple[Array, dict[str, Array]]:
    """Mean cross entropy ``L`` (0-d) and its gradient, a dict with the keys of ``params``.

    ``x`` is ``(n, in)``, ``y`` is ``(n, out)`` with rows that sum to one. Where a ReLU sits
    exactly at zero its derivative is taken as zero. A NaN in the input gives a NaN loss.
    """
    n = x.shape[0]
    *hidden, z = _forward(params, x, xp=xp)
    z = z - xp.max(z, axis=1, keepdims=True)  # else exp overflows
    logp = z - xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True))
    loss = -xp.sum(y * logp) / n
    delta = (xp.exp(logp) - y) / n
    grads = {}
    for k in reversed(range(len(hidden))):
        h, w = hidden[k], params[f"w{k}"]
        grads[f"w{k}"] = h.T @ delta
        grads[f"b{k}"] = xp.sum(delta, axis=0)
        if k > 0:  # times the mask, not where(): a NaN must not be hidden
            delta = (delta @ w.T) * xp.astype(h > 0, delta.dtype)
    return loss, {name: grads[name] for name in params}


def accuracy(params: dict[str, Array], x: Array, y: Array, *, xp: Namespace) -> Array:
    """Fraction of the rows of ``x`` whose largest logit is at the label in ``y``: 0-d, 0 to 1."""
    z = _forward(params, x, xp=xp)[-1]
    right = xp.argmax(z, axis=1) == xp.argmax(y, axis=1)
    return xp.mean(xp.astype(right, z.dtype))


def batches(n: int, size: int, epoch: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Shuffled indices into ``n`` rows, ``size`` at a time, none twice; one epoch's worth.

    The same ``(seed, epoch)`` gives the same batches. The last ``n % size`` rows of the shuffle
    sit this epoch out: every batch has one shape, so ``jit`` compiles once.
    """
    if not 1 <= size <= n:
        raise ValueError(f"batches: size must be in [1, {n}], got {size}")
    # spawn_key, because default_rng([seed, 0]) would repeat the stream of init(seed)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    order = rng.permutation(n)
    return (order[i : i + size] for i in range(0, n - size + 1, size))


def _forward(params: dict[str, Array], x: Array, *, xp: Namespace) -> list[Array]:
    """The input of each layer, ``[x, h_1, ..., h_{K-1}]``, and after them the logits ``z``."""
    last = len(params) // 2 - 1
    out = [x]
    for k in range(last + 1):
        z = out[-1] @ params[f"w{k}"] + params[f"b{k}"]
        out.append(z if k == last else xp.maximum(z, xp.zeros_like(z)))
    return out
