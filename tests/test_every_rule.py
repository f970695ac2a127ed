"""What the library promises of every rule, also of one that is dropped into its folder.

One small problem: parameters of two, one and no axes, whose first gradients are partly 0. What a
rule cannot promise by its nature is told by a property of it: ``ELEMENTWISE``, ``measure``,
``PARITY_EPS``, a slot that is off, or a hyperparameter that only ``init`` reads. The exhaustive
tests of the machinery are elsewhere and run over ``conftest.REPRESENTATIVE``.
"""

import functools
import inspect
import json
import math
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optree
import pytest
from conftest import REPRESENTATIVE, adapter, package

import arrayopt as ao
from arrayopt import parity
from arrayopt._schema import each_step
from arrayopt._step import is_elementwise, is_off
from arrayopt.backends.numpy import InPlace

ROOT = Path(__file__).parent.parent
SHAPES = {"w": (4, 3), "b": (5,), "s": ()}
STEPS = 6
Run = list[tuple[Any, ao.State]]  # parameters and state after each step


WRAPPED = (  # every wrapper in one of them
    "adam+clip_by_global_norm+skip_nonfinite+accumulate+ema",
    "lamb+clip_by_norm+cautious+lookahead",
    "adamax+centralize+adaptive_clip+swa",
    "maxva_madam+loss_scale+zero_nonfinite+clip_by_value+diagnostics+master",
    "sgd+gradient_noise+kahan+dynamic_loss_scale",
    "sgd+stochastic_rounding",
)


@pytest.fixture(params=[*ao.rules.names(), *WRAPPED], scope="module")
def rule(request: pytest.FixtureRequest) -> str:
    """Every rule's name in turn, and some inside wrappers."""
    return str(request.param)


@functools.cache
def problem(dtype: str = "float32") -> tuple[Any, list[Any]]:
    """Read-only parameters and gradients; a row and a whole parameter have none at first."""
    rng = np.random.default_rng(5)
    params = {k: np.asarray(rng.uniform(0.5, 2, s)) for k, s in SHAPES.items()}
    params["w"][::2] *= -1
    grads = []
    for _ in range(STEPS):
        size = math.exp(rng.standard_normal())
        grads.append({k: np.asarray(size * rng.standard_normal(s)) for k, s in SHAPES.items()})
    grads[0]["w"][1] = 0.0
    grads[0]["b"][:] = 0.0
    found = optree.tree_map(lambda x: x.astype(parity.numpy_dtype(dtype)), (params, grads))
    for x in optree.tree_leaves(found):
        x.flags.writeable = False
    return found


def given(rule: str, k: int = 0) -> dict[str, Any]:
    """What step number ``k`` has to be told beside the gradients."""
    return dict.fromkeys(each_step(ao.rules.find(rule)), 2.0 + k % 3 / 4)


def walk(opt: ao.Optimizer, params: Any, grads: list[Any], state: Any = None) -> Run:
    found: Run = []
    state = opt.init(params) if state is None else state
    for k, g in enumerate(grads, int(state.step)):
        params, state = opt.step(params, g, state, **given(opt.name, k))
        found.append((params, state))
    return found


@functools.cache
def pure(rule: str, dtype: str = "float32") -> Run:
    """The run on NumPy that others are compared with; nobody changes it."""
    return walk(ao.Optimizer(rule), *problem(dtype))


def leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(x) for x in optree.tree_leaves(tree)]


def same(got: Any, want: Any) -> None:
    """Equal to the bit."""
    for a, b in zip(leaves(got), leaves(want), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)


def near(rule: str, name: str, got: Any, want: Any, scale: Any) -> None:
    """Parameters as near as ``arrayopt parity`` promises of a library; eps of the compute dtype."""
    unit, most = parity.bound(rule, name, STEPS)
    if unit == "ulp":
        same(got, want)
        return
    for a, b, c in zip(leaves(got), leaves(want), leaves(scale), strict=True):
        assert a.dtype == b.dtype
        eps = np.finfo(a.dtype).eps
        assert np.all(np.isfinite(a))
        assert most == np.inf or np.all(np.abs(a - b) <= most * eps * np.maximum(abs(b), abs(c)))


def class_of(rule: str) -> Any:
    """The rule's class for torch."""
    if rule in WRAPPED:
        return adapter("torch").optimizer_class(rule)
    (found,) = (c for c in adapter("torch").CLASSES.values() if c._form.core.name == rule)
    return found


def tensors(dtype: str = "float32") -> tuple[list[Any], list[list[Any]]]:
    torch = package("torch")

    def made(tree: Any) -> list[Any]:
        found = [torch.tensor(x.astype(np.float64)) for x in tree.values()]
        return [x.to(getattr(torch, dtype)) for x in found]

    params, grads = problem(dtype)
    return made(params), [made(g) for g in grads]


def trained(opt: Any, grads: list[list[Any]], start: int = 0) -> list[Any]:
    """Steps of a torch class; the parameters after them."""
    mine = [p for group in opt.param_groups for p in group["params"]]
    for k, g in enumerate(grads, start):
        for p, x in zip(mine, g, strict=True):
            p.grad = x.clone()
        opt.step(lambda k=k: 2.0 + k % 3 / 4)
    return [p.detach().clone() for p in mine]


def made(cls: Any, params: list[Any], **options: Any) -> Any:
    torch = package("torch")
    return cls([torch.nn.Parameter(p.clone()) for p in params], **options)


# --- what it is


def test_every_wrapper_is_around_a_rule() -> None:
    assert {w for rule in WRAPPED for w in rule.split("+")[1:]} == set(ao.wrappers.names())


def test_its_docstring_is_its_specification(rule: str) -> None:
    module = ao.rules.find(rule)
    text = inspect.getdoc(module)
    assert re.match(r"[A-Za-z][\w +-]*: \S.*\.\n\n", text)
    assert "\n.. math::\n" in text
    assert "https://" in text
    assert getattr(module, "DECAY", "decoupled") in ("coupled", "decoupled", "independent")


def test_it_has_a_class_of_its_own_name(rule: str) -> None:
    cls = class_of(rule)
    title = inspect.getdoc(ao.rules.find(rule)).partition(":")[0]
    assert cls.__name__ == re.sub(r"[\W_]", "", title)
    assert rule in WRAPPED or pickle.loads(pickle.dumps(cls)) is cls


def test_its_ranges_hold(rule: str) -> None:
    for name, hyper in ao.hyperparameters(ao.rules.find(rule)).items():
        wrong: list[Any] = [math.nan, "nonsense"]
        if not isinstance(hyper.legal, tuple):
            low, high = hyper.legal.bounds
            text = hyper.legal.text
            wrong += [] if math.isinf(low) else [low if text[0] == "(" else low - 1.0]
            wrong += [high if text[-1] == ")" else high + 1.0] if math.isfinite(high) else []
        for value in wrong:
            with pytest.raises(ValueError, match=f"^{re.escape(rule)}: {name} must be "):
                ao.Optimizer(rule, **{name: value})
    with pytest.raises(TypeError, match=f"{re.escape(rule)} .* has no hyperparameter 'nonsense'"):
        ao.Optimizer(rule, nonsense=1.0)


# --- its steps on NumPy


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_moves_and_keeps_shapes_and_dtypes(rule: str, dtype: str) -> None:
    params, _ = problem(dtype)
    opt = ao.Optimizer(rule)
    last, state = pure(rule, dtype)[-1]
    assert state.step == STEPS
    for k, p in last.items():
        assert (p.dtype, p.shape) == (dtype, params[k].shape)
        assert np.isfinite(p).all()
        # those that look for a rate of their own start with a tiny one
        assert dtype == "float32" or any(np.any(x[k] != params[k]) for x, _ in pure(rule, dtype))
    start = opt.init(params)
    for before, after in zip(start.slots, state.slots, strict=True):
        assert is_off(before) == is_off(after)
        for a, b in zip(leaves(before), leaves(after), strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert np.isfinite(b).all()
        for a, k in zip(leaves(before), sorted(params), strict=is_off(before) is False):
            assert not is_elementwise(opt.rule) or a.shape in ((), params[k].shape)
    assert all(np.isfinite(x).all() for x in leaves(state.shared))
    evaluated = opt.eval_params(last, state)
    assert all((a.dtype, a.shape) == (b.dtype, b.shape)
               for a, b in zip(leaves(evaluated), leaves(last), strict=True))  # fmt: skip
    assert hasattr(opt.rule, "evaluate") or evaluated is last


def test_it_forgets_nothing_and_depends_on_nothing_else(rule: str) -> None:
    params, grads = problem()
    opt = pickle.loads(pickle.dumps(ao.Optimizer(rule)))
    same(walk(opt, params, grads)[-1], pure(rule)[-1])
    half = pure(rule)[STEPS // 2 - 1]
    same(walk(opt, half[0], grads[STEPS // 2 :], half[1])[-1], pure(rule)[-1])


def test_half_precision_has_state_of_32_bits(rule: str) -> None:
    torch = package("torch")
    params, state = walk(ao.Optimizer(rule), *problem("float16"))[-1]
    assert {x.dtype for x in leaves(params)} == {np.dtype("float16")}
    assert {x.dtype for x in leaves(state.slots)} <= {np.dtype("float32")}
    assert all(np.isfinite(x).all() for x in leaves(params))
    package("ml_dtypes")
    values, grads = tensors("bfloat16")
    params, state = walk(ao.Optimizer(rule), values, grads)[-1]
    assert {x.dtype for x in params} == {torch.bfloat16}
    assert {x.dtype for x in optree.tree_leaves(state.slots)} <= {torch.float32}
    assert all(torch.isfinite(x).all() for x in params)


def test_a_nan_is_not_hidden(rule: str) -> None:
    if "nonfinite" in rule or "dynamic" in rule:
        pytest.skip("it is, that is what it is for")
    _, grads = problem()
    half, state = pure(rule)[2]
    bad = grads[3] | {"w": np.where(np.arange(12).reshape(4, 3) == 7, np.nan, grads[3]["w"])}
    try:
        after, _ = ao.Optimizer(rule).step(half, bad, state, **given(rule, 3))
    except np.linalg.LinAlgError:  # NumPy's answer where a matrix with NaN is decomposed
        assert not is_elementwise(ao.rules.find(rule))
    else:
        assert np.isnan(after["w"][2, 1])


def test_a_step_that_is_not_finite_can_be_skipped(rule: str) -> None:
    _, grads = problem()
    half, state = pure(rule)[2]
    bad = grads[3] | {"b": np.full_like(grads[3]["b"], np.inf)}
    opt = ao.Optimizer(rule, nonfinite="skip")
    same(opt.step(half, bad, state, **given(rule, 3)), (half, state))
    same(opt.step(half, grads[3], state, **given(rule, 3)), pure(rule)[3])
    opt = ao.Optimizer(rule, nonfinite="raise")
    with pytest.raises(
        FloatingPointError, match=f"{re.escape(rule)}: the gradient of .*b.* is not finite"
    ):
        opt.step(half, bad, state, **given(rule, 3))


def test_a_rate_of_0_moves_nothing(rule: str) -> None:
    hyper = ao.hyperparameters(ao.rules.find(rule)).get("lr")
    if hyper is None or hyper.start:
        pytest.skip("it has no rate, or reads it before the first step alone")
    params, grads = problem()
    for decay in ("decoupled", "independent"):
        opt = ao.Optimizer(rule, weight_decay=0.1, decay=decay)
        after, _ = opt.step(params, grads[1], opt.init(params), lr=0.0, **given(rule))
        same(after, params)


def test_maximize_is_the_step_of_the_negative_gradient(rule: str) -> None:
    params, grads = problem()
    up = walk(ao.Optimizer(rule, maximize=True), params, optree.tree_map(np.negative, grads))
    same(up[-1], pure(rule)[-1])


def test_every_way_to_decay(rule: str) -> None:
    params, grads = problem()
    ends = [pure(rule)[-1][0]]
    for decay in ("coupled", "decoupled", "independent"):
        ends.append(walk(ao.Optimizer(rule, weight_decay=0.3, decay=decay), params, grads)[-1][0])
        assert all(np.isfinite(x).all() for x in leaves(ends[-1]))
        assert any(np.any(ends[0][k] != ends[-1][k]) for k in params)
    masked = ao.Optimizer(rule, weight_decay=0.3, decay_mask=dict.fromkeys(params, False))
    same(walk(masked, params, grads)[-1], pure(rule)[-1])


def test_errors_name_it_and_the_parameter(rule: str) -> None:
    params, grads = problem()
    half, state = pure(rule)[2]
    before = optree.tree_map(np.array, (half, state))
    opt = ao.Optimizer(rule)
    for wrong, kind, text in (
        (np.ones((3, 4), np.float32), ValueError, r"must have shape \(4, 3\), got \(3, 4\)"),
        (np.ones((4, 3), np.int64), TypeError, "must be real floating"),
    ):
        with pytest.raises(kind, match=f"^{re.escape(rule)}: gradient of .*'w'.* {text}"):
            opt.step(half, grads[3] | {"w": wrong}, state, **given(rule))
    with pytest.raises(TypeError, match=f"^{re.escape(rule)}: .*'w'.* must be real floating"):
        opt.init(params | {"w": np.ones((4, 3), int)})
    for name in given(rule):
        with pytest.raises(TypeError, match=f"^{re.escape(rule)}: step needs {name}="):
            opt.step(half, grads[3], state)
    same((half, state), before)


# --- its steps elsewhere


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_gives_the_same_numbers_on_every_library(rule: str, dtype: str) -> None:
    if rule in REPRESENTATIVE:
        pytest.skip("test_parity.py has more steps of it")
    libraries = ["strict", "torch", "jax"]
    for name in libraries:
        adapter(name)
    for row in parity.run([rule], libraries, [dtype], 20):
        assert row.kept, row


@pytest.mark.parametrize("engine", [None, "fused", "blocks", "eager"])
def test_in_place_on_numpy(rule: str, engine: str | None) -> None:
    params, grads = problem()
    mine = optree.tree_map(np.array, params)
    if engine in ("fused", "blocks") and not is_elementwise(ao.rules.find(rule)):
        with pytest.raises(TypeError, match=f"{re.escape(rule)}: no engine '{engine}'"):
            InPlace(mine, rule, engine=engine).step(grads[0], **given(rule))
        return
    opt = InPlace(mine, rule, engine=engine, threads=2)
    for k, g in enumerate(grads):
        opt.step(g, **given(rule, k))
    near(rule, "numpy" if engine == "eager" else "torch", mine, pure(rule)[-1][0], params)
    assert opt.state.step == STEPS


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_its_torch_class_is_the_pure_step(rule: str, engine: str) -> None:
    values, grads = tensors()
    opt = made(class_of(rule), values, engine=engine)
    if engine == "fused" and not is_elementwise(ao.rules.find(rule)):
        with pytest.raises(RuntimeError, match=r"engine='fused' cannot move .* whole arrays"):
            trained(opt, grads)
        return
    got = trained(opt, grads)
    want, state = walk(ao.Optimizer(rule), values, grads)[-1]
    if engine == "fused":
        near(rule, "torch", got, want, values)
        return
    same(got, want)
    for name, slot in zip(state.slots._fields, state.slots, strict=True):
        for p, x in zip(opt.param_groups[0]["params"], slot, strict=is_off(slot) is False):
            same(opt.state[p][name], x)


def test_its_torch_class_goes_on_from_a_state_dict_and_a_pickle(rule: str) -> None:
    values, grads = tensors()
    cls = class_of(rule)
    want = trained(made(cls, values), grads)
    opt = made(cls, values)
    half = trained(opt, grads[:3])
    kept, whole = pickle.dumps(opt.state_dict()), pickle.dumps(opt)
    other = made(cls, half)
    other.load_state_dict(pickle.loads(kept))
    same(trained(other, grads[3:], 3), want)
    same(trained(pickle.loads(whole), grads[3:], 3), want)


def test_a_checkpoint_resumes_to_the_bit(rule: str, tmp_path: Path) -> None:
    _, grads = problem()
    half = pure(rule)[2]
    ao.save(tmp_path / "run", ao.Optimizer(rule), *half)
    opt, params, state = ao.load(tmp_path / "run", namespace="numpy")
    same((params, state), half)
    same(walk(opt, params, grads[3:], state)[-1], pure(rule)[-1])


def test_its_optax_transformation_is_the_step(rule: str) -> None:
    optax, jax = package("optax"), package("jax")
    params, grads = problem()
    tx = adapter("jax").transformation(rule)

    @jax.jit
    def step(params: Any, grad: Any, state: Any, **each: Any) -> Any:
        updates, state = tx.update(grad, state, params, **each)
        return optax.apply_updates(params, updates), state

    p, state = params, tx.init(params)
    for k, g in enumerate(grads):
        p, state = step(p, g, state, **given(rule, k))
    assert step._cache_size() <= 2  # the parameters were NumPy's at first
    largest = optree.tree_map(lambda *x: np.max(np.abs(x), axis=0), params,
                              *(p for p, _ in pure(rule)))  # fmt: skip
    near(rule, "jax", p, pure(rule)[-1][0], largest)


# --- a rule of the user's own


NEW = '''r"""Heavy Ball: gradient descent with momentum that sums.

.. math::

    m \\leftarrow \\beta_1 m + g, \\qquad p \\leftarrow p - \\eta\\, m

Polyak, 1964, https://doi.org/10.1016/0041-5553(64)90137-5
"""

from typing import NamedTuple

from .._types import Array, Decay, Rate


class State(NamedTuple):
    m: Array  # the sum, in units of g


def init(param, *, xp):
    return State(m=xp.zeros_like(param))


def update(param, grad, state, t, *, lr: Rate = 1e-3, b1: Decay = 0.9, xp):
    m = b1 * state.m + grad
    return param - lr * m, State(m)
'''


def test_a_file_dropped_into_the_folder_is_a_rule_everywhere(tmp_path: Path) -> None:
    """In a copy of the package: whatever runs beside this sees the rules that there are."""
    for folder in ("arrayopt", "backends", "tests"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "arrayopt" / "rules" / "heavy_ball.py").write_text(NEW)

    def run(*args: str) -> str:
        command = [sys.executable, "-m", *args]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    out = run("pytest", "-q", "-p", "no:cacheprovider", "tests/test_every_rule.py", "-k", "heavy_")
    assert int(re.findall(r"(\d+) passed", out)[0]) > 20
    assert "skipped" not in out
    assert "heavy_ball" in [r["rule"] for r in json.loads(run("arrayopt", "list", "--json"))]
    assert "gradient descent with momentum that sums" in run("arrayopt", "show", "heavy_ball")
    args = ("--rules", "heavy_ball", "--backends", "numpy", "--steps", "5")  # others: above
    assert "every bound kept" in run("arrayopt", "parity", *args)
