"""The torch classes: what they are, the numbers they give, and what they live with."""

import copy
import inspect
import pickle
import subprocess
import sys
import textwrap
import weakref
from typing import NamedTuple

import numpy as np
import pytest
from conftest import REPRESENTATIVE, sums

import arrayopt as ao
from arrayopt import parity
from arrayopt._options import DECAYS
from arrayopt._step import is_elementwise

torch = pytest.importorskip("torch")

import arrayopt.backends.torch as adapter  # noqa: E402
from arrayopt.backends.torch import CLASSES, MADA, SGD, Adam, Adamax, AMSGrad, Madam  # noqa: E402

SOME = {k: cls for k, cls in CLASSES.items() if cls._form.core.name in REPRESENTATIVE}
every = pytest.mark.parametrize("cls", SOME.values(), ids=list(SOME))
SCHEDULED = torch.optim.lr_scheduler.OneCycleLR


def rule_of(cls):
    return cls._form.core.rule


def spelled(cls, options):
    """A class's keywords, as ``arrayopt.Optimizer`` takes them."""
    options = dict(options)
    betas = options.pop("betas", ())
    return options | {f"b{i}": b for i, b in enumerate(betas, 1)}


def params_of(dtype, seed=0):
    gen = torch.Generator().manual_seed(seed)
    shapes = [(4, 7), (7,), (), (0, 3), (3, 1)]
    return [torch.randn(s, generator=gen, dtype=torch.float64).to(dtype) for s in shapes]


def grads_of(params, step):
    gen = torch.Generator().manual_seed(100 + step)
    scale = float(np.exp(np.sin(step)))
    return [
        scale * torch.randn(p.shape, generator=gen, dtype=torch.float64).to(p.dtype) for p in params
    ]


def leaf(x):
    return torch.nn.Parameter(x.detach().clone())


def variants(cls):
    """Keywords, each with a value other than its default where one is easily found."""
    found = [{}, {"weight_decay": 0.1, "lr": 0.03}, {"weight_decay": 0.1, "maximize": True}]
    found += [{"weight_decay": 0.1, "decay": d} for d in ("coupled", "decoupled", "independent")]
    for name, default in cls._form.options.items():
        if isinstance(default, bool) and name != "maximize":
            found.append({name: not default})
    for option in ({"accumulate": "mean"}, {"yogi_reference": "ema"}, {"first_difference": "zero"}):
        found += [option] if option.keys() <= cls._form.options.keys() else []
    if cls is SGD:
        found.append({"momentum": 0.9, "dampening": 0.5})
        found.append({"momentum": 0.9, "nesterov": True})
    if cls is MADA:
        found.append({"betas": (0.8, 0.95, 0.1), "rho": 0.7, "c": 0.6, "hyper_momentum": 0.5})
    return found


# What the classes are.


@every
def test_is_a_class_that_python_and_torch_can_find(cls):
    assert issubclass(cls, torch.optim.Optimizer)
    assert getattr(sys.modules[cls.__module__], cls.__qualname__) is cls
    assert pickle.loads(pickle.dumps(cls)) is cls
    assert cls.__name__ in adapter.__all__
    assert cls.__doc__.startswith(inspect.getdoc(rule_of(cls)))
    for name, default in cls._form.options.items():
        assert f"\n    {name}: " in cls.__doc__
        assert f"Default: {default!r}." in cls.__doc__


@every
def test_its_signature_is_the_rules(cls):
    given = inspect.signature(cls).parameters
    assert list(given)[:2] == ["params", "lr"]
    assert given["lr"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert all(p.kind is p.KEYWORD_ONLY for p in list(given.values())[2:])
    found = {k: h.default for k, h in ao.hyperparameters(rule_of(cls)).items()}
    found |= {"weight_decay": 0.0, "decay": rule_of(cls).DECAY, "maximize": False}
    found |= {"state_dtype": None, "engine": None}
    assert spelled(cls, {k: p.default for k, p in given.items() if k != "params"}) == found
    assert "betas" in given if {"b1", "b2"} <= found.keys() else "betas" not in given


def test_there_is_a_class_for_every_rule_by_its_name():
    assert {"Adam", "AMSGrad", "LaMAdam", "SimplifiedAdEMAMix"} <= {*CLASSES}
    assert sorted(c._form.core.name for c in CLASSES.values()) == ao.rules.names()
    assert str(inspect.signature(Madam)).startswith(
        "(params, lr: float | torch.Tensor = 0.01, *, p_scale: float | torch.Tensor = 3.0,"
    )
    assert inspect.signature(MADA).parameters["betas"].default == (0.9, 0.99, 0.0)


def test_a_new_rule_has_a_class_with_no_other_edit(tmp_path):
    source = inspect.getsource(ao.rules.find("adamax"))
    source = source.replace('r"""Adamax:', 'r"""Brand New-Rule: a copy of', 1)
    (tmp_path / "aaa_new.py").write_text(source.replace("from ..", "from arrayopt."))
    code = f"""
        import pickle, torch, arrayopt
        arrayopt.rules.__path__.append({str(tmp_path)!r})
        from arrayopt.backends.torch import BrandNewRule
        p = torch.nn.Parameter(torch.ones(2))
        p.grad = torch.ones(2)
        opt = BrandNewRule([p], lr=0.5, betas=(0.9, 0.99))
        opt.step()
        print(p.tolist(), type(pickle.loads(pickle.dumps(opt))).__name__)
    """
    run = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.stdout == "[0.5, 0.5] BrandNewRule\n", done.stderr


def test_lr_may_be_given_by_position_and_numpy_numbers_become_pythons():
    opt = Adamax([leaf(torch.ones(2))], np.float32(0.5), betas=[np.float64(0.5), np.array(0.25)])
    group = opt.param_groups[0]
    assert (group["lr"], group["betas"]) == (0.5, (0.5, 0.25))
    assert [type(x) for x in (group["lr"], *group["betas"])] == [float] * 3
    with pytest.raises(AttributeError, match="has no attribute 'Nadam'"):
        adapter.Nadam  # noqa: B018


def test_errors_of_groups():
    p, q = leaf(torch.ones(2)), leaf(torch.ones(2))
    opt = Adamax([p])
    for wrong, kind, text in (
        ({"params": [q], "lr": -1.0}, ValueError, "Invalid learning rate: -1.0"),
        ({"params": [q], "b1": 0.5}, TypeError, "no hyperparameter 'b1'"),
        ({"params": [q], "betas": (0.5, 2)}, ValueError, "Invalid beta parameter at index 1: 2"),
        ({"params": [p]}, ValueError, "more than one parameter group"),
        ({"params": {q}}, TypeError, "ordered collections"),
        ([q], TypeError, "param_group must be a dict"),
    ):
        with pytest.raises(kind, match=text):
            opt.add_param_group(wrong)
        assert len(opt.param_groups) == 1
    opt.add_param_group({"params": [q], "betas": [0.5, 0.6], "initial_lr": 3, "mine": "kept"})
    assert opt.param_groups[1]["betas"] == (0.5, 0.6)
    assert opt.param_groups[1]["mine"] == "kept"
    with pytest.raises(ValueError, match="hlr_b1 is one for the whole optimizer"):
        MADA([{"params": [p], "hlr_b1": 0.0}])


# The numbers.


@pytest.mark.parametrize("engine", ["eager", "fused"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@every
def test_equals_the_optimizer_over_trees_bit_for_bit(cls, dtype, engine):
    if engine == "fused" and not is_elementwise(rule_of(cls)):
        pytest.skip("it works on whole arrays")
    exact = engine == "eager" or parity.bound(cls._form.core.name, "torch", 1)[0] == "ulp"
    wide = "float64" if dtype == "float64" else "float32"
    most = 0 if exact else 100 * torch.finfo(getattr(torch, wide)).eps

    def same(a, b):
        assert a.dtype == b.dtype
        rounded = torch.finfo(a.dtype).eps if a.dtype != getattr(torch, wide) and most else 0
        torch.testing.assert_close(a, b, rtol=most + rounded, atol=most, equal_nan=True)

    # arithmetic and state of half precision are those of float32
    for options in variants(cls)[: 3 if "16" in dtype else None]:
        values = params_of(getattr(torch, dtype))
        opt = ao.Optimizer(rule_of(cls), **spelled(cls, options))
        state = opt.init(values)
        mine = [leaf(v) for v in values]
        its = cls(mine, engine=engine, **options)
        for step in range(6):
            grads = grads_of(values, step)
            values, state = opt.step(values, grads, state)
            for p, g in zip(mine, grads, strict=True):
                p.grad = g
            its.step()
        assert (its._memory is None) == (engine == "eager")
        for i, (p, v) in enumerate(zip(mine, values, strict=True)):
            same(p.detach(), v)
            for name, slot in zip(state.slots._fields, state.slots, strict=True):
                assert (name in its.state[p]) == (not isinstance(slot, tuple)), name
                if name in its.state[p]:
                    same(its.state[p][name], slot[i])
        if cls is MADA:
            kept = its.param_groups[0]["shared"]
            for part in ("value", "velocity"):
                for name, x in getattr(state.shared, part)._asdict().items():
                    same(kept[part][name], x)


DROP_IN = {
    "Adam": (torch.optim.Adam, Adam, {}, {}),
    "Adam-L2": (torch.optim.Adam, Adam, {"weight_decay": 0.1, "eps": 1e-3}, {}),
    "AdamW": (torch.optim.AdamW, Adam, {"weight_decay": 0.1}, {"decay": "decoupled"}),
    "AMSGrad": (
        lambda *a, **k: torch.optim.Adam(*a, amsgrad=True, **k),
        AMSGrad,
        {"weight_decay": 0.1},
        {},
    ),
    "Adamax": (torch.optim.Adamax, Adamax, {"weight_decay": 0.1}, {"eps_in_max": True}),
    "Adamax-maximize": (torch.optim.Adamax, Adamax, {"maximize": True}, {"eps_in_max": True}),
    "SGD": (torch.optim.SGD, SGD, {"weight_decay": 0.1}, {}),
    "SGD-momentum": (torch.optim.SGD, SGD, {"momentum": 0.9, "dampening": 0.3}, {}),
    "SGD-nesterov": (torch.optim.SGD, SGD, {"momentum": 0.9, "nesterov": True}, {}),
}


@pytest.mark.parametrize("case", DROP_IN)
def test_takes_the_place_of_torchs_own(case):
    theirs, ours, common, own = DROP_IN[case]
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    net, x = net.double(), torch.randn(16, 5, dtype=torch.float64)
    nets = net, copy.deepcopy(net)

    def train(net, make, options):
        groups = [{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 0.003}]
        opt = make(groups, lr=0.01, **options)
        cycle = "betas" in opt.defaults or opt.defaults["momentum"] > 0
        scheduler = SCHEDULED(opt, [0.02, 0.01], total_steps=30, cycle_momentum=cycle)

        def closure():
            opt.zero_grad()
            loss = ((net(x) - x.sum(1, keepdim=True)) ** 2).mean()
            loss.backward()
            return loss

        losses = []
        for _ in range(25):
            losses.append(opt.step(closure).item())
            scheduler.step()
        return losses

    losses = [
        train(n, make, options)
        for n, make, options in zip(nets, (theirs, ours), (common, common | own), strict=True)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12)
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(q, p, rtol=1e-12, atol=1e-15)


def test_momentum_cycles_through_betas():
    for cls, read in ((Adamax, lambda g: g["betas"][0]), (SGD, lambda g: g["momentum"])):
        p = leaf(torch.ones(2))
        opt = cls([p], lr=0.1)
        scheduler = SCHEDULED(opt, 0.1, total_steps=10)
        seen = []
        for _ in range(9):
            p.grad = torch.ones(2)
            opt.step()
            scheduler.step()
            seen.append(read(opt.param_groups[0]))
        assert max(seen) > 0.94
        assert min(seen) < 0.86
        m = opt.state[p]["m"][0]
        again = 0.0
        for b in [0.95, *seen[:-1]]:
            again = b * again + (1 if cls is SGD and again else 1 - b if cls is Adamax else 1)
        torch.testing.assert_close(m.item(), again, rtol=1e-5, atol=0)


@every
def test_a_net_learns(cls):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    x = torch.randn(64, 4)
    lr = {"SGD": 0.05, "Prodigy": 1.0, "SimplifiedAdEMAMix": 3e-4}.get(cls.__name__, 0.01)
    opt = cls(net.named_parameters(), lr=lr)
    losses = []
    for _ in range(60):
        opt.zero_grad()
        loss = ((net(x) - x[:, :1] * x[:, 1:2]) ** 2).mean()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# State.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "complex32"])
@pytest.mark.filterwarnings("ignore:ComplexHalf")
@every
def test_loading_keeps_every_bit_of_wide_state(cls, dtype):
    dtype = getattr(torch, dtype)
    gen = torch.Generator().manual_seed(0)
    values = torch.randn(5, 2, generator=gen)
    if dtype.is_complex:
        half = torch.view_as_complex(values.half())
        make = lambda: leaf(half)  # noqa: E731
    else:
        make = lambda: leaf(values.to(dtype))  # noqa: E731
    p, q = make(), make()
    a, b = cls([p]), cls([q])
    for i in range(3):
        p.grad = torch.full_like(p.detach(), 0.1 + i / 7)
        a.step()
    saved = a.state_dict()
    with torch.no_grad():
        q.copy_(p)
    seen = []
    b.register_load_state_dict_post_hook(lambda opt: seen.extend(opt.state[q].values()))
    b.load_state_dict(saved)
    assert all(x is y for x, y in zip(seen, b.state[q].values(), strict=True))
    for name, slot in a.state[p].items():
        mine = b.state[q][name]
        assert mine.dtype == slot.dtype
        assert mine.dtype in (torch.float32, torch.complex64)
        assert torch.equal(mine, slot)
        assert mine.data_ptr() != slot.data_ptr()  # a copy
    p.grad = q.grad = torch.full_like(p.detach(), 0.3)
    a.step(), b.step()
    assert p.tolist() == q.tolist()


def test_state_of_another_rule_or_optimizer_is_refused_and_nothing_changed():
    p = leaf(torch.ones(2))
    p.grad = torch.ones(2)
    for other in (torch.optim.Adam([p]), Madam([p])):
        other.step()
        opt = Adamax([p], lr=0.5)
        with pytest.raises(ValueError, match="adamax has the state m, u, but the one to load has"):
            opt.load_state_dict(other.state_dict())
        assert not opt.state
        assert opt.param_groups[0]["lr"] == 0.5
        assert not opt._optimizer_load_state_dict_pre_hooks


def test_state_is_updated_in_place():
    p = leaf(torch.ones(3))
    opt = AMSGrad([p])
    p.grad = torch.ones(3)
    opt.step()
    before = {k: v.data_ptr() for k, v in opt.state[p].items()} | {"p": p.data_ptr()}
    p.grad = torch.full((3,), 2.0)
    opt.step()
    assert before == {k: v.data_ptr() for k, v in opt.state[p].items()} | {"p": p.data_ptr()}


def test_an_option_may_be_switched_on_and_off():
    p = leaf(torch.ones(3, dtype=torch.float64))
    opt = adapter.MAdam([p])
    for i, on in enumerate((False, True, True, False)):
        opt.param_groups[0]["amsgrad"] = on
        p.grad = torch.full_like(p, i + 1.0)
        opt.step()
        assert ("top" in opt.state[p]) == on


class Rotating:
    """Rotating: a rule that keeps the parameter, the last two gradients, and returns a slot."""

    class State(NamedTuple):
        g: object
        before: object
        first: object
        low: object

    DECAY = "decoupled"

    @staticmethod
    def init(param, *, xp):
        zeros = xp.zeros_like(param)
        return Rotating.State(zeros, zeros, param, param)

    @staticmethod
    def update(param, grad, state, t, *, lr: ao.rules.find("adam").Rate = 0.1, xp):
        low = xp.minimum(param, state.low)
        return state.before + state.first, Rotating.State(grad, state.g, state.first, low)


def test_a_rule_may_hand_on_its_slots():
    cls = adapter.optimizer_class(Rotating(), module=__name__)
    assert (cls.__name__, cls.__module__) == ("Rotating", __name__)
    p = leaf(torch.ones(1))
    opt = cls([p])
    seen = []
    for g in (1.0, 2.0, 3.0, 4.0):
        p.grad = torch.full((1,), g)
        opt.step()
        seen.append([p.item(), *(x.item() for x in opt.state[p].values())])
    assert seen == [
        [1, 1, 1, 0, 1, 1],
        [1, 2, 2, 1, 1, 1],
        [2, 3, 3, 2, 1, 1],
        [3, 4, 4, 3, 1, 1],
    ]


def test_gradients_are_not_written_to():
    for cls in SOME.values():
        p = leaf(torch.ones(2, dtype=torch.complex64))
        opt = cls([p], weight_decay=0.1, maximize=True)
        p.grad = torch.full((2,), 0.5 + 0.25j).conj()  # a view that remembers to conjugate
        before = p.grad.clone()
        opt.step()
        opt.step()
        assert torch.equal(p.grad, before)
        shared = {x.data_ptr() for x in opt.state[p].values()} & {p.grad.data_ptr(), p.data_ptr()}
        assert not shared


def test_non_contiguous_parameters_and_gradients():
    for cls in SOME.values():
        base = torch.arange(1.0, 25.0).reshape(4, 6) / 10
        views = [leaf(base), torch.nn.Parameter(base.clone().t())]
        opts = [cls([v]) for v in views]
        for i in range(3):
            g = torch.sin(base + i)
            views[0].grad, views[1].grad = g, g.clone().t()
            for opt in opts:
                opt.step()
        assert not views[1].is_contiguous()
        if not is_elementwise(rule_of(cls)):
            continue  # a matrix and its transpose are two things
        if sums(rule_of(cls).__name__.rpartition(".")[2]):  # in another order
            torch.testing.assert_close(views[1].t(), views[0], rtol=1e-6, atol=0)
        else:
            assert torch.equal(views[1].t(), views[0])


# What it lives with.


def trained_mada(steps=4, lr=0.05):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    opt = MADA([{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 0.02}], lr)
    train(net, opt, steps)
    return net, opt


def train(net, opt, steps):
    x = torch.linspace(-1, 1, 24).reshape(8, 3)
    for _ in range(steps):
        opt.zero_grad()
        ((net(x) - x.sum(1, keepdim=True)) ** 2).mean().backward()
        opt.step()


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # of torch's own making
def test_learned_coefficients_survive_distributed_checkpoints(tmp_path, flat):
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    from torch.distributed.checkpoint import state_dict as dcp_state

    options = dcp_state.StateDictOptions(flatten_optimizer_state_dict=flat)
    get = lambda net, opt: dcp_state.get_optimizer_state_dict(net, opt, options=options)  # noqa: E731
    net, opt = trained_mada()
    learned = copy.deepcopy(opt.param_groups[0]["shared"])
    assert learned["value"]["b1"] != 0.9
    dcp.save({"net": net.state_dict(), "opt": get(net, opt)}, checkpoint_id=tmp_path)

    other, fresh = trained_mada(steps=0)
    before = copy.deepcopy(other.state_dict())
    saved = {"net": other.state_dict(), "opt": get(other, fresh)}  # steps, with lr 0, to have state
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())
    assert all(fresh.state[p] for p in other.parameters())
    assert fresh.param_groups[0]["shared"]["value"]["b1"] == 0.9
    dcp.load(saved, checkpoint_id=tmp_path)
    other.load_state_dict(saved["net"])
    dcp_state.set_optimizer_state_dict(other, fresh, saved["opt"], options=options)
    assert fresh.param_groups[0]["shared"] == learned
    train(net, opt, 3), train(other, fresh, 3)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
    assert fresh.param_groups[0]["shared"] == opt.param_groups[0]["shared"]


def test_learned_coefficients_are_of_all_groups_and_nobody_elses():
    net, opt = trained_mada()
    twin, other = trained_mada(steps=0)
    one = MADA(twin.parameters(), lr=0.05, engine="eager")
    values = [p.detach().clone() for p in twin.parameters()]
    whole = ao.Optimizer("mada", lr=0.05)
    state = whole.init(values)
    for _ in range(4):
        train(twin, one, 1)
        values, state = whole.step(values, [p.grad for p in twin.parameters()], state)
    assert one.param_groups[0]["shared"]["value"] == state.shared.value._asdict()
    assert one.param_groups[0]["shared"] != opt.param_groups[0]["shared"]  # another lr there
    assert "shared" not in opt.param_groups[1]
    kept = copy.deepcopy(opt.state_dict()["param_groups"][0]["shared"])
    other.load_state_dict(opt.state_dict())
    train(net, other, 1)
    assert opt.param_groups[0]["shared"] == kept
    old = copy.deepcopy(opt.state_dict())
    del old["param_groups"][0]["shared"]
    other.load_state_dict(old)
    assert other.param_groups[0]["shared"]["value"]["b1"] == 0.9


@every
def test_a_step_with_no_rate_and_no_gradient_moves_nothing_and_makes_the_state(cls):
    for options in ({}, *({"weight_decay": 0.1, "decay": d} for d in DECAYS)):
        for lr in (0.0, torch.tensor(0.0)):
            p = leaf(torch.tensor([1.0, -2.0, 3.0]))
            opt = cls([p], **options)
            opt.param_groups[0]["lr"] = lr
            p.grad = torch.zeros(3)
            opt.step(closure=None)
            assert p.tolist() == [1.0, -2.0, 3.0]
            assert opt.state[p]["step"] == 1


@every
def test_grad_scaler_skips_an_overflow(cls):
    p, q = leaf(torch.ones(2)), leaf(torch.ones(2))
    opt, plain = cls([p]), cls([q])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for g in (0.5, float("inf"), 0.25):
        p.grad = torch.full((2,), 4 * g if g > 0.3 or np.isinf(g) else 2 * g)  # the scale halved
        scaler.scale(torch.ones(()))
        scaler.step(opt)
        scaler.update()
        if not np.isinf(g):
            q.grad = torch.full((2,), g)
            plain.step()
    assert torch.equal(p, q)
    assert opt.state[p]["step"] == 2


def test_the_default_dtype_does_not_matter():
    torch.set_default_dtype(torch.float64)
    try:
        p = leaf(torch.ones(2, dtype=torch.float32))
        p.grad = torch.ones_like(p)
        opt = MADA([p])
        opt.step()
        assert {v.dtype for v in opt.state[p].values()} == {torch.float32}
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.filterwarnings("ignore")  # of torch's own making
def test_sharded_parameters():
    dist = pytest.importorskip("torch.distributed")
    from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = DeviceMesh("cpu", [0])
        split = lambda x: distribute_tensor(x, mesh, [Shard(0)])  # noqa: E731
        for cls in SOME.values():
            x, g = torch.linspace(-1, 1, 24).reshape(6, 4), torch.linspace(2, -3, 24).reshape(6, 4)
            p, q = torch.nn.Parameter(split(x.clone())), leaf(x)
            opts = [cls([y], weight_decay=0.1) for y in (p, q)]
            for i in range(3):
                p.grad, q.grad = split(g.cos() + i), g.cos() + i
                for opt in opts:
                    opt.step()
            # torch's own square root is 1 ulp off, and is what a DTensor gets
            torch.testing.assert_close(p.full_tensor(), q.detach(), rtol=1e-6, atol=0)
            if cls is MADA:
                kept = opts[0].param_groups[0]["shared"]["value"].values()
                assert {type(x) for x in kept} == {torch.Tensor}
    finally:
        dist.destroy_process_group()


COMPILED = ["Adamax", "MADA", "Madam", "SGD"]


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.filterwarnings("ignore")  # of the compiler's own making
def test_works_under_torch_compile(name):
    cls = CLASSES[name]
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    dtype = torch.float64
    values = [v for v in params_of(dtype) if v.numel()]
    ps, qs = ([leaf(v) for v in values] for _ in range(2))
    rate = torch.tensor(0.01, dtype=dtype)
    a, b = cls(ps, lr=rate, weight_decay=0.1), cls(qs, lr=0.01, weight_decay=0.1)
    step = torch.compile(lambda: a.step(), backend="aot_eager", fullgraph=True)
    for i in range(4):
        for p, q, g in zip(ps, qs, grads_of(values, i), strict=True):
            p.grad, q.grad = g.clone(), g
        step(), b.step()
        rate.mul_(0.5)
        b.param_groups[0]["lr"] *= 0.5
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for p, q in zip(ps, qs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
        assert a.state[p]["step"] == 4
    assert "capturable" not in a.param_groups[0]
    if cls is MADA:
        kept, its = (opt.param_groups[0]["shared"]["value"] for opt in (a, b))
        assert kept["b1"] != 0.9
        for x, y in zip(kept.values(), its.values(), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-14)


# The compiled loops.


def pair(shapes, dtype=torch.float32, cls=Adam, **options):
    """The same parameters under the eager rule and under the compiled one."""
    gen = torch.Generator().manual_seed(5)
    starts = [torch.randn(s, generator=gen, dtype=torch.float64).to(dtype) for s in shapes]
    eager, fused = ([leaf(x) for x in starts] for _ in range(2))
    return eager, cls(eager, engine="eager", **options), fused, cls(fused, **options)


def assert_same_run(eager, one, fused, other):
    for p, q in zip(eager, fused, strict=True):
        assert torch.equal(p, q)
        assert one.state[p].keys() == other.state[q].keys()
        for name, x in one.state[p].items():
            assert torch.equal(x, other.state[q][name]), name


LAYOUTS = {
    "channels last": lambda p: p.data.to(memory_format=torch.channels_last),
    "transposed": lambda p: p.data.transpose(0, 3).contiguous().transpose(0, 3),
    "every second": lambda p: p.data.repeat_interleave(2, 3)[..., ::2],
}


@pytest.mark.parametrize("of_grad", [None, *LAYOUTS])
@pytest.mark.parametrize("of_param", [None, *LAYOUTS])
def test_any_layout_of_memory(of_param, of_grad):
    eager, one, fused, other = pair([(2, 3, 4, 5)], weight_decay=0.1)
    if of_param:
        for p in (*eager, *fused):
            p.data = LAYOUTS[of_param](p)
    for step in range(3):
        (grad,) = grads_of(eager, step)
        grad = torch.nn.Parameter(grad)
        for p in (*eager, *fused):
            p.grad = LAYOUTS[of_grad](grad) if of_grad else grad.detach().clone()
        one.step(), other.step()
    assert_same_run(eager, one, fused, other)
    assert fused[0].stride() == eager[0].stride()


def test_a_step_after_a_change_of_anything_is_the_eager_step():
    eager, one, fused, other = pair([(3, 4), (5,), (2,)], weight_decay=0.1)
    both = ((eager, one), (fused, other))
    seed = iter(range(1000))

    def grads(keep=False):
        new = grads_of(eager, next(seed))
        for params, _ in both:
            for p, g in zip(params, new, strict=True):
                if keep and p.grad is not None:
                    p.grad.copy_(g)
                else:
                    p.grad = g.clone()

    def absent():
        grads()
        for params, _ in both:
            params[1].grad = None

    def every(change):
        def changed():
            grads()
            for params, opt in both:
                change(params, opt)

        return changed

    def set_lr(params, opt):
        opt.param_groups[0]["lr"] = 0.03

    def tensor_lr(params, opt):
        opt.param_groups[0]["lr"] = torch.tensor(0.02)

    def new_group(params, opt):
        params.append(leaf(torch.ones(4)))
        params[-1].grad = torch.ones(4)
        opt.add_param_group({"params": [params[-1]], "lr": 0.5, "decay": "decoupled"})

    def swapped_data(params, opt):
        params[0].data = params[0].data.clone() + 1

    def shrunk_data(params, opt):
        params[2].data = params[2].data[:1]
        params[2].grad = torch.ones(1)
        for name in ("m", "v"):
            opt.state[params[2]][name] = opt.state[params[2]][name][:1]

    def swapped_slot(params, opt):
        opt.state[params[0]]["m"] = opt.state[params[0]]["m"] + 1

    def swapped_slots_data(params, opt):
        opt.state[params[0]]["v"].data = opt.state[params[0]]["v"].data * 2

    def counted(params, opt):
        opt.state[params[1]]["step"].fill_(40)

    def loaded(params, opt):
        opt.load_state_dict(copy.deepcopy(opt.state_dict()))

    def decay(params, opt):
        opt.param_groups[0].update(decay="independent", maximize=True)

    steps = [grads, grads, lambda: grads(keep=True), lambda: grads(keep=True), absent, absent]
    changes = (set_lr, tensor_lr, new_group, swapped_data, swapped_slot, swapped_slots_data,
               counted, loaded, decay, shrunk_data)  # fmt: skip
    for change in changes:
        steps += [every(change), grads, grads]
    remembered = 0
    for do in steps:
        do()
        kept = other._memory
        one.step(), other.step()
        remembered += kept is not None and other._memory is kept
        assert_same_run(eager, one, fused, other)
    assert remembered >= len(steps) // 3  # or this would test nothing


def test_a_compiled_step_counts_as_a_change_of_the_parameters():
    p = leaf(torch.ones(3))
    opt = Adam([p], engine="fused")
    loss = (p * p).sum()
    loss.backward(retain_graph=True)
    opt.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_are_not_kept():
    p = leaf(torch.ones(3))
    opt = Adam([p], engine="fused")
    for _ in range(3):
        p.grad = torch.ones(3)
        gone = weakref.ref(p.grad)
        opt.step()
        p.grad = None
        assert gone() is None


def test_engines_that_cannot_say_why():
    p = leaf(torch.ones(2))
    with pytest.raises(ValueError, match=r"adam: engine must be one of .*got 'cuda'"):
        Adam([p], engine="cuda")
    q = leaf(torch.ones(2, device="meta"))
    opt = Adam([q], engine="fused")
    q.grad = torch.ones(2, device="meta")
    with pytest.raises(RuntimeError, match=r"engine='fused' cannot move .*\(2,\): it is on meta"):
        opt.step()
    opt = Adam([{"params": [p]}, {"params": [leaf(torch.ones(2))], "engine": "eager"}])
    for group in opt.param_groups:
        group["params"][0].grad = torch.ones(2)
    opt.step()
    assert opt._memory is None  # a part of it is eager
    assert torch.equal(opt.param_groups[0]["params"][0], opt.param_groups[1]["params"][0])
    old = opt.state_dict()
    for group in old["param_groups"]:
        del group["engine"]  # of before there was one
    opt.load_state_dict(old)
    assert [g["engine"] for g in opt.param_groups] == [None, None]


def test_complex_parameters_go_through_the_loops_as_pairs():
    start = torch.tensor([1 + 2j, -3j, 0.5 + 0j])
    p, q = leaf(start), leaf(start)
    one, other = Adam([p], engine="eager"), Adam([q], engine="fused")
    for step in range(3):
        for x in (p, q):
            x.grad = ((step + 1) * start).conj()  # its memory holds the conjugate
        one.step(), other.step()
    assert torch.equal(p, q)


@pytest.mark.parametrize("rule", ["schedule_free_adamw", "adam+ema", "adam"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_the_parameters_to_evaluate_with(rule, dtype):
    cls = adapter.optimizer_class(rule)
    gen = torch.Generator().manual_seed(0)
    start = torch.randn(5, generator=gen, dtype=dtype)
    p, unmoved = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    opt, core = cls([p, unmoved], lr=0.1), ao.Optimizer(rule, lr=0.1)
    real = torch.view_as_real(start) if dtype.is_complex else start
    params, state = real, core.init(real)
    with opt.evaluating():  # before any step
        assert torch.equal(p, start)
    for _ in range(4):
        p.grad = torch.randn(5, generator=gen, dtype=dtype)
        params, state = core.step(
            params, torch.view_as_real(p.grad) if dtype.is_complex else p.grad, state
        )
        opt.step()
    before = p.detach().clone()
    want = core.eval_params(params, state)

    def look():
        with opt.evaluating():
            seen = torch.view_as_real(p.detach()) if dtype.is_complex else p.detach()
            torch.testing.assert_close(seen, want, rtol=1e-6, atol=0)
            assert torch.equal(p, before) == (rule == "adam")
            assert torch.equal(unmoved, start)
            raise KeyError

    with pytest.raises(KeyError):
        look()
    assert torch.equal(p, before)
