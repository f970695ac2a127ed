"""Rules inside wrappers: what the comparisons of oracles_wrappers.py do not say.

That a wrapped rule is a rule, on every library and in every class, is in test_every_rule.py.
"""

import os
import pickle
import re
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from conftest import package

import arrayopt as ao
from arrayopt._wrapped import wrapped
from arrayopt.backends.numpy import InPlace


class Mine:
    """A rule of a user's own."""

    class State(NamedTuple):
        """Nothing is kept."""

    @staticmethod
    def init(param, *, xp):
        return Mine.State()

    @staticmethod
    def update(param, grad, state, t, *, lr: ao.Rate = 0.1, xp):
        return param - lr * grad, state


def steps(opt, params, grads):
    state = opt.init(params)
    for g in grads:
        params, state = opt.step(params, g, state)
    return params, state


def random(n, size=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(size), list(rng.standard_normal((n, size)))


def test_a_wrapped_rule_has_the_hyperparameters_and_slots_of_both():
    rule = ao.rules.find("adam+clip_by_global_norm+ema")
    assert rule is ao.rules.find("adam+clip_by_global_norm+ema")
    assert rule.State._fields == ("m", "v", "ema")
    own = set(ao.hyperparameters(ao.adam))
    assert set(ao.hyperparameters(rule)) == own | {"clip_norm", "clip_eps", "ema_decay"}
    assert ao.hyperparameters(rule)["clip_norm"].legal.text == "(0, inf)"
    assert "Kingma" in rule.__doc__
    assert "Pascanu" in rule.__doc__


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("adam+emma", r"no wrapper is named 'emma'; did you mean ema\? The wrappers: "),
        ("adma+ema", r"no rule is named 'adma'; did you mean"),
        ("adam+", "no wrapper is named ''"),
    ],
)
def test_unknown_names(name, text):
    with pytest.raises(ValueError, match=text):
        ao.Optimizer(name)
    assert ao.rules.known(name) is None


@pytest.mark.parametrize("rule", ["adam+accumulate+ema", "mada+ema"])
def test_hyperparameters_have_one_order_in_every_process(rule):
    """The rule's own, and then the wrappers'; a set of names would have another in each."""
    text = f"import arrayopt as ao; print(*ao.hyperparameters({rule!r}), ao.Optimizer({rule!r}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", text], env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in "123"
    }  # fmt: skip
    (one,) = found
    inner, *around = rule.split("+")
    own = [k for w in around for k in ao.hyperparameters(f"sgd+{w}") if k not in SGD]
    names = [*ao.hyperparameters(inner), *own]
    assert one.startswith(" ".join((*names, f"Optimizer({rule!r}, {names[0]}="))), one
    assert re.findall(r"(\w+)=", one)[: len(names)] == names


SGD = ao.hyperparameters("sgd")


def test_no_two_parts_have_a_name_in_common():
    with pytest.raises(
        TypeError, match=r"adam\+ema\+ema: two parts of it have hyperparameters ema_"
    ):
        ao.Optimizer("adam+ema+ema")
    with pytest.raises(TypeError, match=r"master\+master: two parts of it have slots master"):
        ao.Optimizer("adam+master+master")
    for rule in ao.rules.names():
        for wrapper in ao.wrappers.names():
            ao.rules.find(f"{rule}+{wrapper}")  # raises where they have


def test_a_rule_of_ones_own_can_be_wrapped_and_pickled():
    rule = wrapped(Mine, "ema")
    p, g = random(3)
    params, state = steps(ao.Optimizer(rule, lr=0.5), p, g)
    np.testing.assert_array_equal(params, p - 0.5 * g[0] - 0.5 * g[1] - 0.5 * g[2])
    assert ao.rules.find("adam+ema") is pickle.loads(pickle.dumps(ao.rules.find("adam+ema")))
    assert type(pickle.loads(pickle.dumps(steps(ao.Optimizer("adam+ema"), p, g)[1].slots))) is (
        ao.rules.find("adam+ema").State
    )
    assert state.slots._fields == ("ema",)


def test_what_stands_further_right_is_further_outside():
    p, g = random(8)
    options = {"lr": 0.1, "accumulate_steps": 4, "ema_decay": 0.5}
    inside, a = steps(ao.Optimizer("adam+ema+accumulate", **options), p, g)
    outside, b = steps(ao.Optimizer("adam+accumulate+ema", **options), p, g)
    np.testing.assert_array_equal(inside, outside)
    first, _ = steps(ao.Optimizer("adam", lr=0.1), p, [sum(g[:4]) / 4])
    twice = 0.5 * (0.5 * p + 0.5 * first) + 0.5 * inside  # once for each step of adam's
    np.testing.assert_allclose(a.slots.ema, twice, rtol=1e-14)
    eight = p  # once for each gradient
    for at in [p] * 3 + [first] * 4 + [inside]:
        eight = 0.5 * eight + 0.5 * at
    np.testing.assert_allclose(b.slots.ema, eight, rtol=1e-14)


def test_nothing_decays_where_the_rule_makes_no_step():
    p, g = random(3)
    for decay in ("coupled", "decoupled", "independent"):
        opt = ao.Optimizer("adam+accumulate", accumulate_steps=4, weight_decay=0.5, decay=decay)
        params, state = steps(opt, p, g)
        np.testing.assert_array_equal(params, p)
        np.testing.assert_array_equal(state.slots.m, np.zeros(5))


def test_skipped_steps_are_counted_and_change_nothing():
    p, g = random(6)
    g = [g[0], g[1] * np.nan, g[2], np.array([np.inf, 0, 0, 0, 0]), g[4] * np.nan, g[5]]
    for engine in ("fused", "blocks", "eager"):
        mine = p.copy()
        opt = InPlace(mine, "mada+skip_nonfinite", engine=engine, weight_decay=0.1)
        for one in g:
            opt.step(one)
        want, state = steps(ao.Optimizer("mada", weight_decay=0.1), p, [g[0], g[2], g[5]])
        np.testing.assert_allclose(mine, want, rtol=1e-12)
        counts = opt.state.shared.wrapper
        assert (float(counts.skipped), float(counts.row)) == (3, 0)
        assert float(opt.state.shared.rule.value.b1) == pytest.approx(float(state.shared.value.b1))
        assert opt.state.step == 6


def test_after_so_many_skipped_steps_the_gradient_is_let_through():
    p, _ = random(0)
    bad = np.full(5, np.nan)
    opt = ao.Optimizer("adam+skip_nonfinite", skip_most=2)
    params, state = steps(opt, p, [bad, bad])
    np.testing.assert_array_equal(params, p)
    assert (float(state.shared.row), float(state.shared.skipped)) == (2, 2)
    params, state = opt.step(params, bad, state)
    assert np.isnan(params).all()
    assert (float(state.shared.row), float(state.shared.skipped)) == (3, 2)


def test_a_number_of_steps_is_whole():
    with pytest.raises(
        ValueError, match=r"skip_most must be in \[0, inf\], whole numbers, got 1.5"
    ):
        ao.Optimizer("adam+skip_nonfinite", skip_most=1.5)
    assert ao.Optimizer("adam+skip_nonfinite").hyper["skip_most"] == np.inf


def test_infinite_elements_become_0():
    p, _ = random(0)
    g = np.array([np.inf, -np.inf, np.nan, 1.0, -2.0])
    params, _ = steps(ao.Optimizer("sgd+zero_nonfinite", lr=1.0, momentum=0.0), p, [g])
    np.testing.assert_array_equal(p - params, np.array(p) - (p - [0, 0, 0, 1, -2]))


def test_the_norm_of_the_gradient_is_kept():
    p, g = random(1)
    _, state = steps(ao.Optimizer("adam+clip_by_global_norm", clip_norm=0.1), p, g)
    assert float(state.shared.norm) == pytest.approx(np.linalg.norm(g[0]), rel=1e-14)


@pytest.mark.parametrize("layout", ["in_out", "out_in"])
def test_units_of_adaptive_clipping_are_those_of_the_layout(layout):
    rng = np.random.default_rng(1)
    p, g = rng.standard_normal((3, 4)), 100 * rng.standard_normal((3, 4))
    options = {"lr": 1.0, "momentum": 0.0, "agc_clip": 0.01, "agc_layout": layout}
    params, _ = steps(ao.Optimizer("sgd+adaptive_clip", **options), p, [g])
    axis = 0 if layout == "in_out" else 1
    np.testing.assert_allclose(
        np.linalg.norm(p - params, axis=axis), 0.01 * np.linalg.norm(p, axis=axis), rtol=1e-13
    )


def test_adaptive_clipping_of_convolutions_is_that_of_optax():
    optax, jax = package("optax"), package("jax")
    rng = np.random.default_rng(2)
    p, g = rng.standard_normal((3, 3, 4, 5)), 10 * rng.standard_normal((3, 3, 4, 5))
    ours, _ = steps(ao.Optimizer("sgd+adaptive_clip", lr=1.0, momentum=0.0), p, [g])
    with jax.enable_x64(True):
        clip = optax.adaptive_grad_clip(0.01)
        want, _ = clip.update(jax.numpy.asarray(g), clip.init(p), jax.numpy.asarray(p))
    np.testing.assert_allclose(p - ours, want, rtol=1e-12)


def test_small_steps_are_not_lost_in_half_precision():
    p, g = np.ones(4, np.float16), [np.full(4, 1e-4, np.float16)] * 1000
    plain, _ = steps(ao.Optimizer("sgd", lr=1.0, momentum=0.0), p, g)
    np.testing.assert_array_equal(plain, p)  # 1 - 1e-4 is 1 in float16
    for wrapper in ("master", "kahan", "stochastic_rounding"):
        moved, _ = steps(ao.Optimizer(f"sgd+{wrapper}", lr=1.0, momentum=0.0), p, g)
        np.testing.assert_allclose(moved, 0.9, rtol=0.02 if "stoch" in wrapper else 1e-3)
