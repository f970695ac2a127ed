"""Rules of whole matrices where their oracles do not look: bfloat16, in place, rounding."""

import numpy as np
import pytest

import arrayopt as ao
from arrayopt.backends.numpy import InPlace


def test_bfloat16_is_near_torchs_own():
    torch = pytest.importorskip("torch")
    rng = torch.Generator().manual_seed(0)
    ours = theirs = torch.zeros(24, 40)
    param = torch.nn.Parameter(theirs.clone())
    own = torch.optim.Muon([param], lr=1.0, weight_decay=0.0)
    runs = {}
    grads = [torch.randn(24, 40, generator=rng) for _ in range(3)]
    for bfloat16 in (False, True):
        opt = ao.Optimizer("muon", lr=1.0, bfloat16=bfloat16)
        ours, state = torch.zeros(24, 40), None
        for g in grads:
            ours, state = opt.step(ours, g, state or opt.init(ours))
            assert ours.dtype == torch.float32
        runs[bfloat16] = ours
    for g in grads:
        param.grad = g.clone()
        own.step()
    theirs = param.detach()
    size = theirs.norm()
    assert 0.003 < (runs[False] - theirs).norm() / size < 0.03
    assert 0.003 < (runs[True] - theirs).norm() / size < 0.06
    assert 0.003 < (runs[True] - runs[False]).norm() / size < 0.06


def test_bfloat16_where_there_is_none():
    opt = ao.Optimizer("muon", bfloat16=True)
    x = np.ones((2, 3))
    with pytest.raises(TypeError, match="numpy has no such dtype"):
        opt.step(x, x, opt.init(x))


def test_ns_steps_is_a_whole_number():
    text = r"muon: ns_steps must be in \[0, inf\), whole numbers, got 2\.5"
    with pytest.raises(ValueError, match=text):
        ao.Optimizer("muon", ns_steps=2.5)


MATRIX_RULES = ["adafactor", "muon", "shampoo", "sm3", "soap"]


@pytest.mark.parametrize("rule", MATRIX_RULES)
@pytest.mark.parametrize("engine", [None, "eager"])
def test_in_place_is_the_step(rule, engine):
    rng = np.random.default_rng(0)
    shapes = {"w": (30, 31), "c": (4, 3, 2), "b": (5,), "s": ()}
    params = {k: np.asarray(rng.standard_normal(s)) for k, s in shapes.items()}
    opt = ao.Optimizer(rule)
    state, want = opt.init(params), params
    mine = {k: p.copy() for k, p in params.items()}
    there = InPlace(mine, rule, engine=engine)
    for _ in range(3):
        grads = {k: np.asarray(rng.standard_normal(s)) for k, s in shapes.items()}
        want, state = opt.step(want, grads, state)
        there.step(grads)
    for k in params:
        np.testing.assert_array_equal(mine[k], want[k])


@pytest.mark.parametrize("rule", MATRIX_RULES)
def test_not_in_pieces(rule):
    x = np.ones((3, 2))
    with pytest.raises(TypeError, match=f"{rule}: no engine 'blocks': the rule works on whole"):
        InPlace(x, rule, engine="blocks").step(x.copy())


def test_shampoos_root_of_rounding():
    """A sum of few products has eigenvalues of 0: with eps far below the rounding of the largest,
    what is computed of them must not decide the step."""
    rng = np.random.default_rng(0)
    grads = [np.exp(2 * rng.standard_normal()) * rng.standard_normal(50) for _ in range(20)]
    ends = {}
    for dtype in (np.float32, np.float64):
        opt, p = ao.Optimizer("shampoo", lr=1.0), np.zeros(50, dtype)
        state = opt.init(p)
        for g in grads:
            p, state = opt.step(p, g.astype(dtype), state)
        ends[dtype] = p
    far = np.linalg.norm(ends[np.float32] - ends[np.float64]) / np.linalg.norm(ends[np.float64])
    assert far < 0.01
