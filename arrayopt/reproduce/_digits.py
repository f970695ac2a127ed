"""Many perceptrons on the digits at once, with JAX."""

from typing import Any, NamedTuple

import numpy as np

import arrayopt as ao

from .. import mlp
from . import _madam_log
from ._record import short


class Runs(NamedTuple):
    """What each run came to: arrays with an entry for each."""

    accuracy: np.ndarray  # on the test set
    flips: np.ndarray  # how often an element changed its sign, over all steps
    first: dict[str, np.ndarray]  # the parameters before the first step
    last: dict[str, np.ndarray]


def train(
    opt: ao.Sweep, data: mlp.Data, depth: int, seeds: list[int], settings: dict[str, Any]
) -> Runs:
    """Run i of the sweep has seed ``i % len(seeds)``."""
    import jax
    from jax import numpy as jnp

    from ..backends import jax as backend

    batch = settings["batch"]
    sizes = (data.x_train.shape[1], *[settings["width"]] * (depth - 1), data.y_train.shape[1])
    times = opt.n // len(seeds)

    def tiled(rows: Any, xp: Any) -> Any:
        return xp.tile(rows, (times, *[1] * (rows.ndim - 1)))

    def step(carry: Any, index: Any) -> Any:
        old, state, flips = carry
        x, y = tiled(train_x[index], jnp), tiled(train_y[index], jnp)
        _, grads = jax.vmap(lambda p, x, y: mlp.loss_and_grad(p, x, y, xp=jnp))(old, x, y)
        new, state = opt.step(old, grads, state)
        for k in old:
            flip = jnp.sign(new[k]) * jnp.sign(old[k]) < 0
            flips += jnp.sum(flip, axis=tuple(range(1, flip.ndim)))
        return (new, state, flips), None

    def start(params: Any) -> Any:
        return params, opt.init(params), jnp.zeros(opt.n, jnp.int32)

    epoch: Any = backend.compiled(lambda carry, indices: jax.lax.scan(step, carry, indices)[0])
    with backend.session("float32"):
        train_x, train_y, test_x, test_y = map(backend.asarray, data)
        each = [mlp.init(seed, sizes) for seed in seeds]
        first = {k: tiled(np.stack([p[k] for p in each]), np) for k in each[0]}
        carry = backend.compiled(start)(first)
        for e in range(settings["epochs"]):
            rows = [np.stack(list(mlp.batches(len(train_x), batch, e, seed))) for seed in seeds]
            carry = epoch(carry, np.stack(rows, axis=1))
        last, _, flips = carry
        right = jax.vmap(lambda p: mlp.accuracy(p, test_x, test_y, xp=jnp))
        accuracy = backend.compiled(right)(last)
        last = {k: backend.asnumpy(v) for k, v in last.items()}
        return Runs(backend.asnumpy(accuracy), backend.asnumpy(flips), first, last)


def length(data: mlp.Data, settings: dict[str, Any]) -> int:
    """The number of steps."""
    return int(settings["epochs"] * (len(data.x_train) // settings["batch"]))


def few_bits(data: mlp.Data, seeds: list[int], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Madam in B bits, with a rate that falls to 0 and with one that stops at the base step."""
    total = length(data, settings)
    levels = np.tile(np.repeat(2.0 ** np.array(settings["bits"]), len(seeds)), 2)
    step = settings["range"] / levels
    floor = step * (np.arange(step.size) >= step.size // 2)

    def eta(n: Any) -> Any:
        now = settings["untuned"] * (1 - n / total)
        return (now + floor + abs(now - floor)) / 2  # the larger of the two, in any library

    opt = ao.Sweep(_madam_log, lr=eta, step=step, levels=levels)
    runs = train(opt, data, settings["deep"], seeds, settings)
    found = []
    for i in range(0, step.size, len(seeds)):
        mine = slice(i, i + len(seeds))
        pairs = [exponents(runs, name, mine, step[i]) for name in runs.first]
        before, after = (np.concatenate(k) for k in zip(*pairs, strict=True))
        before, now = np.clip(np.round(before), 0, levels[i] - 1), np.round(after)
        found.append(
            {
                "bits": int(np.log2(levels[i])),
                "floor": bool(floor[i]),
                "accuracy": short(runs.accuracy[mine]),
                "off": short(np.abs(after - now).max()),
                "levels": len(np.unique(now)),
                "range": [int(now.min()), int(now.max())],
                "moved": short(np.mean(now != before)),
                "flips": int(runs.flips[mine].sum()),
            }
        )
    return found


def exponents(runs: Runs, name: str, mine: slice, step: float) -> tuple[np.ndarray, np.ndarray]:
    """How many base steps the first and the last weights are below the largest magnitude."""
    first, last = (p[name][mine].astype(np.float64) for p in (runs.first, runs.last))
    top = 3.0 * np.sqrt(np.mean(first**2, axis=tuple(range(1, first.ndim)), keepdims=True))
    before, after = (np.ravel(np.log(top / np.abs(p)) / step) for p in (first, last))
    return before, after
