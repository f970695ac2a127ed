"""What parameters and state of fewer bits cost: the digits of ``arrayopt train``, many epochs.

``python benchmarks/precision.py`` prints the tables of docs/precision.md. Gradients are computed in
float32, at the parameters as they are: what differs is how parameters and slots are rounded.
"""

import argparse
from typing import Any, NamedTuple

import numpy as np

import arrayopt as ao
from arrayopt import mlp
from arrayopt._transfer import numpy_dtype
from arrayopt.backends.numpy import InPlace

LR = {"adam": 1e-3, "sgd": 0.1}


NARROW = ("bfloat16", "float16", "blocks8")


class Case(NamedTuple):
    """One row."""

    rule: str
    params: str = "float32"
    state: Any = None


CASES = (
    Case("adam"),
    *(Case("adam", state={"m": dtype}) for dtype in NARROW),
    *(Case("adam", state={"v": dtype}) for dtype in NARROW),
    *(Case("adam", state=dtype) for dtype in NARROW),
    Case("adam", "bfloat16"),
    Case("adam+master", "bfloat16"),
    Case("adam+kahan", "bfloat16"),
    Case("adam+kahan", "bfloat16", {"lost": "bfloat16"}),
    Case("adam+stochastic_rounding", "bfloat16"),
    Case("sgd"),
    Case("sgd", "bfloat16"),
    Case("sgd+master", "bfloat16"),
    Case("sgd+kahan", "bfloat16"),
    Case("sgd+kahan", "bfloat16", {"lost": "bfloat16"}),
    Case("sgd+stochastic_rounding", "bfloat16"),
)


def cast(tree: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    return {k: x.astype(numpy_dtype(dtype)) for k, x in tree.items()}


def start(seed: int) -> dict[str, np.ndarray]:
    """The same for all: numbers that bfloat16 holds."""
    return cast(cast(mlp.init(seed), "bfloat16"), "float32")


def train(case: Case, epochs: int, seed: int, data: mlp.Data) -> Any:
    """The parameters after the last epoch, in float32; bytes of parameters and state each."""
    params = cast(start(seed), case.params)
    rate = LR[case.rule.partition("+")[0]]
    opt = InPlace(params, case.rule, lr=rate, state_dtype=case.state, threads=1)
    for epoch in range(epochs):
        for rows in mlp.batches(len(data.x_train), 32, epoch, seed):
            x, y = data.x_train[rows], data.y_train[rows]
            _, grads = mlp.loss_and_grad(cast(params, "float32"), x, y, xp=np)
            opt.step(grads)
    kept = [params, *(s for s in opt.state.slots if s != ())]
    size = sum(x.nbytes for tree in kept for x in tree.values())
    return cast(params, "float32"), size / sum(x.size for x in params.values())


def rows(epochs: int, seed: int) -> None:
    """Print a line for each case."""
    data, exact = mlp.load(seed), {}
    for case in CASES:
        end, size = train(case, epochs, seed, data)
        loss, _ = mlp.loss_and_grad(end, data.x_train, data.y_train, xp=np)
        right = mlp.accuracy(end, data.x_test, data.y_test, xp=np)
        best = exact.setdefault(case.rule.partition("+")[0], end)  # its first row is in float32
        off, way = (
            np.sqrt(sum(np.sum((best[k] - x[k]) ** 2.0) for k in best)) for x in (end, start(seed))
        )
        state = case.state or "float32"
        of = state.items() if isinstance(state, dict) else ()
        named = ", ".join(f"`{k}` {v}" for k, v in of) or state
        print(
            f"| `{case.rule}` | {case.params} | {named} | {size:.0f} | {loss:.2g} "
            f"| {100 * right:.1f} % | {off / way:.2g} |",
            flush=True,
        )


def second_moment(b2: float, steps: int) -> list[str]:
    """Adam's v under gradients of 1, and then of 0.5, for so many steps each."""
    lines = []
    for dtype in ("float32", "bfloat16", "float16"):
        opt = ao.Optimizer("adam", b2=b2, lr=0.0, state_dtype={"v": dtype})
        params = np.ones(1, np.float32)
        state, seen = opt.init(params), []
        for g in (1.0, 0.5):
            for _ in range(steps):
                _, state = opt.step(params, np.full(1, g, np.float32), state)
            seen.append(float(state.slots.v[0]))
        lines.append(f"| {b2:g} | {dtype} | {seen[0]:.3g} | {seen[1]:.3g} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10_000)
    given = parser.parse_args()
    print("| rule | parameters | state | bytes | loss | test | distance |")
    print("|---|---|---|---|---|---|---|")
    rows(given.epochs, given.seed)
    print("\n| `b2` | `v` | after gradients of 1 | then of 0.5 |\n|---|---|---|---|")
    for b2 in (0.9, 0.99, 0.999):
        print("\n".join(second_moment(b2, given.steps)))


if __name__ == "__main__":
    main()
