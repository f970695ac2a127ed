"""Train the network of :mod:`arrayopt.mlp` on handwritten digits: any rule, any backend."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import backends, mlp
from ._namespace import namespace
from ._schema import each_step, hyperparameters
from .optimizer import Optimizer


class Epoch(NamedTuple):
    """What one epoch came to."""

    epoch: int
    loss: float  # mean over the training batches
    accuracy: float  # on the test set, in [0, 1]
    seconds: float  # since the start of the training


def train(
    rule: str,
    backend: str = "numpy",
    *,
    epochs: int = 100,
    batch: int = 64,
    seed: int = 0,
    **hyper: Any,
) -> Iterator[Epoch]:
    """One :class:`Epoch` after another, in float32.

    The learning rate, the rule's default unless given, falls linearly to 0. A run is fixed by its
    seed: data, first weights and batches are the same on every backend.
    """
    library = backends.load(backend)
    data = mlp.load(seed)
    total = epochs * (len(data.x_train) // batch)
    rate = hyper.pop("lr", hyperparameters(Optimizer(rule).rule)["lr"].default)
    optimizer = Optimizer(rule, lr=lambda count: rate * (1 - count / total), **hyper)
    start = time.perf_counter()
    with library.session("float32"):
        params = {k: library.asarray(v) for k, v in mlp.init(seed).items()}
        state = library.settle(optimizer.init(params))
        xp = namespace(params["w0"])

        def step(params: Any, state: Any, x: Any, y: Any) -> Any:
            loss, grads = mlp.loss_and_grad(params, x, y, xp=xp)
            each = dict.fromkeys(each_step(optimizer.rule), loss)
            return loss, *optimizer.step(params, grads, state, **each)

        step = library.compiled(step)
        test = [library.asarray(x) for x in (data.x_test, data.y_test)]
        for epoch in range(1, epochs + 1):
            losses = []
            for index in mlp.batches(len(data.x_train), batch, epoch, seed):
                x, y = library.asarray(data.x_train[index]), library.asarray(data.y_train[index])
                loss, params, state = library.settle(step(params, state, x, y))
                losses.append(loss)
            mean = sum(float(library.asnumpy(x)) for x in losses) / len(losses)
            accuracy = float(library.asnumpy(mlp.accuracy(params, *test, xp=xp)))
            yield Epoch(epoch, mean, accuracy, time.perf_counter() - start)
