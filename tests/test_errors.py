"""Bad input: an error that says rule, argument or path, what is legal and what came; no change."""

import math
import re
import sys

import numpy as np
import optree
import pytest
from conftest import adapter, data

import arrayopt as ao
from arrayopt import backends

W = np.ones((2, 3))


def raises(kind, *words):
    return pytest.raises(kind, match=".*".join(map(re.escape, words)))


def stepped(params, grads, opt=None, **override):
    opt = opt or ao.Optimizer("adamax")
    return opt.step(params, grads, opt.init(params), **override)


@pytest.mark.parametrize(
    ("name", "value", "legal"),
    [
        ("b1", 1.5, "in [0, 1)"),
        ("b1", 1, "in [0, 1)"),
        ("b1", -0.1, "in [0, 1)"),
        ("b1", math.nan, "in [0, 1)"),
        ("lr", math.inf, "in [0, inf)"),
        ("lr", -1e-9, "in [0, inf)"),
        ("lr", "0.1", "a number in [0, inf)"),
        ("lr", True, "a number in [0, inf)"),
        ("lr", None, "a number in [0, inf)"),
        ("lr", np.asarray([0.1, -0.1]), "in [0, inf)"),
        ("eps_in_max", 1, "False or True"),
        ("weight_decay", -1.0, "in [0, inf)"),
    ],
)
def test_value_out_of_range(name, value, legal):
    with raises(ValueError, f"adamax: {name} must be {legal}, got {value!r}"):
        ao.Optimizer("adamax", **{name: value})
    if name != "eps_in_max":
        with raises(ValueError, f"adamax: {name} must be {legal}, got {value!r}"):
            stepped(W, W, **{name: value})


def test_every_range_of_every_rule_is_enforced(rule):
    found = ao.hyperparameters(ao.rules.find(rule))
    assert found
    for name in found:
        for value in (math.nan, -1e9, "nonsense")[:: 2 if -1e9 in found[name].legal else 1]:
            with raises(ValueError, f"{rule}: {name} must be "):
                ao.Optimizer(rule, **{name: value})


def test_a_schedule_out_of_range_is_caught_when_it_is():
    opt = ao.Optimizer("adamax", lr=lambda n: 0.1 if n < 1 else -1.0)
    p, s = opt.step(W, W, opt.init(W))
    with raises(ValueError, "adamax: lr must be in [0, inf), got -1.0"):
        opt.step(p, W, s)


def test_unknown_hyperparameter_names_the_closest():
    for name, ours in {
        "weight_deca": "weight_decay",
        "learning_rate": "lr",
        "betas": "b1 and b2",
        "beta_2": "b2",
        "alpha": "lr or b2",
    }.items():
        text = f"has no hyperparameter {name!r} (did you mean {ours}?)"
        with raises(TypeError, text, "It has lr, b1, b2"):
            ao.Optimizer("adamax", **{name: 0.9})


def test_hyperparameters_takes_a_rule_or_its_name():
    assert ao.hyperparameters("adam+ema") == ao.hyperparameters(ao.rules.find("adam+ema"))
    with raises(ValueError, "no rule is named 'adamx'"):
        ao.hyperparameters("adamx")
    for wrong in (3, ao.wrappers.find("ema").State):
        with raises(TypeError, f"{wrong!r} is not a rule: it has no update"):
            ao.hyperparameters(wrong)


def test_madam_and_the_other_madam():
    with raises(TypeError, "madam (Madam", "'b_hi'", "maxva_madam (MAdam"):
        ao.Optimizer("madam", b_hi=0.9)
    with raises(TypeError, "maxva_madam (MAdam", "'p_scale'", "madam (Madam"):
        ao.Optimizer("maxva_madam", p_scale=3.0)


def test_unknown_rule():
    with raises(ValueError, "no rule is named 'adamx'", "did you mean adamax"):
        ao.Optimizer("adamx")
    with raises(ValueError, "no rule is named 'Adam'; did you mean adam or"):
        ao.Optimizer("Adam")
    for name in ("", "+ema"):
        with raises(ValueError, "the name of a rule is empty"):
            ao.Optimizer(name)
    with raises(ValueError, "ema is a wrapper, which goes around a rule: adam+ema"):
        ao.Optimizer("ema+adam")
    with raises(TypeError, "is not a rule: it has no State"):
        ao.Optimizer(math)
    with pytest.raises(AttributeError):
        _ = ao.adamx


@pytest.mark.parametrize(
    ("option", "value"), [("decay", "l2"), ("nonfinite", "ignore"), ("maximize", "yes")]
)
def test_unknown_option(option, value):
    with raises(ValueError, f"adamax: {option} must be one of", repr(value)):
        ao.Optimizer("adamax", **{option: value})


def test_hyperparameters_that_do_not_go_together():
    with raises(ValueError, "maxva_madam: b_lo must not exceed b_hi, got b_lo=0.9 and b_hi=0.5"):
        ao.Optimizer("maxva_madam", b_lo=0.9, b_hi=0.5)
    with raises(ValueError, "maxva_lamadam: b_hi=1 needs b_first"):
        ao.Optimizer("maxva_lamadam", b_hi=1)
    with raises(ValueError, "mada: b2 is learned in [0.501, 0.99], got b2=0.999; hlr_b2=0"):
        ao.Optimizer("mada", b2=0.999)
    opt = ao.Optimizer("maxva_madam")
    with raises(ValueError, "maxva_madam: b_lo must not exceed b_hi"):
        opt.step(W, W, opt.init(W), b_lo=0.9999)


def test_read_before_the_first_step_only():
    opt = ao.Optimizer("mada")
    with raises(TypeError, "mada: b1 is read before the first step only"):
        opt.step(W, W, opt.init(W), b1=0.5)
    with raises(TypeError, "mada: b1 cannot be a schedule"):
        ao.Optimizer("mada", b1=lambda n: 0.9)


PARAMS = {"w": W, "b": [np.ones(3)]}
BAD_GRADIENTS = {
    "missing": ({"w": W}, ValueError, ["adamax: the gradients must have the structure"]),
    "extra": (PARAMS | {"c": W}, ValueError, ["adamax: the gradients must have the structure"]),
    "shape": ({"w": W.T, "b": [np.ones(3)]}, ValueError,
              ["adamax: gradient of", "'w'", "must have shape (2, 3), got (3, 2)"]),
    "broadcast": ({"w": np.ones(()), "b": [np.ones(3)]}, ValueError,
                  ["gradient of", "'w'", "(2, 3), got ()"]),
    "integers": ({"w": W.astype(int), "b": [np.ones(3)]}, TypeError,
                 ["gradient of", "'w'", "must be real floating", "got dtype int64"]),
    "complex": ({"w": W * 1j, "b": [np.ones(3)]}, TypeError, ["complex128", "two reals"]),
    "no array": ({"w": W.tolist(), "b": [np.ones(3)]}, TypeError,
                 ["gradient of", "'w'", "must be an array or None, got list"]),
}  # fmt: skip


@pytest.mark.parametrize(("grads", "kind", "words"), BAD_GRADIENTS.values(), ids=BAD_GRADIENTS)
def test_gradients(grads, kind, words):
    with raises(kind, *words):
        stepped(PARAMS, grads)


def test_parameters():
    opt = ao.Optimizer("adamax")
    with raises(
        TypeError,
        "adamax: ['w'] must be real floating (float16, bfloat16, float32, float64), got",
    ):
        opt.init({"w": np.ones(3, int)})
    with raises(TypeError, "adamax: ['w'] must be an array, got float"):
        opt.init({"w": 1.0})
    with raises(ValueError, "adamax: the tree of parameters holds no array"):
        opt.init({})


@pytest.mark.parametrize("other", ["strict", "torch", "jax", "dask", "mlx"])
def test_mixed_namespaces(other):
    library = adapter(other)
    with library.session("float32"):
        x = library.asarray(W.astype(np.float32))
        with raises(TypeError, "adamax: ['w'] is an array of", "but ['b'] is one of"):
            ao.Optimizer("adamax").init({"b": W, "w": x})
        with raises(TypeError, "adamax: gradient of ['w'] is an array of", "but the parameter"):
            stepped({"w": W}, {"w": x})
        with raises(TypeError, "adamax: gradient of ['w'] is an array of numpy"):
            stepped({"w": x}, {"w": W})


def test_mixed_devices():
    strict = adapter("strict")
    with strict.session("float64"):
        there = strict.xp.asarray(W.tolist(), device=strict.xp.Device("device1"))
        with raises(
            ValueError, "adamax: gradient of ['w'] is on", "device1", "but the parameter on"
        ):
            stepped({"w": strict.asarray(W)}, {"w": there})


def test_state_of_another_rule_or_another_tree():
    adam, adamax = ao.Optimizer("adam"), ao.Optimizer("adamax")
    with raises(ValueError, "adamax: its slots are ('m', 'u'), got a state with ('m', 'v')"):
        adamax.step(W, W, adam.init(W))
    with raises(TypeError, "adamax: state must be what init or step gave, got dict"):
        adamax.step(W, W, {})
    with raises(ValueError, "adamax: slot 'm' of params must have shape (2, 3), got (3,)"):
        adamax.step(W, W, adamax.init(np.ones(3)))
    with raises(ValueError, "adamax: the slot 'm' must have the structure of the parameters"):
        adamax.step({"a": W}, {"a": W}, adamax.init({"b": W}))


def test_hyperparameter_that_does_not_broadcast():
    with raises(ValueError, "shape (4,) does not broadcast against params of shape (2, 3)"):
        stepped(W, W, lr=np.ones(4))
    with raises(ValueError, "shape (5, 2, 3) does not broadcast"):
        stepped(W, W, lr=np.ones((5, 2, 3)))
    with raises(ValueError, "mada has state of the whole optimizer"):
        stepped(W, W, ao.Optimizer("mada"), lr=np.ones((2, 1)))


def test_decay_mask_must_be_bools():
    with raises(TypeError, "adamax: decay_mask of params must be a bool, got 1"):
        stepped(W, W, ao.Optimizer("adamax", decay_mask=1))
    with raises(ValueError, "adamax: the decay_mask must have the structure of the parameters"):
        stepped({"w": W}, {"w": W}, ao.Optimizer("adamax", decay_mask={"x": True}))


def test_a_failed_step_changes_nothing(rule):
    params, grads = data(steps=2)
    opt = ao.Optimizer(rule)
    p, s = opt.step(params, grads[0], opt.init(params))
    before = optree.tree_map(np.array, (p, s))
    with raises(ValueError, rule):
        opt.step(p, {"w": grads[1]["w"], "b": [np.ones(2)]}, s)
    optree.tree_map(np.testing.assert_array_equal, (p, s), before)


def test_missing_backend_says_what_to_install(monkeypatch):
    monkeypatch.setitem(backends.PACKAGES, "mlx", ("no_such_module", "mlx"))
    monkeypatch.setattr(backends.importlib, "import_module", _fails)
    with raises(ImportError, 'the backend mlx needs no_such_module: pip install "arrayopt[mlx]"'):
        backends.load("mlx")
    with raises(ValueError, "no backend is named 'tensorflow'; there are numpy, strict"):
        backends.load("tensorflow")


def test_bfloat16_of_numpy_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    text = 'adam: bfloat16 in NumPy needs ml_dtypes: pip install "arrayopt[checkpoint]"'
    with raises(ImportError, text):
        ao.Optimizer("adam", state_dtype="bfloat16").init(W)


def test_the_import_itself_says_what_to_install(monkeypatch):
    for name in [m for m in sys.modules if m.startswith("arrayopt.backends.dask")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dask", None)
    with raises(ImportError, 'pip install "arrayopt[dask]"'):
        import arrayopt.backends.dask  # noqa: F401
    with pytest.raises(ImportError) as error:
        backends.load("dask")
    assert str(error.value).count("pip install") == 1


def _fails(name):
    raise ModuleNotFoundError(f"No module named {name!r}")


def test_nonfinite_raise_cannot_be_traced():
    jax = pytest.importorskip("jax")
    x = jax.numpy.ones(2)
    opt = ao.Optimizer("adamax", nonfinite="raise")
    with raises(TypeError, 'adamax: nonfinite="raise" cannot work under a trace'):
        jax.jit(opt.step)(x, x, opt.init(x))


def test_options_that_decide_the_slots_go_with_the_state():
    opt = ao.Optimizer("maxva_madam")
    with raises(ValueError, "maxva_madam: the state has no slot 'top'", "other options"):
        opt.step(W, W, opt.init(W), amsgrad=True)
    grand = ao.Optimizer("maxva_madam", amsgrad=True)
    with raises(ValueError, "maxva_madam: the state has a slot 'top'", "other options"):
        grand.step(W, W, grand.init(W), amsgrad=False)
    with raises(ValueError, "sgd: the state has no slot 'm'"):
        ao.Optimizer("sgd", momentum=0.9).step(W, W, ao.Optimizer("sgd").init(W))
    moving = ao.Optimizer("sgd", momentum=0.9)
    moving.step(W, W, moving.init(W), momentum=0.5)
    with raises(ValueError, "adam: the state's shared part is that of another rule"):
        adam = ao.Optimizer("adam")
        adam.step(W, W, adam.init(W)._replace(shared=ao.Optimizer("mada").init(W).shared))


def test_numpy_scalars_are_checked_together_too():
    with raises(ValueError, "maxva_madam: b_hi=1 needs b_first"):
        ao.Optimizer("maxva_madam", b_hi=np.float32(1))
    with raises(ValueError, "mada: b2 is learned in"):
        ao.Optimizer("mada", b2=np.asarray(0.999))


def test_a_gradient_that_overflows_in_the_parameters_dtype_is_not_finite():
    opt = ao.Optimizer("adam", nonfinite="raise")
    p = np.ones(2, np.float32)
    with raises(FloatingPointError, "adam: the gradient of params is not finite"):
        opt.step(p, np.full(2, 1e300), opt.init(p))


def test_devices_of_parameters_that_depend_on_one_another():
    strict = adapter("strict")
    with strict.session("float64"):
        there = strict.xp.asarray(W.tolist(), device=strict.xp.Device("device1"))
        params = {"a": strict.asarray(W), "b": there}
        stepped(params, params)  # elementwise: no matter
        with raises(ValueError, "mada: all parameters must be on one device, got"):
            stepped(params, params, ao.Optimizer("mada"))
        with raises(ValueError, "adamax: a hyperparameter is on", "device1"):
            stepped({"a": strict.asarray(W)}, {"a": strict.asarray(W)}, lr=there)


@pytest.mark.parametrize(
    ("name", "found"), [("MAdam", "maxva_madam"), ("lamadam", "maxva_lamadam")]
)
def test_a_rules_name_in_the_literature(name, found):
    with raises(ValueError, f"no rule is named {name!r}; did you mean", found):
        ao.Optimizer(name)
    with raises(ValueError, 'it is adam with decay="decoupled"'):
        ao.Optimizer("AdamW")
