"""One transformer in torch and in JAX: the six rules train both along the same curve.

A character-level transformer (``_transformer.py``) is written in each framework's own functions
and trained from the same weights on the same batches: in torch by the classes of
``arrayopt.backends.torch``, in JAX by ``arrayopt.backends.jax.step``. No paper has this experiment;
what is claimed here is that a rule is the same rule in every framework. So each run is repeated in
float64, and the two frameworks should differ no more than one framework's two precisions do.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import Optimizer, rules
from . import Row, Tell
from . import _transformer as model
from ._record import short

SETTINGS: dict[str, Any] = {
    "rates": {  # not tuned: near what the rules' papers use, larger as the runs are short
        "madam": 0.01,
        "mada": 3e-3,
        "maxva_madam": 3e-3,
        "maxva_lamadam": 3e-3,
        "adamax": 5e-3,
        "simplified_ademamix": 3e-5,  # its steps grow to lr / (1 - b1), 100 times that
    },
    "steps": 400,
    "points": 100,  # of a curve
    "batch": 8,
    "context": 32,
    "width": 64,
    "layers": 2,
}
QUICK = {
    "rates": {"adamax": 5e-3},
    "steps": 5,
    "batch": 4,
    "context": 16,
    "width": 32,
    "layers": 1,
}
PAIRS = {  # what is compared
    "torch and jax, float32": ("torch float32", "jax float32"),
    "torch, float32 and float64": ("torch float32", "torch float64"),
    "jax, float32 and float64": ("jax float32", "jax float64"),
    "the same, the rule in NumPy": ("numpy float32", "jax float64"),
    "torch and jax, float64": ("torch float64", "jax float64"),
}
DRAWN = ("torch float32", "jax float32")
Losses = NDArray[np.float64]
Trained = tuple[Losses, model.Weights]


def run(settings: dict[str, Any], tell: Tell, *, seed: int) -> dict[str, Any]:
    text, start, batches = given(settings, seed)
    steps, rates = settings["steps"], settings["rates"]
    kept = range(0, steps, max(steps // settings["points"], 1))
    found: dict[str, Any] = {
        "text": text.source, "characters": len(text.tokens), "letters": len(text.letters),
        "weights": sum(x.size for x in start.values()), "kept": [*kept], "rules": {},
    }  # fmt: skip
    for i, (rule, lr) in enumerate(rates.items()):
        runs: dict[str, Trained] = {}
        for k, (name, (train, dtype)) in enumerate(RUNS.items()):
            tell((i + k / len(RUNS)) / len(rates), f"{rule}, {name}")
            runs[name] = train(rule, lr, start, batches, dtype)
        found["rules"][rule] = {
            "pairs": compared(runs, start, kept),
            "losses": {name: short(runs[name][0][kept]) for name in DRAWN},
        }
    return found


def given(
    settings: dict[str, Any], seed: int
) -> tuple[model.Text, model.Weights, NDArray[np.int64]]:
    """The text, the first weights and the batches of all runs."""
    text, context = model.text(), settings["context"]
    start = model.weights(len(text.letters), context, settings["width"], settings["layers"], seed)
    batches = model.batches(text.tokens, settings["steps"], settings["batch"], context, seed)
    return text, start, batches


def torch_run(
    rule: str, lr: float, start: model.Weights, batches: NDArray[np.int64], dtype: str
) -> Trained:
    """The loss before each step, and the weights after all."""
    import torch

    from ..backends import torch as backend

    params = {
        k: torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
        for k, x in start.items()
    }
    opt = backend.optimizer_class(rules.find(rule))([*params.values()], lr=lr)
    losses, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)  # arrays are so small that threads wait for each other
    try:
        for batch in torch.tensor(batches):
            opt.zero_grad()
            loss = model.torch_loss(params, batch)
            loss.backward()
            opt.step()
            losses.append(loss.item())
    finally:
        torch.set_num_threads(threads)
    return np.array(losses), {k: x.detach().numpy() for k, x in params.items()}


def jax_run(
    rule: str, lr: float, start: model.Weights, batches: NDArray[np.int64], dtype: str
) -> Trained:
    """The same in JAX, all compiled."""
    from ..backends import jax as backend

    with backend.session(dtype):
        params = {k: backend.asarray(x.astype(dtype)) for k, x in start.items()}
        opt, losses = Optimizer(rule, lr=lr), []
        state, advance = opt.init(params), backend.step(opt)
        for batch in batches:
            loss, grads = _jax_gradient()(params, batch)
            params, state = advance(params, grads, state)
            losses.append(float(loss))
        return np.array(losses), {k: np.array(x) for k, x in params.items()}


def numpy_run(
    rule: str, lr: float, start: model.Weights, batches: NDArray[np.int64], dtype: str
) -> Trained:
    """The same with JAX's gradients, but the rule as it is written, on NumPy arrays."""
    from ..backends import jax as backend

    with backend.session(dtype):
        params = {k: x.astype(dtype) for k, x in start.items()}
        opt, losses = Optimizer(rule, lr=lr), []
        state = opt.init(params)
        for batch in batches:
            loss, grads = _jax_gradient()(params, batch)
            params, state = opt.step(params, {k: np.asarray(g) for k, g in grads.items()}, state)
            losses.append(float(loss))
        return np.array(losses), params


@functools.cache
def _jax_gradient() -> Any:
    """Loss and gradients, compiled once for all rules."""
    import jax

    return jax.jit(jax.value_and_grad(model.jax_loss))


RUNS: dict[str, tuple[Callable[..., Trained], str]] = {
    "torch float32": (torch_run, "float32"),
    "torch float64": (torch_run, "float64"),
    "jax float32": (jax_run, "float32"),
    "jax float64": (jax_run, "float64"),
    "numpy float32": (numpy_run, "float32"),
}


def compared(runs: dict[str, Trained], start: model.Weights, kept: range) -> dict[str, Any]:
    """For each pair the largest difference of the losses up to each step of ``kept`` and of all,
    and the norm of the difference of the weights at the end, in units of how far they went.
    """
    first = flat(start)
    way = float(np.linalg.norm(flat(runs["torch float64"][1]) - first))
    found = {}
    for name, (a, b) in PAIRS.items():
        apart = np.maximum.accumulate(np.abs(runs[a][0] - runs[b][0]))
        ends = flat(runs[a][1]), flat(runs[b][1])
        found[name] = {
            "loss": short(apart[-1]),
            "weights": short(np.linalg.norm(ends[0] - ends[1]) / way),
            "apart": short(apart[kept]),
        }
    return found


def flat(weights: model.Weights) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(weights[k], np.float64).ravel() for k in sorted(weights)])


def table(numbers: dict[str, Any]) -> list[Row]:
    rows = []
    for rule, of in numbers["rules"].items():
        first, last = (of["losses"][DRAWN[0]][i] for i in (0, -1))
        lr = numbers["settings"]["rates"][rule]
        rows.append(Row(f"{rule}, lr {lr:g}: loss", "-", f"{first:.3f} to {last:.3f}"))
        for name, pair in of["pairs"].items():
            here = f"losses {pair['loss']:.1e}, weights {pair['weights']:.1e}"
            rows.append(Row(name, "-", here))
    return rows


def draw(numbers: dict[str, Any], figure: Any) -> None:
    figure.set_size_inches(9.5, 9)
    steps, panels = numbers["kept"], figure.subplots(4, 3, sharex=True)
    colors = ("#000000", "#E69F00", "#0072B2", "#CC79A7", "#009E73")
    for k, (rule, of) in enumerate(numbers["rules"].items()):
        above, below = panels[k // 3 * 2][k % 3], panels[k // 3 * 2 + 1][k % 3]
        for name, label, color, width in zip(
            DRAWN, ("torch", "JAX"), ("#E69F00", "#0072B2"), (3.5, 1), strict=True
        ):
            above.plot(steps, of["losses"][name], color=color, linewidth=width, label=label)
        lr = numbers["settings"]["rates"][rule]
        above.set(title=f"{rule}, lr {lr:g}", ylim=(1.8, 5.2))
        for (name, pair), color in zip(of["pairs"].items(), colors, strict=True):
            apart = np.maximum(pair["apart"], 1e-16)
            below.semilogy(steps, apart, color=color, linewidth=1.2, label=name)
        below.set(ylim=(1e-16, 1e-1))
        for axes in (above, below):
            axes.grid(alpha=0.3)
    for above, below in zip(panels[0::2], panels[1::2], strict=True):
        above[0].set_ylabel("loss in nats,\nfloat32")
        below[0].set_ylabel("largest difference\nof losses so far")
    panels[0][0].legend(fontsize=8)
    panels[1][0].legend(fontsize=7, loc="center", bbox_to_anchor=(0.5, 0.38))
    for axes in panels[-1]:
        axes.set_xlabel("step")
