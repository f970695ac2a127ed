"""The tests that optax ships in its wheel, over every rule of ours.

A test's body is taken, as it is, out of absl's parametrization and given our factories. Not run:

- ``AliasTest.test_explicit_dtype``: the dtype of the state is no option here (at least float32).
- complex parameters, wherever a shipped test has them: they are refused (``tests/test_jax.py``).
- ``LBFGSTest`` and ``ShardingTest.test_microbatch_*``: they use nothing of ours.
- Madam on the shipped targets: a multiplicative rule neither leaves 0 nor changes a sign. The
  same bodies run with targets that it can reach.
- where ``AliasTest`` and ``ContribTest`` have one body twice, the second copy runs for two rules
  only: MADA (state of the whole optimizer) and Madam (0-d slots).
"""

import functools
import inspect
import re
import subprocess
import sys
import unittest
from typing import Any

import pytest
from conftest import REPRESENTATIVE, adapter, package

import arrayopt as ao
from arrayopt._step import is_elementwise

J = adapter("jax")
jax, jnp, optax = package("jax"), package("jax.numpy"), package("optax")
package("absl")  # these two, optax's tests need
package("sklearn")
alias_test = package("optax._src.alias_test")
contrib_test = package("optax.contrib._common_test")
HALF = ("float16", "bfloat16")
RATES: dict[str, dict[str, Any]] = {
    "lamb": {"learning_rate": 1e-3},
    "prodigy": {"learning_rate": 1e-1},
    "sgd": {"learning_rate": 1e-3, "momentum": 0.9},
}


def options(rule: str) -> dict[str, Any]:
    """A factory's arguments, in the form of optax's lists."""
    return RATES.get(rule, {"learning_rate": 1e-2})


def shipped(case: Any, name: str) -> Any:
    """The body of a test in one of optax's classes, as a function of its parameters."""
    made = [f for f in vars(case) if re.fullmatch(name + r"\d+", f)]
    assert made, f"optax {optax.__version__} ships no {name}"
    return functools.partial(inspect.unwrap(getattr(case, made[0])), case(made[0]))


def alias(name: str) -> Any:
    return shipped(alias_test.AliasTest, name)


def contrib(name: str, **more: Any) -> Any:
    body = shipped(contrib_test.ContribTest, name)
    wrapper = dict.fromkeys(("wrapper_name", "wrapper_kwargs"))
    return functools.partial(body, **wrapper | more)


def reachable(rule: str, setup: Any) -> Any:
    """The target, or for Madam one of the same structure within its reach."""
    if rule != "madam":
        return setup

    def other(dtype: Any) -> Any:
        start = jax.tree.map(lambda x: jnp.full_like(x, 2.0), setup(dtype)[0])
        end = jax.tree.map(
            lambda x: 1 + jnp.arange(x.size, dtype=dtype).reshape(x.shape) / 2, start
        )

        def distance(params: Any) -> Any:
            parts = jax.tree.map(lambda p, q: jnp.sum((p - q) ** 2), params, end)
            return sum(jax.tree.leaves(parts))

        return start, end, distance

    return other


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets optax's tests find our factories by name."""
    monkeypatch.setattr(alias_test, "_get_opt", lambda self, name: getattr(J, name))
    monkeypatch.setattr(contrib_test, "_get_opt_factory", lambda name: getattr(J, name))


@pytest.mark.parametrize("target", ["parabola", "rosenbrock"])
def test_alias_optimization(rule: str, target: str) -> None:
    setup = reachable(rule, getattr(alias_test, f"_setup_{target}"))
    alias("test_optimization")(rule, options(rule), setup, jnp.float32)


@pytest.mark.parametrize("target", ["matrix_parabola", "mixed_tensor_target"])
def test_contrib_optimizers(rule: str, target: str) -> None:
    if rule == "schedule_free_adamw":
        pytest.skip("the test knows optax's state of that rule and looks into it")
    setup = reachable(rule, getattr(contrib_test, f"_setup_{target}"))
    contrib("test_optimizers")(rule, options(rule), target=setup, dtype="float32")


def test_contrib_extra_args(rule: str) -> None:
    contrib("test_optimizers_accept_extra_args")(rule, options(rule), wrap=False)


def test_contrib_inject_hyperparams(rule: str) -> None:
    contrib("test_optimizers_can_be_wrapped_in_inject_hyperparams")(rule, options(rule))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_alias_preserve_dtype(rule: str, dtype: str) -> None:
    alias("test_preserve_dtype")(rule, options(rule), dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_alias_gradient_accumulation(rule: str, dtype: str) -> None:
    alias("test_gradient_accumulation")(rule, options(rule), dtype)


@pytest.mark.parametrize("dtype", [*HALF, "float32", "float64"])
def test_alias_stability(rule: str, dtype: str) -> None:
    body = alias("test_state_shape_dtype_shard_stability")
    body(rule, options(rule), getattr(jnp, dtype))


def test_contrib_schedule(rule: str) -> None:
    name = "test_optimizers_accept_learning_rate_schedule_if_type_annotated_as_such"
    try:
        contrib(name)(rule, options(rule))
    except unittest.SkipTest as skipped:  # it skips factories that are not annotated
        pytest.fail(str(skipped))


@pytest.mark.parametrize("rule", ["mada", "madam"])
def test_second_copies(rule: str) -> None:
    given = rule, options(rule)
    alias("test_optimizers_accept_extra_args")(*given)
    alias("test_optimizers_can_be_wrapped_in_inject_hyperparams")(*given)
    contrib("test_preserve_dtype")(*given, dtype="bfloat16")
    contrib("test_gradient_accumulation")(*given, dtype="bfloat16")
    contrib("test_state_shape_dtype_shard_stability")(*given, dtype=jnp.float16)


@pytest.mark.parametrize("rule", ["adam", "mada", "madam"])
@pytest.mark.parametrize(
    ("wrapper", "given"),
    [
        ("mechanize", {"weight_decay": 0.0}),
        ("schedule_free", {"learning_rate": 1e-2}),
        ("reduce_on_plateau", {}),
    ],
)
def test_contrib_wrappers(
    rule: str, wrapper: str, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "test_optimizers_accept_extra_args"
    body = contrib(name, wrapper_name=wrapper, wrapper_kwargs=given)
    # the body hands the loss, which reduce_on_plateau needs, to the name "sgd" only
    monkeypatch.setattr(contrib_test, "_get_opt_factory", lambda _: getattr(J, rule))
    body("sgd", options(rule), wrap=True)


SHARDING = """
import inspect
import jax, numpy as np, optax
from optax._src import sharding_test as shipped  # asks for 8 devices as it is imported
import arrayopt as ao
from arrayopt.backends import jax as J

assert jax.device_count() == 8, jax.device_count()
jax.__version__ = "9.9.9"  # the tests compare it as a string, and skip: "0.10" < "0.7.2"
P, NamedSharding = jax.sharding.PartitionSpec, jax.sharding.NamedSharding
cases = ["test_init_with_abstract_input", "test_state_sharding_type_init_match_update",
         "test_state_sharding_type_preserved_with_jit"]
mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
there = {"w": NamedSharding(mesh, P("x", None)), "b": NamedSharding(mesh, P())}
here = {"w": np.linspace(-1, 1, 64, dtype=np.float32).reshape(16, 4), "b": np.ones(4, np.float32)}
same = lambda x, like: x.sharding.is_equivalent_to(like, x.ndim)
for rule in RULES:
    for name in cases:
        body = inspect.unwrap(getattr(shipped.ShardingTest, name + "_adam"))
        body(shipped.ShardingTest(name + "_adam"), getattr(J, rule)(1.0))

    # the usual mode: equal to the unsharded run, and the state sharded like the parameters
    tx = getattr(J, rule)(0.01, weight_decay=0.1)
    params = jax.tree.map(jax.device_put, here, there)
    state = tx.init(params)
    for slot in state.slots:
        assert slot == () or slot["w"].ndim == 0 or same(slot["w"], there["w"]), rule
    specs = optax.tree.map_params(tx, lambda _, s: s, state, there,
                                  transform_non_params=lambda _: NamedSharding(mesh, P()))
    state = jax.device_put(state, specs)
    whole, plain = here, tx.init(here)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.tree.map(lambda p: 2 * p + 1, params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(3):
        params, state = step(params, state)
        whole, plain = step(whole, plain)
    for k in here:
        assert same(params[k], there[k]), (rule, k)
        np.testing.assert_allclose(params[k], whole[k], rtol=1e-5, atol=1e-6, err_msg=rule)
    for slot in state.slots:
        assert slot == () or slot["w"].ndim == 0 or same(slot["w"], there["w"]), rule

    # and step, without optax
    params = jax.tree.map(jax.device_put, here, there)
    opt = ao.Optimizer(rule, lr=0.01)
    after, state = J.step(opt)(params, jax.tree.map(lambda x: 2 * x, params), opt.init(params))
    assert params["w"].is_deleted() and same(after["w"], there["w"]), rule
print("ok")
"""


def test_shipped_sharding_on_eight_devices() -> None:
    """In a process of its own: the number of devices is settled once."""
    # JAX wants to be told how products of matrices are sharded
    rules = [r for r in REPRESENTATIVE if is_elementwise(ao.rules.find(r))]
    done = subprocess.run(
        [sys.executable, "-c", SHARDING.replace("RULES", repr(rules))],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.endswith("ok\n")
