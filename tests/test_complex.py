"""Complex parameters: as two reals beside torch, by their modulus beside optax."""

import contextlib
import pickle

import numpy as np
import optree
import pytest
from conftest import adapter, package

import arrayopt as ao
from arrayopt._complex import joined, pairs
from arrayopt._schema import each_step

STEPS = 12
LIBRARIES = ("numpy", "torch", "jax", "dask", "strict")


def problem(steps=STEPS, seed=3):
    """Read-only parameters, one of them real, and gradients, of many sizes."""
    rng = np.random.default_rng(seed)

    def tree():
        made = {
            "w": rng.standard_normal((4, 2)) + 1j * rng.standard_normal((4, 2)),
            "b": rng.standard_normal(2),
            "s": np.asarray(rng.standard_normal() * (1 - 2j)),
        }
        for x in made.values():
            x.flags.writeable = False
        return made  # fmt: skip

    scale = 10 ** rng.uniform(-2, 1, steps)
    return tree(), [optree.tree_map(lambda x, s=s: np.asarray(s * x), tree()) for s in scale]


def walk(opt, params, grads, state=None):
    state = opt.init(params) if state is None else state
    path = []
    for g in grads:
        params, state = opt.step(params, g, state, **dict.fromkeys(each_step(opt.rule), 1.5))
        path.append((params, state))
    return path


def near(got, want, bound=1e-12):
    """Every parameter, in units of the largest value that its array had."""
    for k in want[0]:
        ours, theirs = (np.stack([np.asarray(p[k]) for p in path]) for path in (got, want))
        assert ours.dtype == theirs.dtype
        assert np.all(np.abs(ours - theirs) <= bound * np.max(np.abs(theirs)))


def params_of(path):
    return [p for p, _ in path]


def same(a, b):
    for x, y in zip(optree.tree_leaves(a), optree.tree_leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


TORCH = {
    "Adam": ("adam", {"lr": 0.1}, {"lr": 0.1}),
    "Adam, coupled decay": ("adam", *({"lr": 0.1, "weight_decay": 0.2},) * 2),
    "SGD": ("sgd", {"lr": 0.1, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.9}),
    "RMSprop": ("rmsprop", {"lr": 0.1, "centered": True}, {"lr": 0.1, "centered": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", TORCH)
def test_two_reals_is_what_torch_does(case):
    torch = package("torch")
    rule, ours, theirs = TORCH[case]
    params, grads = problem()
    tensors = {k: torch.nn.Parameter(torch.tensor(x)) for k, x in params.items()}
    opt = getattr(torch.optim, case.partition(",")[0])(list(tensors.values()), **theirs)
    want = []
    for g in grads:
        for k, p in tensors.items():
            p.grad = torch.tensor(g[k])
        opt.step()
        want.append({k: p.detach().numpy().copy() for k, p in tensors.items()})
    near(params_of(walk(ao.Optimizer(rule, complex="two_reals", **ours), params, grads)), want)


OPTAX = {
    "adam": ({"lr": 0.1}, lambda o: o.adam(0.1)),
    "adam, decoupled decay": (
        {"lr": 0.1, "weight_decay": 0.2, "decay": "decoupled"},
        lambda o: o.adamw(0.1, weight_decay=0.2),
    ),
    "sgd": ({"lr": 0.1, "momentum": 0.9}, lambda o: o.sgd(0.1, momentum=0.9)),
    "rmsprop": (
        {"lr": 0.1, "b2": 0.9, "centered": True, "eps": 0.0, "eps_root": 1e-8},
        lambda o: o.rmsprop(0.1, decay=0.9, centered=True),
    ),
    "adabelief": ({"lr": 0.1}, lambda o: o.adabelief(0.1)),
    "yogi": ({"lr": 0.1}, lambda o: o.yogi(0.1)),
    "adagrad": (
        {"lr": 0.1, "eps": 0.0, "eps_root": 1e-7, "initial_accumulator": 0.1},
        lambda o: o.adagrad(0.1),
    ),
    "adam+clip_by_global_norm": (
        {"lr": 0.1, "clip_norm": 0.5, "clip_eps": 0.0},
        lambda o: o.chain(o.clip_by_global_norm(0.5), o.adam(0.1)),
    ),
}


@pytest.mark.parametrize("case", OPTAX)
def test_modulus_is_what_optax_does(case):
    optax, jax = package("optax"), package("jax")
    options, make = OPTAX[case]
    params, grads = problem()
    with jax.enable_x64(True):
        tx, p = make(optax), optree.tree_map(jax.numpy.asarray, params)
        state, want = tx.init(p), []
        for g in grads:
            updates, state = tx.update(optree.tree_map(jax.numpy.asarray, g), state, p)
            p = optax.apply_updates(p, updates)
            want.append(optree.tree_map(np.asarray, p))
    opt = ao.Optimizer(case.partition(",")[0], complex="modulus", **options)
    near(params_of(walk(opt, params, grads)), want)


def rules():
    """Those that have a form by modulus."""
    for name in ao.rules.names():
        options = {"initial_accumulator": 0.0} if name == "yogi" else {}  # else its mean has a sign
        with contextlib.suppress(TypeError):
            yield ao.Optimizer(name, complex="modulus", **options)


def test_modulus_is_the_rule_on_the_real_axis_and_turns_with_the_plane():
    """Whatever the rule: complex values without imaginary part are real ones, and where parameters
    and gradients are turned by an angle, the steps are.
    """
    opts = list(rules())
    assert len(opts) > 30
    params, grads = problem(6)
    real = [optree.tree_map(np.real, t) for t in (params, *grads)]
    flat = [optree.tree_map(lambda x: x + 0j, t) for t in real]
    unit = np.exp(0.7j)
    turned = [{k: unit * x for k, x in t.items()} for t in (params, *grads)]
    whole = [optree.tree_map(lambda x: x + 0j, t) for t in (params, *grads)]
    for opt in opts:
        plain = ao.Optimizer(opt.name, **opt.options() | {"complex": None})
        want = params_of(walk(plain, real[0], real[1:]))
        got = params_of(walk(opt, flat[0], flat[1:]))
        near([optree.tree_map(np.real, p) for p in got], want)
        before = params_of(walk(opt, whole[0], whole[1:]))
        near(params_of(walk(opt, turned[0], turned[1:])),
             [{k: unit * x for k, x in p.items()} for p in before])  # fmt: skip


def test_what_has_no_modulus():
    for rule, what in (("lion", "gt"), ("signum", "gt"), ("muon", ""), ("adopt", "maximum")):
        text = rf"^{rule}: no complex='modulus' for this rule: .*{what}"
        with pytest.raises(TypeError, match=text):
            ao.Optimizer(rule, complex="modulus")


def test_slots_of_the_modulus_are_real_where_they_can_be():
    params, grads = problem()
    opt = ao.Optimizer("amsgrad", complex="modulus")
    for state in (opt.init(params), walk(opt, params, grads[:3])[-1][1]):
        dtypes = [{k: x.dtype for k, x in s.items()} for s in state.slots]
        real = dict.fromkeys("wbs", np.dtype(float))
        assert dtypes == [{k: x.dtype for k, x in params.items()}, real, real]
    opt = ao.Optimizer("sgd", complex="modulus", momentum=lambda n: 0.9)
    assert opt.init(params).slots.m["w"].dtype == complex


@pytest.mark.parametrize("mode", ["two_reals", "modulus"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_on_every_library(mode, name):
    if name in ("dask", "strict") and mode == "modulus":
        pytest.skip("promised of NumPy, torch and JAX")
    library = adapter(name)
    params, grads = problem(5)
    options = {"complex": mode, "lr": lambda n: 0.1 / (1 + n), "nonfinite": "skip"}
    opt = ao.Optimizer("adam+ema", **options)
    want = walk(opt, params, grads)
    with library.session("float64"):
        p, *gs = (optree.tree_map(library.asarray, t) for t in (params, *grads))
        got = walk(opt, p, gs)
        last = optree.tree_map(library.asnumpy, opt.eval_params(*got[-1]))
        got = [optree.tree_map(library.asnumpy, q) for q, _ in got]
    near(got, params_of(want))
    near([last], [opt.eval_params(*want[-1])])


@pytest.mark.parametrize("mode", ["two_reals", "modulus"])
def test_under_jit_and_scan(mode):
    jax = package("jax")
    params, grads = problem(5)
    opt = ao.Optimizer("adam", complex=mode, nonfinite="skip")
    with jax.enable_x64(True):
        p, *gs = (optree.tree_map(jax.numpy.asarray, t) for t in (params, *grads))
        step = jax.jit(opt.step, static_argnames=())
        state = jax.jit(opt.init)(p)
        for g in gs:  # a rate that is traced
            p, state = step(p, g, state, lr=0.1)
        assert step._cache_size() == 1
        start = optree.tree_map(jax.numpy.asarray, params)
        stacked = optree.tree_map(lambda *x: jax.numpy.stack(x), *gs)
        (again, _), _ = jax.lax.scan(
            lambda c, g: (opt.step(c[0], g, c[1], lr=0.1), None), (start, opt.init(start)), stacked
        )
    want = params_of(walk(ao.Optimizer("adam", complex=mode, lr=0.1), params, grads))[-1:]
    near([optree.tree_map(np.asarray, p)], want)
    near([optree.tree_map(np.asarray, again)], want)


def test_pairs_share_memory_and_come_back():
    z = np.asfortranarray(problem()[0]["w"])
    assert np.shares_memory(pairs(z), z)
    assert pairs(z).shape == (4, 2, 2)
    odd = np.asarray([np.inf + 1j, 1 + np.inf * 1j, complex(np.nan, 2), -0.0 - 0j])
    for name in ("numpy", "torch", "jax"):
        library = adapter(name)
        with library.session("float64"):
            for x in (z, z[::2, 0], np.asarray(z[0, 0]), odd, z.astype(np.complex64)):
                same(library.asnumpy(joined(pairs(library.asarray(x)))), x)


@pytest.mark.parametrize("mode", ["two_reals", "modulus"])
def test_it_goes_on_from_a_pickle_and_says_what_it_is(mode, tmp_path):
    params, grads = problem()
    opt = pickle.loads(pickle.dumps(ao.Optimizer("adam", complex=mode)))
    assert f"complex={mode!r}" in repr(opt)
    assert opt.options()["complex"] == mode
    path = walk(opt, params, grads)
    same(walk(opt, path[4][0], grads[5:], path[4][1])[-1], path[-1])
    same((params, grads), problem())  # nothing was written


@pytest.mark.parametrize("mode", ["two_reals", "modulus"])
def test_options_around_the_rule(mode):
    params, grads = problem(4)
    mask = {"w": True, "b": False, "s": False}
    seen = []

    def axes(p):
        seen.append({k: x.shape for k, x in p.items()})
        return {k: x.ndim == 2 for k, x in p.items()}

    def run(**options):
        return walk(ao.Optimizer("adam", complex=mode, weight_decay=0.1, **options), params, grads)

    same(run(decay_mask=axes), run(decay_mask=mask))
    assert seen[0] == {"w": (4, 2), "b": (2,), "s": ()}
    up = ao.Optimizer("adam", complex=mode, weight_decay=0.1, maximize=True)
    same(walk(up, params, optree.tree_map(np.negative, grads)), run())
    bad = grads[0] | {"s": np.asarray(complex(1, np.nan))}
    for how, kind in (("skip", None), ("raise", FloatingPointError)):
        opt = ao.Optimizer("adam", complex=mode, nonfinite=how)
        state = opt.init(params)
        with (
            pytest.raises(kind, match=r"the gradient of \['s'\]")
            if kind
            else contextlib.nullcontext()
        ):
            same(opt.step(params, bad, state), (params, state))  # fmt: skip
    opt = ao.Optimizer("adam", complex=mode)
    after, _ = opt.step(params, grads[0] | {"w": None}, opt.init(params))
    assert after["w"] is params["w"]
    half = ao.Optimizer("adam", complex=mode, state_dtype={"v": "float32"}).init(params)
    assert {x.dtype for x in half.slots.v.values()} == {np.dtype("float32")}


def test_two_reals_in_place():
    from arrayopt.backends.numpy import InPlace

    params, grads = problem()
    want = walk(ao.Optimizer("adam", complex="two_reals", lr=0.1), params, grads)[-1]
    for engine in (None, "blocks", "eager"):
        mine = optree.tree_map(np.array, params)
        opt = InPlace(mine, "adam", complex="two_reals", lr=0.1, engine=engine)
        for k, g in enumerate(grads):
            opt.step(g)
            if k == 5:
                opt = pickle.loads(pickle.dumps(opt))
        same(opt.params, want[0])
        same(opt.state.slots, want[1].slots)
    with pytest.raises(TypeError, match=r"adam: complex='modulus' cannot be done in place"):
        InPlace(mine, "adam", complex="modulus")


def test_errors():
    params, grads = problem()
    with pytest.raises(ValueError, match=r"adam: complex must be one of .*'modulus'\), got 'real'"):
        ao.Optimizer("adam", complex="real")
    with pytest.raises(TypeError, match=r"'s'.* got dtype complex128.* complex='two_reals' or"):
        ao.Optimizer("adam").init(params)
    for mode in ("two_reals", "modulus"):
        opt = ao.Optimizer("adam", complex=mode)
        state = opt.init(params)
        with pytest.raises(TypeError, match=r"gradient of \['w'\] must be complex as .*float64"):
            opt.step(params, grads[0] | {"w": np.ones((4, 2))}, state)
        with pytest.raises(TypeError, match=r"gradient of \['b'\] must be real as .*complex128"):
            opt.step(params, grads[0] | {"b": np.ones(2) + 0j}, state)
        with pytest.raises(ValueError, match=r"gradient of \['w'\] must have shape"):
            opt.step(params, grads[0] | {"w": np.ones((2, 4)) + 0j}, state)
        with pytest.raises(TypeError, match="adam: state must be what init or step gave"):
            opt.step(params, grads[0], state.slots)
        with pytest.raises(TypeError, match=r"'w'.* must be real floating.* int64"):
            opt.init({"w": np.ones(2, int)})
    opt = ao.Optimizer("adam", complex="two_reals", lr=np.ones(2))
    state = opt.init(params)
    with pytest.raises(ValueError, match="adam: with complex='two_reals' lr must be a number or 0"):
        opt.step(params, grads[0], state)
    with pytest.raises(TypeError, match=r"adam: .*there are no complex arrays of bfloat16"):
        ao.Optimizer("adam", complex="modulus", state_dtype="bfloat16")
