"""JAX: every rule as an optax transformation, the donating step, flax and equinox."""

import functools
import inspect
import pickle
import subprocess
import sys
import textwrap
from typing import Any, Literal

import numpy as np
import pytest
from conftest import adapter, data, package

import arrayopt as ao

J = adapter("jax")
jax, jnp, optax = package("jax"), package("jax.numpy"), package("optax")
HALF = ("float16", "bfloat16")
SOME = ["adamax", "mada", "madam", "sgd"]  # plain; shared state; a 0-d slot; a slot that is off
some = pytest.mark.parametrize("rule", SOME)
PARAMS = {"w": jnp.ones((3, 2)), "b": [jnp.ones(2) / 2], "none": None, "t": (jnp.ones(()),)}
GRADS = jax.tree.map(lambda x: 0.5 * jnp.ones_like(x), PARAMS)


def layout(tree: Any) -> Any:
    """Structure, shapes, dtypes and weak types."""
    return jax.tree.map(jax.typeof, tree)


def equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a: Any, b: Any, rtol: float = 1e-6) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol), a, b)


def run(tx: Any, grads: Any = GRADS, params: Any = PARAMS, steps: int = 2) -> Any:
    """Parameters and state after a few equal steps."""
    return walk(tx, params, [grads] * steps)


def walk(tx: Any, params: Any, grads: list[Any]) -> tuple[Any, Any]:
    """Parameters and state after all steps, in one compiled scan."""

    @jax.jit
    def whole(params: Any, grads: Any) -> Any:
        def one(carry: Any, grad: Any) -> Any:
            updates, state = tx.update(grad, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(one, (params, tx.init(params)), grads)[0]

    return whole(jax.tree.map(jnp.asarray, params), jax.tree.map(lambda *x: jnp.stack(x), *grads))


def as_dtype(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, dtype), tree)


def eps_apart(a: Any, b: Any, largest: Any, dtype: str) -> float:
    """The distance in eps of each element's largest magnitude."""
    eps, rows = np.finfo(dtype).eps, zip(*map(jax.tree.leaves, (a, b, largest)), strict=True)
    return max(float((np.abs(np.asarray(x) - y) / (eps * m)).max()) for x, y, m in rows)


class TestNumbers:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_equals_the_optimizer_on_numpy(self, rule: str, dtype: str) -> None:
        """100 steps within the parity contract: 4 eps of the largest magnitude, or the rule's."""
        params, grads = data(steps=100)
        params, grads = as_dtype(params, dtype), [as_dtype(g, dtype) for g in grads]
        opt = ao.Optimizer(rule)
        wanted, state = params, opt.init(params)
        largest = jax.tree.map(np.abs, params)
        for g in grads:
            wanted, state = opt.step(wanted, g, state)
            largest = jax.tree.map(lambda m, p: np.maximum(m, np.abs(p)), largest, wanted)
        with J.session(dtype):
            got, reached = walk(J.transformation(rule), params, grads)
            assert reached.count == 100
            assert got["w"].dtype == dtype
            bound = getattr(ao.rules.find(rule), "PARITY_EPS", 4)
            assert eps_apart(got, wanted, largest, dtype) <= bound
        assert not jax.config.jax_enable_x64  # nothing leaks

    @pytest.mark.parametrize("decay", ["coupled", "decoupled", "independent"])
    def test_decay_and_mask(self, decay: str) -> None:
        params, grads = data(steps=20)
        params, grads = as_dtype(params, "float32"), [as_dtype(g, "float32") for g in grads]
        mask = {"w": True, "b": [False]}
        given = {"weight_decay": 0.1, "decay": decay, "lr": lambda n: 0.01 / (1 + n)}
        opt = ao.Optimizer("adamax", decay_mask=mask, **given)
        wanted, state = params, opt.init(params)
        for g in grads:
            wanted, state = opt.step(wanted, g, state)
        largest = jax.tree.map(lambda p: np.full_like(p, np.abs(p).max()), params)
        for prefix in (mask, {"w": True, "b": False}, lambda p: {"w": True, "b": np.False_}):
            got, _ = walk(J.transformation("adamax", mask=prefix, **given), params, grads)
            assert eps_apart(got, wanted, largest, "float32") <= 4
        free, _ = walk(J.transformation("adamax", lr=given["lr"]), params, grads)
        assert np.abs(free["w"] - got["w"]).max() > 1e-3
        equal(free["b"], got["b"])

    @pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-12)])
    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"b1": 0.95, "b2": 0.98, "alpha": 5.0, "eps": 1e-6, "eps_root": 1e-8},
            {"alpha": lambda n: 0.1 * n, "weight_decay": 0.01, "mask": {"w": True, "b": [False]}},
        ],
        ids=["default", "all", "decay"],
    )
    def test_simplified_ademamix_is_that_of_optax(
        self, dtype: str, bound: float, given: Any
    ) -> None:
        params, grads = data(steps=50)
        params, grads = as_dtype(params, dtype), [as_dtype(g, dtype) for g in grads]
        rate = optax.cosine_decay_schedule(1e-4, 100)
        with J.session(dtype):
            got, _ = walk(J.simplified_ademamix(rate, **given), params, grads)
            wanted, _ = walk(optax.contrib.simplified_ademamix(rate, **given), params, grads)
            for a, b, p in zip(*map(jax.tree.leaves, (got, wanted, params)), strict=True):
                assert np.abs(np.asarray(a) - p).max() > 1e-2
                np.testing.assert_allclose(a, b, rtol=bound, atol=bound)

    @pytest.mark.parametrize(
        ("mine", "theirs"),
        [
            (lambda: J.adam(0.01), lambda: optax.adam(0.01)),
            (
                lambda: J.adam(0.01, weight_decay=0.1, decay="decoupled"),
                lambda: optax.adamw(0.01, weight_decay=0.1),
            ),
            (lambda: J.adamax(0.01, eps_in_max=True), lambda: optax.adamax(0.01)),
            (lambda: J.yogi(0.01), lambda: optax.yogi(0.01)),
            (lambda: J.adan(0.01, difference_weight=0.08), lambda: optax.adan(0.01)),
            (lambda: J.sgd(0.01, 0.9, nesterov=True), lambda: optax.sgd(0.01, 0.9, nesterov=True)),
        ],
        ids=["adam", "adamw", "adamax", "yogi", "adan", "sgd"],
    )
    def test_others_are_those_of_optax(self, mine: Any, theirs: Any) -> None:
        params, grads = data(steps=20)
        with jax.enable_x64(True):
            got, _ = walk(mine(), params, grads)
            wanted, _ = walk(theirs(), params, grads)
            for a, b in zip(*map(jax.tree.leaves, (got, wanted)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)

    def test_update_of_bfloat16_is_not_rounded_to_the_parameter(self) -> None:
        """A step far below the parameter's ulp is there, though apply_updates then drops it."""
        params = jnp.asarray([1.0, -2.0], jnp.bfloat16)
        grads = jnp.asarray([2.0**-12, 2.0**-11], jnp.bfloat16)
        tx = J.sgd(1.0)
        updates, _ = tx.update(grads, tx.init(params), params)
        assert updates.dtype == jnp.bfloat16
        equal(updates, -grads)
        equal(optax.apply_updates(params, updates), params)

    @pytest.mark.parametrize("dtype", HALF)
    def test_half_is_within_an_ulp_of_the_optimizer(self, rule: str, dtype: str) -> None:
        params = jnp.asarray(np.linspace(0.5, 2, 64), dtype)
        grads = jnp.asarray(np.linspace(-1, 1, 64), dtype)
        opt, tx = ao.Optimizer(rule, lr=0.05), J.transformation(rule, lr=0.05)
        wanted, _ = jax.jit(opt.step)(params, grads, opt.init(params))
        got, state = run(tx, grads, params, steps=1)
        assert {str(x.dtype) for x in jax.tree.leaves(state.slots)} <= {"float32"}
        larger = jnp.maximum(params, jnp.abs(wanted))
        ulp = jnp.nextafter(larger, jnp.asarray(jnp.inf, dtype)) - larger
        apart = np.abs(np.asarray(got, "float32") - np.asarray(wanted, "float32"))
        assert (apart <= np.asarray(ulp, "float32")).all()
        assert rule == "prodigy" or (got != params).any()  # it looks for a rate, from a tiny one on

    @pytest.mark.parametrize(
        ("param", "grad"), [("float32", "bfloat16"), ("bfloat16", "float32"), ("float16",) * 2]
    )
    def test_updates_have_the_gradients_dtype(self, rule: str, param: str, grad: str) -> None:
        params, grads = jnp.ones(3, param), jnp.ones(3, grad)
        tx = J.transformation(rule)
        state = tx.init(params)
        updates, after = jax.eval_shape(tx.update, grads, state, params)
        assert updates.dtype == grad
        assert layout(after) == layout(state)


class TestState:
    def test_layout(self, rule: str) -> None:
        tx = J.transformation(rule)
        state = tx.init(PARAMS)
        assert state._fields == ("count", "shared", "slots")
        assert (state.count.dtype, state.count.shape, int(state.count)) == (jnp.int32, (), 0)
        for slot in state.slots:
            assert slot == () or jax.tree.structure(slot) == jax.tree.structure(PARAMS)
        assert layout(jax.eval_shape(tx.init, PARAMS)) == layout(state)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), PARAMS)
        assert layout(tx.init(abstract)) == layout(state)
        assert layout(tx.init(jax.tree.map(np.asarray, PARAMS))) == layout(state)
        equal(jax.jit(tx.init)(PARAMS), state)
        updates, after = jax.jit(tx.update)(GRADS, state, PARAMS)
        assert layout(after) == layout(state)
        assert layout(updates) == layout(GRADS)
        assert optax.tree.get(after, "count") == 1

    @some
    def test_is_the_optimizers(self, rule: str) -> None:
        opt = ao.Optimizer(rule)
        _, wanted = jax.jit(opt.step)(PARAMS, GRADS, opt.init(PARAMS))
        _, state = run(J.transformation(rule), steps=1)
        close(ao.State(*state), wanted)

    @some
    def test_tuples_as_parameters(self, rule: str) -> None:
        params, grads = (PARAMS["w"], PARAMS["t"]), (GRADS["w"], GRADS["t"])
        got, _ = run(J.transformation(rule), grads, params)
        opt = ao.Optimizer(rule)
        state = opt.init(params)
        for _ in range(2):
            params, state = jax.jit(opt.step)(params, grads, state)
        close(got, params)

    def test_shared_state_learns(self) -> None:
        tx = J.mada(0.01, b3=0.1)
        assert float(tx.init(PARAMS).shared.value.b3) == np.float32(0.1)
        params, grads = data(steps=5)
        _, state = walk(tx, as_dtype(params, "f"), [as_dtype(g, "f") for g in grads])
        learned = state.shared.value.b3
        assert abs(float(learned) - 0.1) > 1e-3
        assert (learned.shape, learned.dtype) == ((), jnp.float32)

    def test_count_stays_at_the_largest(self) -> None:
        tx = J.adam(lambda n: 1e-12 * n)
        top = jnp.asarray(2**31 - 1, jnp.int32)
        state = tx.init(PARAMS)._replace(count=top - 1)
        for _ in range(2):
            updates, state = tx.update(GRADS, state, PARAMS)
            assert int(state.count) == 2**31 - 1
            assert (np.asarray(updates["w"]) < -1e-6).all()
        _, empty = tx.update({}, tx.init({})._replace(count=top), {})
        assert int(empty.count) == 2**31 - 1

    def test_map_params_leaves_scalars_to_the_others(self) -> None:
        tx = J.madam()
        state = tx.init(PARAMS)
        marked = optax.tree.map_params(
            tx, lambda _, p: p.shape, state, PARAMS, transform_non_params=lambda _: "one"
        )
        assert (marked.count, marked.slots.scale) == ("one", "one")
        assert marked.slots.v["w"] == (3, 2)

    @some
    def test_weak_types_and_numbers(self, rule: str) -> None:
        params = {"w": jnp.asarray(0.5), "x": np.float32(2.0), "y": 1.0, "z": np.ones(2, "f")}
        assert params["w"].weak_type
        tx = J.transformation(rule)
        state = tx.init(params)
        updates, after = tx.update(params, state, params)
        assert layout(after) == layout(state)
        assert not any(x.weak_type for x in jax.tree.leaves((updates, after)))

    @some
    def test_compiles_once(self, rule: str) -> None:
        tx = J.transformation(rule)
        traces = []

        @jax.jit
        def step(params: Any, state: Any) -> Any:
            traces.append(1)
            updates, state = tx.update(GRADS, state, params)
            return optax.apply_updates(params, updates), state

        carry = PARAMS, tx.init(PARAMS)
        for _ in range(3):
            carry = step(*carry)
        assert len(traces) == 1


class TestComposition:
    @some
    def test_chain(self, rule: str) -> None:
        tx = optax.chain(optax.scale(3.0), J.transformation(rule, lr=0.01), optax.scale(0.5))
        got, state = run(tx, steps=1)
        grads = jax.tree.map(lambda g: 3 * g, GRADS)
        alone, _ = run(J.transformation(rule, lr=0.01), grads, steps=1)
        close(got, jax.tree.map(lambda p, q: p + 0.5 * (q - p), PARAMS, alone))
        assert len(state) == 3

    @some
    def test_masked(self, rule: str) -> None:
        part = {"w": True, "b": False, "none": None, "t": True}
        decays = {"w": True, "b": True, "none": None, "t": (False,)}
        tx = optax.masked(J.transformation(rule, weight_decay=0.1, mask=decays), part)
        got, state = run(tx, steps=1)
        rest = {k: v for k, v in PARAMS.items() if k != "b"}
        grads = {k: v for k, v in GRADS.items() if k != "b"}
        mask = {"w": True, "none": None, "t": False}
        alone, _ = run(J.transformation(rule, weight_decay=0.1, mask=mask), grads, rest, steps=1)
        close({k: v for k, v in got.items() if k != "b"}, alone)
        close(got["b"], [PARAMS["b"][0] + GRADS["b"][0]])  # passed through
        slots = state.inner_state.slots
        assert all(s == () or len(jax.tree.leaves(s)) == 2 for s in slots)
        optax.tree.map_params(tx, lambda x: x, state)

    @some
    def test_everything_masked(self, rule: str) -> None:
        for params, grads in ((PARAMS, GRADS), (PARAMS["w"], GRADS["w"])):
            tx = optax.masked(J.transformation(rule), False)
            state = tx.init(params)
            updates, after = tx.update(grads, state, params)
            equal(updates, grads)
            assert layout(after) == layout(state)
            assert int(after.inner_state.count) == 1

    @some
    def test_partition(self, rule: str) -> None:
        labels = {"w": rule, "b": "other", "none": None, "t": rule}
        parts = {rule: J.transformation(rule), "other": J.sgd(0.5), "none of them": J.mada()}
        tx = optax.partition(parts, labels)
        got, state = run(tx)
        close(got["b"], [PARAMS["b"][0] - 0.5])
        rest, grads = [PARAMS["w"], PARAMS["t"]], [GRADS["w"], GRADS["t"]]
        alone, _ = run(J.transformation(rule), grads, rest)
        close([got["w"], got["t"]], alone)
        optax.tree.map_params(tx, lambda x: x, state)

    def test_multi_steps(self) -> None:
        got, _ = run(optax.MultiSteps(J.madam(), every_k_schedule=2), steps=4)
        close(got, run(J.madam())[0])

    @some
    def test_apply_if_finite(self, rule: str) -> None:
        tx = optax.apply_if_finite(J.transformation(rule), 3)
        _, state = run(tx, steps=1)
        bad = jax.tree.map(lambda g: g * jnp.nan, GRADS)
        updates, after = jax.jit(tx.update)(bad, state, PARAMS)
        assert all((x == 0).all() for x in jax.tree.leaves(updates))
        equal(after.inner_state, state.inner_state)

    @some
    def test_inject_hyperparams(self, rule: str) -> None:
        factory = getattr(J, rule)
        made = optax.inject_hyperparams(factory, static_args=factory.static_args)
        slow = optax.linear_schedule(0.01, 0.0, 2)
        tx = made(slow, weight_decay=0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim == 2, p))
        params, state = run(tx)
        mask = {"w": True, "b": False, "none": None, "t": False}
        wanted, _ = run(factory(slow, weight_decay=0.1, mask=mask))
        close(params, wanted, rtol=2e-5)
        updates, _ = jax.jit(tx.update)(GRADS, state, params)  # the rate is 0 by now
        assert all((x == 0).all() for x in jax.tree.leaves(updates))

    def test_hyperparameters_changed_in_the_state(self) -> None:
        tx = optax.inject_hyperparams(J.madam)(0.01)
        state = tx.init(PARAMS)
        numbers = {"learning_rate", "b2", "p_scale", "g_bound", "weight_decay"}
        assert set(state.hyperparams) == numbers
        first, _ = tx.update(GRADS, state, PARAMS)
        state.hyperparams["learning_rate"] = jnp.asarray(0.1)
        second, _ = tx.update(GRADS, state, PARAMS)
        wanted, _ = J.madam(0.1).update(GRADS, J.madam(0.1).init(PARAMS), PARAMS)
        close(second, wanted, rtol=1e-5)
        assert not np.allclose(first["w"], second["w"])

    def test_partial(self) -> None:
        made = functools.partial(J.adamax, b1=0.5, eps_in_max=True)
        assert "b2" in inspect.signature(made).parameters
        close(run(made(0.1))[0], run(J.adamax(0.1, 0.5, eps_in_max=True))[0])

    @some
    def test_vmap_over_rates_and_parameters(self, rule: str) -> None:
        rates = jnp.asarray([0.001, 0.01, 0.0])
        many = jax.tree.map(lambda x: jnp.stack([x, 2 * x, 3 * x]), PARAMS)

        @jax.jit
        def one(rate: Any, params: Any) -> Any:
            return run(J.transformation(rule, lr=rate), params=params)[0]

        got = jax.vmap(one)(rates, many)
        for i in range(3):
            params, at = (jax.tree.map(lambda x, i=i: x[i], tree) for tree in (many, got))
            close(at, one(rates[i], params), rtol=1e-5)
        close(at, params, rtol=0)  # the rate is 0

    def test_differentiates_through_the_rate(self) -> None:
        def loss(rate: Any) -> Any:
            return run(J.adam(rate))[0]["w"].sum()

        slope = jax.grad(loss)(0.01)
        np.testing.assert_allclose(slope, (loss(0.02) - loss(0.0)) / 0.02, rtol=1e-3)

    @some
    def test_none_for_a_gradient(self, rule: str) -> None:
        tx = J.transformation(rule)
        state = tx.init(PARAMS)
        updates, after = tx.update(GRADS | {"b": [None]}, state, PARAMS)
        assert updates["b"] == [None]
        assert updates["w"].shape == (3, 2)
        for old, new in zip(state.slots, after.slots, strict=True):
            assert old == () or np.array_equal(old["b"][0], new["b"][0])


class TestFactories:
    def test_signature(self, rule: str) -> None:
        factory = getattr(J, rule)
        given = inspect.signature(factory).parameters
        names = list(given)
        known = ao.hyperparameters(ao.rules.find(rule))
        assert names[0] == "learning_rate"
        assert names[-3:] == ["weight_decay", "mask", "decay"]
        assert set(names[1:-3]) == set(known) - {"lr"}
        assert all(given[k].default == known[k].default for k in names[1:-3])
        assert given["learning_rate"].default == known["lr"].default
        assert given["learning_rate"].annotation == optax.ScalarOrSchedule
        assert given["weight_decay"].default == 0.0
        assert given["decay"].default == ao.Optimizer(rule).around.decay
        assert {"mask", "decay"} <= set(factory.static_args) <= set(names)
        assert factory.__name__ == rule
        assert "learning_rate" in factory.__doc__
        assert pickle.loads(pickle.dumps(factory)) is factory
        assert rule in dir(J)
        assert layout(factory().init(PARAMS)) == layout(J.transformation(rule).init(PARAMS))

    def test_positions_are_those_of_optax(self) -> None:
        theirs = list(inspect.signature(optax.contrib.simplified_ademamix).parameters)
        assert list(inspect.signature(J.simplified_ademamix).parameters)[: len(theirs)] == theirs

    def test_choices(self) -> None:
        given = inspect.signature(J.mada).parameters
        assert given["accumulate"].annotation == Literal["max", "mean"]
        assert given["bias_correction"].annotation is bool
        assert {"accumulate", "bias_correction"} < set(J.mada.static_args)

    def test_a_new_rule_needs_no_other_edit(self, tmp_path: Any, monkeypatch: Any) -> None:
        source = """
            from typing import NamedTuple
            from .._math import sign
            from .._types import Rate
            class State(NamedTuple):
                pass
            def init(param, *, xp):
                return State()
            def update(param, grad, state, t, *, lr: Rate = 0.25, xp):
                return param - lr * sign(grad, xp=xp), state
        """
        (tmp_path / "signdescent.py").write_text(textwrap.dedent(source))
        monkeypatch.setattr(ao.rules, "__path__", [*ao.rules.__path__, str(tmp_path)])
        try:
            assert "signdescent" in dir(J)
            params, _ = run(J.signdescent(), steps=1)
            close(params, jax.tree.map(lambda p: p - 0.25, PARAMS))
        finally:
            sys.modules.pop("arrayopt.rules.signdescent", None)
            for module in (J, ao.rules):
                vars(module).pop("signdescent", None)

    def test_unknown(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'adamaximum'"):
            J.adamaximum  # noqa: B018
        with pytest.raises(TypeError, match="lr"):
            J.adam(lr=0.1)


class TestErrors:
    def test_parameters_are_needed(self, rule: str) -> None:
        tx = J.transformation(rule)
        with pytest.raises(ValueError, match=f"{rule}: give the parameters too"):
            tx.update(GRADS, tx.init(PARAMS))

    @pytest.mark.parametrize("dtype", ["complex64", "int32"])
    def test_refuses(self, rule: str, dtype: str) -> None:
        text = rf"{rule}: \['w'\] must be real floating \(.*float64\), got dtype {dtype}"
        with pytest.raises(TypeError, match=text):
            J.transformation(rule).init({"w": jnp.ones(2, dtype)})

    def test_gradients_and_state(self) -> None:
        tx = J.adam()
        state = tx.init(PARAMS)
        with pytest.raises(ValueError, match="adam: the gradients must have the structure"):
            tx.update({"w": 1.0}, state, PARAMS)
        with pytest.raises(ValueError, match=r"gradient of \['w'\] must have shape \(3, 2\)"):
            tx.update(GRADS | {"w": jnp.ones((2, 3))}, state, PARAMS)
        with pytest.raises(TypeError, match="state must be what init or update gave"):
            tx.update(GRADS, optax.adam(1.0).init(PARAMS), PARAMS)
        with pytest.raises(ValueError, match="its slots are"):
            tx.update(GRADS, J.adamax().init(PARAMS), PARAMS)

    def test_hyperparameters(self) -> None:
        with pytest.raises(ValueError, match=r"adam: b1 must be in \[0, 1\), got 1.5"):
            J.adam(b1=1.5)
        with pytest.raises(ValueError, match="decay must be one of"):
            J.adam(decay="no")
        with pytest.raises(TypeError, match="b7"):
            J.transformation("adam", b7=1)
        for name, hint in (("maximize", "scale"), ("nonfinite", "finite"), ("decay_mask", "mask")):
            with pytest.raises(TypeError, match=f"adam: .* takes no {name}; use .*{hint}"):
                J.transformation("adam", **{name: None})

    def test_mask(self) -> None:
        tx = J.adam(weight_decay=0.1, mask={"w": "yes", "b": True, "none": None, "t": True})
        with pytest.raises(TypeError, match=r"decay_mask of .* must be a bool, got 'yes'"):
            tx.update(GRADS, tx.init(PARAMS), PARAMS)


class TestStep:
    def test_donates_and_equals(self, rule: str) -> None:
        opt = ao.Optimizer(rule)
        params = jax.tree.map(lambda x: x.copy(), PARAMS)
        advance, state = J.step(opt), opt.init(params)
        before = jax.tree.leaves((params, state))
        where = params["w"].unsafe_buffer_pointer()
        params, state = advance(params, GRADS, state)
        # a number that the rule does not read (Prodigy's estimate of the step before) stays
        assert all(x.is_deleted() or (rule == "prodigy" and x.shape == ()) for x in before)
        assert params["w"].unsafe_buffer_pointer() == where  # its own memory
        params, state = advance(params, GRADS, state)
        wanted, wanted_state = run(J.transformation(rule))
        close((params, state), (wanted, ao.State(*wanted_state)), rtol=1e-5)
        assert not any(x.is_deleted() for x in jax.tree.leaves(GRADS))
        assert advance._cache_size() == 1

    def test_overrides(self) -> None:
        opt = ao.Optimizer("adamax")
        advance = J.step(opt)
        for lr in (0.1, 0.2):
            params = jax.tree.map(lambda x: x.copy(), PARAMS)
            got, _ = advance(params, GRADS, opt.init(params), lr=lr)
            close(got, jax.tree.map(lambda p, lr=lr: p - lr, PARAMS), rtol=1e-5)
        assert advance._cache_size() == 1
        params = jax.tree.map(lambda x: x.copy(), PARAMS)
        advance(params, GRADS, opt.init(params), lr=0.1, eps_in_max=True)
        with pytest.raises(TypeError, match="b7"):
            advance(got, GRADS, opt.init(got), b7=0.1)
        assert not got["w"].is_deleted()  # an error leaves everything in place

    def test_schedule_skip_and_none(self) -> None:
        opt = ao.Optimizer("adamax", lr=lambda n: 0.1 / (1 + n), nonfinite="skip")
        advance = J.step(opt)
        params = jax.tree.map(lambda x: x.copy(), PARAMS)
        params, state = advance(params, GRADS | {"b": [None]}, opt.init(params))
        equal(params["b"], PARAMS["b"])
        kept, step = jax.tree.map(np.asarray, params), int(state.step)
        params, state = advance(params, jax.tree.map(lambda g: g / 0, GRADS), state)
        equal(params, kept)
        assert int(state.step) == step == 1


WITHOUT_OPTAX = """
import sys
sys.modules["optax"] = None  # importing it raises ImportError
import jax.numpy as jnp, numpy as np, arrayopt as ao
from arrayopt.backends import jax as J
opt = ao.Optimizer("adam", lr=0.1)
params = {"w": jnp.ones(2)}
params, state = J.step(opt)(params, {"w": jnp.ones(2)}, opt.init(params))
np.testing.assert_allclose(params["w"], 0.9, rtol=1e-6)
for make in (lambda: J.adam, lambda: J.transformation("adam")):
    try:
        make()
    except ImportError as error:
        assert 'pip install "arrayopt[jax]"' in str(error), error
    else:
        raise AssertionError("no error")
print("ok")
"""


def test_jax_alone_is_enough_to_import_and_step() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_OPTAX],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "ok\n"


def test_the_adapter_does_not_load_optax() -> None:
    code = (
        "import sys, arrayopt.backends.jax as J; J.step, dir(J); assert 'optax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)


def learn(inputs: Any) -> Any:
    return inputs[:, :1] * inputs[:, 1:]


X = jnp.asarray(np.random.default_rng(0).standard_normal((32, 2)), jnp.float32)


@pytest.mark.parametrize(
    "tx",
    [
        lambda: J.mada(0.01),
        lambda: J.adamax(optax.linear_schedule(0.02, 0.01, 60), weight_decay=1e-4),
    ],
    ids=["mada", "adamax"],
)
def test_flax_nnx(tx: Any) -> None:
    nnx = package("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.one = nnx.Linear(2, 16, rngs=rngs)
            self.norm = nnx.BatchNorm(16, rngs=rngs)  # its statistics are no nnx.Param
            self.two = nnx.Linear(16, 1, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.two(nnx.relu(self.norm(self.one(x))))

    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx(), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> Any:
        value, grads = nnx.value_and_grad(lambda m: ((m(X) - learn(X)) ** 2).mean())(model)
        optimizer.update(model, grads, value=value)
        return value

    values = [float(step(model, optimizer)) for _ in range(100)]
    assert values[-1] < 0.3 * values[0]
    assert int(optimizer.step[...]) == 100


def test_flax_nnx_without_optax() -> None:
    nnx = package("flax.nnx")
    graph, params = nnx.split(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), nnx.Param)
    opt = ao.Optimizer("adam", lr=0.05)
    state, advance = opt.init(params), J.step(opt)
    loss = jax.jit(jax.value_and_grad(lambda p: ((nnx.merge(graph, p)(X) - X[:, :1]) ** 2).mean()))
    values = []
    for _ in range(50):
        value, grads = loss(params)
        params, state = advance(params, grads, state)
        values.append(float(value))
    assert values[-1] < 0.1 * values[0]


def test_equinox() -> None:
    eqx = package("equinox")
    model = eqx.nn.MLP(2, 1, 16, 1, key=jax.random.key(0))  # its activation is a leaf of the tree
    mask = functools.partial(jax.tree.map, lambda p: p.ndim == 2)
    tx = J.maxva_madam(0.02, weight_decay=0.01, mask=mask)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model: Any, state: Any) -> Any:
        def loss(model: Any) -> Any:
            return ((jax.vmap(model)(X) - learn(X)) ** 2).mean()

        value, grads = eqx.filter_value_and_grad(loss)(model)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, value

    values = []
    for _ in range(100):
        model, state, value = step(model, state)
        values.append(float(value))
    assert values[-1] < 0.3 * values[0]


def test_equinox_without_optax() -> None:
    eqx = package("equinox")
    model = eqx.nn.MLP(2, 1, 16, 1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    opt = ao.Optimizer("madam", lr=0.02)
    state, advance = opt.init(params), J.step(opt)

    @jax.jit
    def slope(params: Any) -> Any:
        def loss(params: Any) -> Any:
            return ((jax.vmap(eqx.combine(params, static))(X) - learn(X)) ** 2).mean()

        return jax.value_and_grad(loss)(params)

    values = []
    for _ in range(100):
        value, grads = slope(params)
        params, state = advance(params, grads, state)
        values.append(float(value))
    assert values[-1] < 0.5 * values[0]
