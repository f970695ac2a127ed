"""The two transformers are one, and the rules train them alike."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import adapter, package

from arrayopt.reproduce import _transformer as model
from arrayopt.reproduce import transformer

FILE = Path(__file__).parent.parent / "docs" / "reproduce" / "transformer.json"
RECORDED = json.loads(FILE.read_text())


def norm(x, scale):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * scale


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def loss(w, batch):
    """One text, one head and one character at a time, in float64."""
    total = []
    for tokens in batch:
        h = w["embed"][tokens[:-1]] + w["place"]
        for k in range(2):
            x = norm(h, w[f"{k}.norm_a"]) @ w[f"{k}.qkv"]
            d, heads = h.shape[1], []
            for j in range(4):
                q, key, v = (x[:, d * s :][:, d // 4 * j : d // 4 * (j + 1)] for s in range(3))
                rows = [
                    softmax(q[i] @ key[: i + 1].T / np.sqrt(d / 4)) @ v[: i + 1]
                    for i in range(len(q))
                ]
                heads.append(np.array(rows))
            h = h + np.concatenate(heads, axis=1) @ w[f"{k}.out"]
            x = norm(h, w[f"{k}.norm_b"]) @ w[f"{k}.up"]
            x = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
            h = h + x @ w[f"{k}.down"]
        p = softmax(norm(h, w["norm"]) @ w["unembed"])
        total += [-np.log(p[i, t]) for i, t in enumerate(tokens[1:])]
    return np.mean(total)


@pytest.fixture(scope="module")
def small():
    w = model.weights(letters=11, context=6, width=8, layers=2, seed=3)
    return w, model.batches(np.arange(50) % 11, steps=3, size=2, context=6, seed=3)


def test_both_are_the_formula(small):
    torch, jax = package("torch"), package("jax")
    w, batches = small
    ours = loss(w, batches[0])
    there = {k: torch.tensor(x, requires_grad=True) for k, x in w.items()}
    theirs = model.torch_loss(there, torch.tensor(batches[0]))
    theirs.backward()
    with jax.enable_x64(True):
        differentiate = jax.jit(jax.value_and_grad(model.jax_loss))
        value, grads = differentiate({k: jax.numpy.array(x) for k, x in w.items()}, batches[0])
    assert theirs.item() == pytest.approx(ours, rel=1e-13)
    assert float(value) == pytest.approx(ours, rel=1e-13)
    for k, x in there.items():
        scale = np.abs(grads[k]).max()
        np.testing.assert_allclose(x.grad.numpy(), grads[k], rtol=0, atol=1e-12 * scale)


def test_a_run_is_adamax_written_out(small):
    torch = package("torch")
    adapter("torch")
    start, batches = small
    losses, end = transformer.torch_run("adamax", 0.01, start, batches, "float64")
    w = {k: torch.tensor(x, requires_grad=True) for k, x in start.items()}
    m, u = dict.fromkeys(w, 0.0), dict.fromkeys(w, 0.0)
    for t, batch in enumerate(torch.tensor(batches), start=1):
        assert losses[t - 1] == pytest.approx(loss({k: x.detach().numpy() for k, x in w.items()},
                                                   batch.numpy()), rel=1e-12)  # fmt: skip
        grads = torch.autograd.grad(model.torch_loss(w, batch), [*w.values()])
        for k, g in zip(w, grads, strict=True):
            m[k], u[k] = 0.9 * m[k] + 0.1 * g, (0.999 * u[k] + 0 * g).maximum(abs(g))
            w[k] = (w[k] - 0.01 / (1 - 0.9**t) * m[k] / (u[k] + 1e-8)).detach().requires_grad_()
    for k, x in w.items():
        np.testing.assert_allclose(end[k], x.detach(), rtol=0, atol=1e-12)


def test_the_text():
    text = model.text()
    if text.source == RECORDED["text"]:
        sizes = RECORDED["characters"], RECORDED["letters"]
        assert (len(text.tokens), len(text.letters)) == sizes
    batches = model.batches(text.tokens, 7, 3, 20, seed=0)
    assert batches.shape == (7, 3, 21)
    whole = "".join(text.letters[i] for i in text.tokens)
    assert all("".join(text.letters[i] for i in row) in whole for row in batches[0])


def test_losses_begin_as_recorded():
    """The first of Adamax, in torch's float64, if this is the text."""
    package("torch")
    text, start, batches = transformer.given(transformer.SETTINGS, RECORDED["seed"])
    if text.source != RECORDED["text"]:
        pytest.skip(f"the record is of the text in {RECORDED['text']}")
    kept = [k for k in RECORDED["kept"] if k <= 20]
    rate = transformer.SETTINGS["rates"]["adamax"]
    losses, _ = transformer.torch_run("adamax", rate, start, batches[:21], "float64")
    for recorded in RECORDED["rules"]["adamax"]["losses"].values():
        np.testing.assert_allclose(losses[kept], recorded[: len(kept)], rtol=1e-4)


@pytest.mark.parametrize("rule", transformer.SETTINGS["rates"])
def test_what_was_recorded(rule):
    """The frameworks differ by no more than precisions do, and in float64 by its rounding."""
    of = RECORDED["rules"][rule]
    losses, pairs = of["losses"]["torch float32"], of["pairs"]
    assert losses[-1] < losses[0] - 1.5
    for pair in pairs.values():
        assert np.all(np.diff(pair["apart"]) >= 0)
        assert pair["apart"][-1] <= pair["loss"]
    between = pairs["torch and jax, float32"]
    within = [pairs[f"{name}, float32 and float64"] for name in ("torch", "jax")]
    assert between["loss"] <= 3 * max(x["loss"] for x in within)
    assert between["weights"] <= 3 * max(x["weights"] for x in within)
    wide = pairs["torch and jax, float64"]
    assert wide["loss"] < 1e-3 * between["loss"]
