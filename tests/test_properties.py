"""Properties of every rule, over hyperparameters drawn from the ranges of its signature."""

import numpy as np
import pytest
from conftest import sums
from hypothesis import given, settings
from hypothesis import strategies as st

import arrayopt as ao

CLOSE = {"rtol": 1e-11, "atol": 1e-13}


def values(hyper):
    """A strategy for the legal values of one hyperparameter, tamed to what is sensible."""
    if isinstance(hyper.legal, tuple):
        return st.sampled_from(hyper.legal)
    low, high = hyper.legal.bounds
    low, high = max(low, 1e-3), min(high, 0.99)
    numbers = st.floats(low, high)
    return st.none() | numbers if hyper.optional else numbers


@st.composite
def optimizers(draw, rule):
    known = ao.hyperparameters(ao.rules.find(rule))
    hyper = {k: draw(values(h)) for k, h in known.items() if draw(st.booleans())}
    if rule.startswith("maxva"):
        hyper |= {"b_lo": 0.3, "b_hi": draw(st.floats(0.4, 0.999))}
    if rule == "mada":
        hyper |= {"b2": draw(st.floats(0.501, 0.99)), "b1": draw(st.floats(0.01, 0.99))}
    for name in ("eps", "eps_root", "delta"):
        if name in hyper:
            hyper[name] = min(hyper[name], 1e-3)
    decay = draw(st.sampled_from(["coupled", "decoupled", "independent"]))
    weight_decay = draw(st.sampled_from([0.0, 0.1]))
    return ao.Optimizer(rule, decay=decay, weight_decay=weight_decay, **hyper)


def walk(opt, p, grads):
    s = opt.init(p)
    for g in grads:
        p, s = opt.step(p, g, s)
    return p, s


def problem(seed, steps=5, n=12):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(n), list(rng.standard_normal((steps, n)))


FEW = settings(max_examples=15, deadline=None)


@pytest.mark.usefixtures("elementwise")
@given(data=st.data(), seed=st.integers(0, 99))
@FEW
def test_permutation(rule, data, seed):
    opt = data.draw(optimizers(rule))
    p, grads = problem(seed)
    order = np.random.default_rng(seed).permutation(len(p))
    a, _ = walk(opt, p, grads)
    b, _ = walk(opt, p[order], [g[order] for g in grads])
    if sums(rule) or rule == "madam":  # they sum over elements, in another order now
        np.testing.assert_allclose(a[order], b, rtol=1e-6, atol=1e-9)
    else:
        np.testing.assert_array_equal(a[order], b)


@pytest.mark.usefixtures("elementwise")
@given(data=st.data(), seed=st.integers(0, 99))
@FEW
def test_shape(rule, data, seed):
    opt = data.draw(optimizers(rule))
    p, grads = problem(seed)
    a, _ = walk(opt, p, grads)
    b, _ = walk(opt, p.reshape(3, 4), [g.reshape(3, 4) for g in grads])
    np.testing.assert_array_equal(a.reshape(3, 4), b)


@pytest.mark.usefixtures("elementwise")
@given(data=st.data(), seed=st.integers(0, 99))
@FEW
def test_sign_symmetry(rule, data, seed):
    opt = data.draw(optimizers(rule))
    if rule == "yogi":  # its first moment starts at a positive number
        opt = ao.Optimizer(rule, **(opt.options() | {"initial_accumulator": 0.0}))
    p, grads = problem(seed)
    a, _ = walk(opt, p, grads)
    b, _ = walk(opt, -p, [-g for g in grads])
    np.testing.assert_array_equal(a, -b)


@pytest.mark.usefixtures("elementwise")
@given(data=st.data(), seed=st.integers(0, 99))
@FEW
def test_splitting_a_parameter_changes_nothing_elementwise(rule, data, seed):
    shared = hasattr(ao.rules.find(rule), "share")
    if rule == "madam" or (sums(rule) and not shared):
        pytest.skip("it has numbers that are one for a parameter")
    opt = data.draw(optimizers(rule))
    p, grads = problem(seed)
    a, _ = walk(opt, p, grads)
    b, _ = walk(opt, [p[:5], p[5:]], [[g[:5], g[5:]] for g in grads])
    if shared:
        np.testing.assert_allclose(a, np.concatenate(b), rtol=1e-6, atol=1e-9)
    else:
        np.testing.assert_array_equal(a, np.concatenate(b))


@pytest.mark.usefixtures("elementwise")
@given(data=st.data(), seed=st.integers(0, 99))
@FEW
def test_no_dtype_drift(rule, data, seed):
    opt = data.draw(optimizers(rule))
    p, grads = problem(seed)
    for dtype in (np.float16, np.float32, np.float64):
        q, s = walk(opt, p.astype(dtype), [g.astype(dtype) for g in grads[:2]])
        assert q.dtype == dtype
        slots = [x for x in s.slots if not isinstance(x, tuple)]
        assert {x.dtype for x in slots} <= {np.result_type(dtype, np.float32)}


@pytest.mark.usefixtures("elementwise")
@given(data=st.data(), seed=st.integers(0, 99))
@FEW
def test_lr_0_moves_nothing(rule, data, seed):
    opt = data.draw(optimizers(rule))
    if opt.around.decay == "coupled":
        opt = ao.Optimizer(rule, **(opt.options() | {"decay": "independent"}))
    p, grads = problem(seed)
    s = opt.init(p)
    q, _ = opt.step(p, grads[0], s, lr=0.0)
    np.testing.assert_array_equal(p, q)


@given(
    seed=st.integers(0, 99),
    lr=st.floats(1e-4, 0.1),
    b1=st.floats(0, 0.99),
    b2=st.floats(0.1, 0.9999),
    eps=st.floats(1e-12, 1e-3),
)
@FEW
@pytest.mark.parametrize(("rule", "corner"), [("maxva_madam", "adam"), ("maxva_lamadam", "laprop")])
def test_b_lo_equal_to_b_hi_is_adam(rule, corner, seed, lr, b1, b2, eps):
    p, grads = problem(seed, steps=20)
    a, _ = walk(ao.Optimizer(rule, lr=lr, b1=b1, b_lo=b2, b_hi=b2, eps=eps), p, grads)
    b, _ = walk(ao.Optimizer(corner, lr=lr, b1=b1, b2=b2, eps=eps), p, grads)
    np.testing.assert_allclose(a, b, **CLOSE)
