"""Sweeps: entry i of every result is what an optimizer with the values i makes of the entries i."""

import pickle
import runpy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optree
import pytest
from conftest import adapter, package, sums

import arrayopt as ao
from arrayopt._schema import hyperparameters

N = 4


def rows(tree, i):
    return optree.tree_map(lambda x: x[i, ...], tree)


def data(n=N, steps=4, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"w": (n, 3, 4), "b": (n, 4), "s": (n,)}

    def draw(scale):
        return {k: (scale * rng.standard_normal(s)).astype(dtype) for k, s in shapes.items()}

    return draw(1.0), [draw(np.exp(rng.standard_normal())) for _ in range(steps)]


def walk(opt, params, grads, *, step=None, **each):
    state = opt.init(params)
    for g in grads:
        params, state = (step or opt.step)(params, g, state, **each)
    return params, state


def compare(got, rule, options, params, grads, *, backend=None, eps=0.0, **each):
    """Every entry beside a run of its own; ``eps``: of the largest element, 0 for the same bits."""
    back = np.asarray if backend is None else backend.asnumpy
    p, state = optree.tree_map(lambda x: np.asarray(back(x)), got[0]), got[1]
    for i in range(len(p["w"])):
        mine = {k: pick(v, i) for k, v in options.items()}
        entries = rows(params, i), [rows(g, i) for g in grads]
        if backend is not None:
            entries = optree.tree_map(backend.asarray, entries)
        want, z = walk(
            ao.Optimizer(rule, **mine), *entries, **{k: pick(v, i) for k, v in each.items()}
        )
        for k in p:
            a, b = p[k][i], np.asarray(back(want[k]))
            assert a.dtype == b.dtype
            bound = eps * np.finfo(b.dtype).eps * np.abs(b).max()
            assert np.array_equal(a, b, equal_nan=True) or np.abs(a - b).max() <= bound, (i, k)
        assert number(state.step, i) == number(z.step, i)
        assert type(state.slots) is type(z.slots)


def pick(value, i):
    if callable(value):
        return lambda count: pick(value(count), i)
    return value[i] if getattr(value, "shape", ()) else value


def number(step, i):
    return int(step[i] if getattr(step, "shape", ()) else step)


# --- equal to runs of their own


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("adam", {}),
        ("sgd", {"momentum": 0.9, "nesterov": True}),
        ("madam", {}),
        ("lamb", {}),
        ("mada", {}),
        ("muon", {}),
    ],
)
def test_100_learning_rates_are_100_runs(rule, options, library):
    backend = adapter(library)
    params, grads = data(100, steps=2)
    options |= {"lr": np.geomspace(1e-4, 1e-1, 100), "weight_decay": 0.01}
    got = walk(ao.Sweep(rule, **options), *optree.tree_map(backend.asarray, (params, grads)))
    eps = 4 if sums(rule) else 0
    compare(got, rule, options, params, grads, backend=backend, eps=eps)


def test_it_is_the_formula():
    """Adam with swept rates, means and decay, beside its formula in float64."""
    lr, b1, b2 = np.array([1e-3, 0.1, 1.0]), np.array([0.0, 0.9, 0.99]), np.array([0.5, 0.9, 0.999])
    decay = np.array([0.0, 0.1, 0.3])
    params, grads = data(3, dtype=np.float64)
    opt = ao.Sweep("adam", lr=lr, b1=b1, b2=b2, weight_decay=decay, decay="decoupled")
    got, _ = walk(opt, params, grads)
    for i in range(3):
        p, m, v = params["w"][i], 0.0, 0.0
        for t, g in enumerate((g["w"][i] for g in grads), 1):
            m, v = b1[i] * m + (1 - b1[i]) * g, b2[i] * v + (1 - b2[i]) * g**2
            m_hat, v_hat = m / (1 - b1[i] ** t), v / (1 - b2[i] ** t)
            p = p * (1 - lr[i] * decay[i]) - lr[i] * m_hat / (np.sqrt(v_hat) + 1e-8)
        np.testing.assert_allclose(got["w"][i], p, rtol=1e-12, atol=1e-12)


def values(hyper: Any) -> np.ndarray | None:
    """Legal values near the default; None for what is a choice or a whole number."""
    if isinstance(hyper.legal, tuple) or hyper.each_step:
        return None
    d, (low, high) = 0.9 if hyper.default is None else hyper.default, hyper.legal.bounds
    if d == 0:
        return np.linspace(0.1, 0.4, N)
    if np.isinf(d):
        return np.linspace(1, 3, N)
    if high == 1 or low == -np.inf:
        return np.linspace(0.9 * d, d, N)
    return np.linspace(d, 2 * d, N)


def test_each_hyperparameter_alone(rule):
    params, grads = data(steps=2)
    skip = {("muon", "ns_steps"), ("mada", "b2")}  # whole numbers; and an interval that is learned
    for name, hyper in hyperparameters(ao.rules.find(rule)).items():
        swept = values(hyper)
        if swept is None or (rule, name) in skip:
            continue
        got = walk(ao.Sweep(rule, **{name: swept}), params, grads)
        power = (rule, name) == ("schedule_free_adamw", "weight_lr_power")
        eps = 4 if sums(rule) or power else 0
        compare(got, rule, {name: swept}, params, grads, eps=eps)


@pytest.mark.parametrize("rule", ["adam", "mada", "muon"])
def test_on_every_library_some_runs_skip(backend, rule):
    if backend.__name__.endswith("jax"):
        pytest.skip("under jax.jit, below")
    if backend.__name__.endswith("dask") and rule != "adam":
        pytest.skip("it is NumPy, slowly")
    params, grads = data(3, steps=3)
    grads[1]["w"][1, 0, 0] = np.nan
    rates = np.array([1e-3, 1e-2, 0.1])
    options = {"lr": lambda n: rates * 0.5**n, "nonfinite": "skip"}  # each by its own count
    got = walk(ao.Sweep(rule, **options), *optree.tree_map(backend.asarray, (params, grads)))
    eps = 4 if backend.__name__.endswith("mlx") or sums(rule) else 0
    compare(got, rule, options, params, grads, backend=backend, eps=eps)


@pytest.mark.parametrize(
    ("rule", "nonfinite"),
    [("adam", "propagate"), ("lamb", "skip"), ("dog", "skip"), ("muon", "skip")],
)
def test_jax_jit_compiles_once(rule, nonfinite):
    jax = package("jax")
    params, grads = data(3, steps=3)
    if nonfinite == "skip":
        grads[1]["b"][2, 1] = np.inf
    rates = np.array([1e-3, 1e-2, 0.1])
    name = "weight_decay" if rule == "dog" else "lr"
    options = {name: lambda n: rates * 0.5**n, "nonfinite": nonfinite}
    opt = ao.Sweep(rule, **options)
    step = jax.jit(opt.step)
    got = walk(opt, *jax.tree.map(jax.numpy.asarray, (params, grads)), step=step)
    assert step._cache_size() == 1
    compare(got, rule, options, params, grads, backend=adapter("jax"), eps=16)


@pytest.mark.parametrize("shape", [(), (N,)])
def test_jax_traces_what_a_step_is_given(shape):
    jax = package("jax")
    params, grads = jax.tree.map(jax.numpy.asarray, data())
    opt = ao.Sweep("adam", b1=np.linspace(0.5, 0.9, N))
    lr = jax.numpy.broadcast_to(jax.numpy.linspace(0.1, 0.2, N) if shape else 0.1, shape)
    got, _ = walk(opt, params, grads, step=jax.jit(opt.step), lr=lr)
    want, _ = walk(opt, params, grads, lr=np.asarray(lr))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7), got, want)


def test_torch_tensors_as_hyperparameters():
    torch = package("torch")
    params, grads = optree.tree_map(torch.tensor, data(dtype=np.float64))
    rates = torch.linspace(0.1, 0.4, N, dtype=torch.float64)
    got, _ = walk(ao.Sweep("adam", lr=rates, b1=torch.tensor(0.8)), params, grads)
    want, _ = walk(ao.Sweep("adam", lr=rates.numpy(), b1=0.8), params, grads)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)  # 0.8 is a float32 in one of them


# --- what surrounds a rule


def test_options_are_those_of_every_run():
    params, grads = data()
    grads = [g | {"s": None} for g in grads]
    seen = []

    def matrices(p):
        seen.append(p["w"].shape)
        return optree.tree_map(lambda x: x.ndim == 2, p)

    opt = ao.Sweep(
        "sgd", weight_decay=np.linspace(0, 0.3, N), lr=0.1, decay_mask=matrices, maximize=True
    )
    got, _ = walk(opt, params, grads)
    assert set(seen) == {(3, 4)}
    np.testing.assert_array_equal(got["s"], params["s"])
    for i in range(N):
        w, b = params["w"][i], params["b"][i]
        for g in grads:
            rate = np.linspace(0, 0.3, N)[i]
            w, b = w - np.float32(0.1) * (-g["w"][i] + np.float32(rate) * w), b + 0.1 * g["b"][i]
        np.testing.assert_allclose(got["w"][i], w, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got["b"][i], b, rtol=1e-5, atol=1e-6)


def test_half_precision_and_0d_slots():
    params, grads = data(dtype=np.float16)
    options = {"lr": np.linspace(0.01, 0.1, N)}
    for rule in ("adam", "schedule_free_adamw"):
        got = walk(ao.Sweep(rule, **options), params, grads)
        compare(got, rule, options, params, grads)
        assert {x.dtype for x in optree.tree_leaves(got[1].slots)} == {np.dtype("float32")}
        assert {len(x) for x in optree.tree_leaves(got[1].slots)} == {N}


def test_evaluated_parameters():
    params, grads = data()
    opt = ao.Sweep("schedule_free_sgd", lr=np.linspace(0.1, 0.4, N))
    p, s = walk(opt, params, grads)
    got = opt.eval_params(p, s)
    for i in range(N):
        one = ao.Optimizer("schedule_free_sgd", lr=np.linspace(0.1, 0.4, N)[i])
        want = one.eval_params(*walk(one, rows(params, i), [rows(g, i) for g in grads]))
        optree.tree_map(np.testing.assert_array_equal, rows(got, i), want)
    plain = ao.Sweep("adam", lr=np.ones(N))
    assert plain.eval_params(params, plain.init(params)) is params


def test_losses_of_all_runs():
    params, grads = data()
    options, losses = {"lr": np.linspace(0.1, 0.4, N)}, np.linspace(1.0, 5.0, N)
    got = walk(ao.Sweep("polyak_sgd", **options), params, grads, value=losses)
    compare(got, "polyak_sgd", options, params, grads, eps=4, value=losses)


@pytest.mark.parametrize("rule", ["adam", "dog", "muon"])
def test_tile_copies_and_step_modifies_nothing(rule):
    opt = ao.Sweep(rule, **{"weight_decay" if rule == "dog" else "lr": np.linspace(0.1, 0.4, N)})
    w = np.ones((2, 3))
    params = opt.tile({"w": w})
    w[...] = 7
    assert params["w"].shape == (N, 2, 3)
    state = opt.init(params)
    new, after = opt.step(params, params, state)
    kept = optree.tree_map(np.copy, (new, after.slots))
    assert (params["w"] == 1).all()
    params["w"][...] = 7  # the user reuses the buffer
    optree.tree_map(np.testing.assert_array_equal, (new, after.slots), kept)


@pytest.mark.parametrize("rule", ["adam", "muon"])
def test_pickle(rule):
    params, grads = data()
    opt = ao.Sweep(rule, lr=np.linspace(0.1, 0.4, N))
    want = walk(opt, params, grads)[0]
    other = pickle.loads(pickle.dumps(opt))
    assert repr(other) == repr(opt)
    optree.tree_map(np.testing.assert_array_equal, walk(other, params, grads)[0], want)


class Turned:
    """A rule that does not say that it needs whole arrays."""

    class State(NamedTuple):
        pass

    @staticmethod
    def init(param, *, xp):
        return Turned.State()

    @staticmethod
    def update(param, grad, state, t, *, lr: ao.Rate = 0.1, xp):
        return param - lr * xp.flip(grad), state


def test_what_is_not_of_single_elements_is_run_after_run():
    params, grads = data()
    options = {"lr": np.linspace(0.1, 0.4, N)}
    opt = ao.Sweep(Turned, **options)
    compare(walk(opt, params, grads), Turned, options, params, grads)
    assert opt.alone


# --- errors


@pytest.mark.parametrize(
    ("rule", "options", "error", "message"),
    [
        ("adam", {}, ValueError, "adam: no hyperparameter is an array"),
        ("adam", {"lr": np.zeros(0)}, ValueError, "got 0 of lr"),
        (
            "adam",
            {"lr": np.ones(2), "b1": np.zeros(3)},
            ValueError,
            "adam: arrays must have one value for each run, got 2 of lr, 3 of b1",
        ),
        ("adam", {"lr": np.ones((2, 2))}, ValueError, r"adam: lr must be .* got shape \(2, 2\)"),
        (
            "adam",
            {"b1": np.array([0.5, 1.5])},
            ValueError,
            r"adam: b1 must be in \[0, 1\), got .*1.5",
        ),
        ("adam", {"rate": np.ones(2)}, TypeError, "adam .* has no hyperparameter 'rate'"),
        ("adam", {"eps_hat": np.array([True, False])}, ValueError, "adam: eps_hat must be"),
        (
            "maxva_madam",
            {"b_lo": np.array([0.5, 0.9]), "b_hi": 0.8},
            ValueError,
            "maxva_madam: ",
        ),
    ],
)
def test_bad_options(rule, options, error, message):
    with pytest.raises(error, match=message):
        ao.Sweep(rule, **options)


@pytest.mark.parametrize("rule", ["adam", "muon"])
def test_bad_arguments(rule):
    params, grads = data()
    opt = ao.Sweep(rule, lr=np.ones(N))
    state = opt.init(params)

    def fails(error, message, p=params, g=grads[0], s=state, **override):
        with pytest.raises(error, match=message):
            opt.step(p, g, s, **override)

    short = grads[0] | {"b": grads[0]["b"][:2]}
    fails(
        ValueError, rf"{rule}: gradients: \['b'\] must have a leading axis of 4.*\(2, 4\)", g=short
    )
    other = grads[0] | {"b": grads[0]["b"][:, :2]}
    fails(ValueError, rf"{rule}: gradient of \['b'\] must have shape \(4,\), got \(2,\)", g=other)
    fails(ValueError, "must have the structure of the parameters", g={"w": grads[0]["w"]})
    fails(TypeError, rf"{rule}: gradient of \['b'\] must be an array", g=grads[0] | {"b": "no"})
    fails(TypeError, "state must be what init or step gave, got dict", s={})
    fails(ValueError, f"{rule}: lr must have 4 values, got 3", lr=np.ones(3))
    fails(ValueError, rf"{rule}: lr must be in \[0, inf\)", lr=np.array([1, 1, -1.0, 1]))
    fails(TypeError, "has no hyperparameter 'rate'", rate=1.0)
    with pytest.raises(ValueError, match=r"params: \['w'\] must have a leading axis of 4"):
        opt.init({"w": np.ones(3)})


@pytest.mark.parametrize("rule", ["adam", "muon"])
def test_raise_names_the_run(rule):
    params, grads = data()
    opt = ao.Sweep(rule, lr=np.ones(N), nonfinite="raise")
    params, state = opt.step(params, grads[0], opt.init(params))
    grads[1]["w"][2, 1, 1] = np.inf
    with pytest.raises(FloatingPointError, match=rf"run 2: {rule}: .*\['w'\] is not finite"):
        opt.step(params, grads[1], state)


def test_raise_cannot_be_traced():
    jax = package("jax")
    params, grads = jax.tree.map(jax.numpy.asarray, data())
    opt = ao.Sweep("adam", lr=np.ones(N), nonfinite="raise")
    with pytest.raises(TypeError, match="cannot work under a trace"):
        jax.jit(opt.step)(params, grads[0], opt.init(params))


def test_runs_that_differ_in_slots():
    params, _ = data()
    opt = ao.Sweep("shampoo", momentum=np.array([0.0, 0.5, 0.5, 0.5]))
    with pytest.raises(ValueError, match="shampoo: slot 'm' is off in some runs"):
        opt.init(params)
    options = {"momentum": np.array([0.0, 0.5, 0.5, 0.5])}  # no need where all are one computation
    params, grads = data()
    got = walk(ao.Sweep("sgd", **options), params, grads)[0]
    for i in range(N):
        one = ao.Optimizer("sgd", momentum=options["momentum"][i])
        want = walk(one, rows(params, i), [rows(g, i) for g in grads])[0]
        optree.tree_map(np.testing.assert_array_equal, rows(got, i), want)


def test_example(capsys):
    runpy.run_path(str(Path(__file__).parent.parent / "examples" / "sweep.py"))
    assert capsys.readouterr().out.startswith("best of 100: lr = 0.242, ")


def test_a_sweep_is_not_saved_as_one(tmp_path):
    opt = ao.Sweep("sgd", lr=np.array([0.1, 0.2]))
    params = opt.tile(np.ones(3))
    with pytest.raises(TypeError, match=r"save takes .* got a Sweep; save each of its runs"):
        ao.save(tmp_path / "run", opt, params, opt.init(params))
    assert not (tmp_path / "run").exists()
