"""What torch's own test of its optimizers checks, for every class of ours.

The tests are those of pytorch's ``test/test_optim.py``, written anew on the ``OptimizerInfo`` that
torch ships for it.
"""

import copy
import functools
import io
import itertools
import pickle
import re

import pytest
from conftest import REPRESENTATIVE

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # torch's test helpers import it

from torch.optim import lr_scheduler as sched  # noqa: E402
from torch.optim.optimizer import (  # noqa: E402
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.testing._internal import common_optimizers as theirs  # noqa: E402

from arrayopt.backends.torch import CLASSES  # noqa: E402

LR = {"MADA": 0.01, "Madam": 0.02, "SGD": 0.001, "SimplifiedAdEMAMix": 0.0003}  # others 0.02


def inputs_of(cls, device, dtype=None):
    lr = LR.get(cls.__name__, 0.02)
    kinds = [
        {},
        {"lr": lr},
        {"weight_decay": 0.1},
        {"maximize": True},
        {"weight_decay": 0.1, "maximize": True},
        {"weight_decay": 0.1, "decay": "coupled"},
        {"weight_decay": 0.01, "decay": "independent"},
        {"lr": torch.tensor(lr)},
    ]
    if cls.__name__ == "SGD":
        kinds += [{"momentum": 0.9, "dampening": 0.5}, {"momentum": 0.9, "nesterov": True}]
    if cls.__name__ == "MAdam":
        kinds += [{"amsgrad": True, "nesterov": True}]
    return [
        theirs.OptimizerInput(params=None, kwargs=kwargs, desc=str(kwargs) if kwargs else "default")
        for kwargs in kinds
    ]


def errors_of(cls, device, dtype):
    options = cls._form.options
    wrong = [
        ({"lr": -1}, ValueError, "Invalid learning rate: -1"),
        ({"lr": float("nan")}, ValueError, "Invalid learning rate: nan"),
        ({"weight_decay": -0.5}, ValueError, "Invalid weight_decay value: -0.5"),
        ({"lr": torch.tensor([0.1, 0.2])}, ValueError, "Tensor lr must be 1-element"),
        ({"lr": "0.1"}, ValueError, "lr must be a number in [0, inf)"),
        ({"lr": lambda t: 0.1}, TypeError, "lr cannot be a schedule"),
        ({"decay": "L2"}, ValueError, "decay must be one of"),
        ({"maximize": 1}, ValueError, "maximize must be one of"),
        ({"foreach": True}, TypeError, "has no hyperparameter 'foreach'"),
        ({"weight_decai": 0.1}, TypeError, "did you mean weight_decay"),
    ]
    if "betas" in options:
        first, *rest = options["betas"]
        wrong += [
            ({"betas": (1.5, *rest)}, ValueError, "Invalid beta parameter at index 0: 1.5"),
            ({"betas": (first, *rest[:-1], -0.1)}, ValueError, f"at index {len(rest)}: -0.1"),
            ({"betas": (first,)}, ValueError, "betas must be (b1, b2"),
            ({"betas": 0.9}, ValueError, "betas must be (b1, b2"),
            ({"b1": 0.9}, TypeError, "has no hyperparameter 'b1'"),
        ]
    for name, word in (("eps", "epsilon"), ("momentum", "momentum"), ("b1", "b1")):
        if name in options:
            wrong += [({name: -1.0}, ValueError, f"Invalid {word} value: -1.0")]
    own = [
        theirs.ErrorOptimizerInput(
            theirs.OptimizerInput(params=None, kwargs=kwargs, desc=str(kwargs)),
            error_type=kind,
            error_regex=re.escape(text),
        )
        for kwargs, kind, text in wrong
    ]
    return theirs.get_error_inputs_for_all_optims(device, dtype) + own


SCHEDULERS = {
    "StepLR": lambda opt: sched.StepLR(opt, step_size=10, gamma=0.9),
    "MultiStepLR": lambda opt: sched.MultiStepLR(opt, [5, 12], gamma=0.5),
    "ConstantLR": lambda opt: sched.ConstantLR(opt, factor=0.4, total_iters=4),
    "LinearLR": lambda opt: sched.LinearLR(opt, start_factor=0.4, total_iters=4),
    "ExponentialLR": lambda opt: sched.ExponentialLR(opt, gamma=0.99),
    "PolynomialLR": lambda opt: sched.PolynomialLR(opt, total_iters=100, power=0.9),
    "CosineAnnealingLR": lambda opt: sched.CosineAnnealingLR(opt, T_max=100),
    "CosineAnnealingWarmRestarts": lambda opt: sched.CosineAnnealingWarmRestarts(opt, T_0=10),
    "LambdaLR": lambda opt: sched.LambdaLR(opt, lambda i: 0.99**i),
    "MultiplicativeLR": lambda opt: sched.MultiplicativeLR(opt, lambda i: 0.99),
    "ReduceLROnPlateau": lambda opt: sched.ReduceLROnPlateau(opt, patience=2),
    "ReduceLROnPlateau-threshold": lambda opt: sched.ReduceLROnPlateau(opt, threshold=1e-4),
    "OneCycleLR": lambda opt: sched.OneCycleLR(
        opt, max_lr=opt.param_groups[0]["lr"], total_steps=60, cycle_momentum=cycles(opt)
    ),
    "CyclicLR": lambda opt: sched.CyclicLR(
        opt,
        base_lr=opt.param_groups[0]["lr"] / 2,
        max_lr=opt.param_groups[0]["lr"],
        step_size_up=5,
        cycle_momentum=cycles(opt),
    ),
    "ChainedScheduler": lambda opt: sched.ChainedScheduler(
        [sched.ConstantLR(opt, factor=0.5, total_iters=3), sched.ExponentialLR(opt, gamma=0.99)]
    ),
    "SequentialLR": lambda opt: sched.SequentialLR(
        opt,
        [sched.LinearLR(opt, start_factor=0.5, total_iters=3), sched.ExponentialLR(opt, 0.99)],
        milestones=[3],
    ),
}


def cycles(opt):
    return "betas" in opt.defaults or "momentum" in opt.defaults


INFOS = [
    theirs.OptimizerInfo(
        cls,
        optim_inputs_func=functools.partial(inputs_of, cls),
        optim_error_inputs_func=functools.partial(errors_of, cls),
        scheduler_inputs=tuple([make] for make in SCHEDULERS.values()),
        supported_impls=(),
        not_og_supported_flags=("maximize", "decay", "weight_decay"),
    )
    for cls in CLASSES.values()
    if cls._form.core.name in REPRESENTATIVE
]
every = pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
BOTH = {"named": (True, False), "named_too": (True, False)}


def inputs(info, **wanted):
    """The class's inputs, each with hyperparameters of its own."""
    found = [copy.deepcopy(i.kwargs) for i in info.optim_inputs_func(device="cpu")]
    return [kwargs for kwargs in found if wanted.items() <= kwargs.items()]


def problem(strided=False, dtype=torch.float32, seed=0):
    """Weight, bias, and a function that sets their gradients and gives the loss."""
    gen = torch.Generator().manual_seed(seed)
    randn = functools.partial(torch.randn, generator=gen, dtype=dtype)
    if strided:
        weight, bias = randn(10, 5, 2)[..., 0], randn(10, 2)[..., 0]
        assert not weight.is_contiguous()
    else:
        weight, bias = randn(10, 5), randn(10)
    weight, bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
    x = randn(5)

    def loss():
        weight.grad = bias.grad = None
        value = (weight.mv(x) + bias).pow(2).sum()
        value.backward()
        return value.detach()

    return weight, bias, loss


def run(opt, loss, steps=10):
    for _ in range(steps):
        loss()
        opt.step()


def equal(a, b):
    """Whether two state_dicts, or parts of them, hold the same bits."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


def named(params, yes):
    return [(f"name{i}", p) for i, p in enumerate(params)] if yes else params


@every
def test_infos_name_no_global_flag(info):
    for kwargs in inputs(info):
        assert not kwargs.keys() & {"foreach", "fused", "differentiable", "capturable"}


@every
def test_errors(info):
    for wrong in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
        case = wrong.optimizer_error_input
        params = [torch.nn.Parameter(torch.ones(1))] if case.params is None else case.params
        if issubclass(wrong.error_type, Warning):
            with pytest.warns(wrong.error_type, match=wrong.error_regex):
                info.optim_cls(params, **case.kwargs)
        else:
            with pytest.raises(wrong.error_type, match=wrong.error_regex):
                info.optim_cls(params, **case.kwargs)


@pytest.mark.parametrize("strided", [False, True], ids=["contiguous", "strided"])
@every
def test_goes_the_right_direction(info, strided):
    for kwargs in inputs(info):
        weight, bias, loss = problem(strided)
        opt = info.optim_cls([weight, bias], **kwargs)
        first = loss()
        run(opt, loss, 30)
        assert (loss() > first) == kwargs.get("maximize", False), kwargs


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@every
def test_goes_the_right_direction_with_a_scheduler(info, scheduler):
    weight, bias, loss = problem(dtype=torch.float64)  # some start with a step of 1e-8
    opt = info.optim_cls([{"params": [weight]}, {"params": [bias], "lr": 0.01}], lr=0.01)
    scheduler = SCHEDULERS[scheduler](opt)
    first = loss()
    rates = set()
    for _ in range(30):
        rates.add(opt.param_groups[0]["lr"])
        opt.step(loss)
        scheduler.step(*([loss()] if isinstance(scheduler, sched.ReduceLROnPlateau) else []))
    assert loss() < first
    assert len(rates) > 1 or isinstance(scheduler, sched.ReduceLROnPlateau)


@pytest.mark.parametrize("shape", [(), (1,)], ids=["0-d", "1-d"])
@every
def test_a_tensor_lr_is_as_good_as_a_float(info, shape):
    one, two = problem(), problem()
    lr = torch.full(shape, 0.01, dtype=torch.float64)
    a = info.optim_cls(one[:2], lr=lr)
    b = info.optim_cls(two[:2], lr=0.01)
    schedulers = [sched.ExponentialLR(opt, 0.5) for opt in (a, b)]
    for _ in range(4):
        a.step(one[2]), b.step(two[2])
        assert equal(list(one[:2]), list(two[:2]))
        for s in schedulers:
            s.step()
    assert a.param_groups[0]["lr"] is lr  # filled in place
    assert lr.item() == pytest.approx(0.01 / 16)


@every
def test_complex_parameters_are_two_reals(info):
    for kwargs, dtype in itertools.product(inputs(info), (torch.complex64, torch.complex128)):
        gen = torch.Generator().manual_seed(1)
        z = torch.randn(5, 3, dtype=dtype, generator=gen)
        zero = torch.randn((), dtype=dtype, generator=gen)
        a = [torch.nn.Parameter(x.clone()) for x in (z, zero)]
        b = [torch.nn.Parameter(torch.view_as_real(x).clone()) for x in (z, zero)]
        opts = info.optim_cls(a, **copy.deepcopy(kwargs)), info.optim_cls(b, **kwargs)
        for _ in range(3):
            for x, y in zip(a, b, strict=True):
                x.grad = torch.randn(x.shape, dtype=dtype, generator=gen)
                y.grad = torch.view_as_real(x.grad).clone()
            for opt in opts:
                opt.step()
            for x, y in zip(a, b, strict=True):
                assert torch.equal(torch.view_as_real(x.detach()), y.detach())
        for x, y in zip(a, b, strict=True):
            for name, slot in opts[0].state[x].items():
                other = opts[1].state[y][name]
                assert slot.shape in (x.shape, ())
                slot = torch.view_as_real(slot) if slot.is_complex() else slot
                assert torch.equal(slot, other), name


@every
def test_groups_have_hyperparameters_of_their_own(info):
    if hasattr(info.optim_cls._form.core.rule, "share") and info.name != "MADA":
        pytest.skip("one rate is found for all groups")
    kinds = [{"lr": 0.02}, {"weight_decay": 0.1}, {"maximize": True}, {"decay": "coupled"}]
    if "betas" in info.optim_cls._form.options and info.name != "MADA":
        kinds += [{"betas": tuple(b / 2 for b in info.optim_cls._form.options["betas"])}]
    for kwargs in kinds:
        one, two = problem(), problem()
        alone = {"lr": 0.01, "weight_decay": 0.01}
        if info.name == "MADA":  # one set of coefficients joins the groups unless it is frozen
            alone |= dict.fromkeys([f"hlr_{x}" for x in ("b1", "b2", "b3", "rho", "c")], 0.0)
        a = info.optim_cls([{"params": [one[0]]}, {"params": one[1], **kwargs}], **alone)
        b, c = info.optim_cls([two[0]], **alone), info.optim_cls([two[1]], **(alone | kwargs))
        for _ in range(5):
            one[2](), two[2]()
            a.step(), b.step(), c.step()
        assert equal(list(one[:2]), list(two[:2])), kwargs


@every
def test_a_parameter_without_gradient_is_left_alone(info):
    for kwargs in inputs(info):
        params = [torch.nn.Parameter(torch.randn(2, 3, requires_grad=False)) for _ in range(2)]
        before = [p.detach().clone() for p in params]
        opt = info.optim_cls(params, **kwargs)
        opt.step()
        assert not opt.state
        params[0].grad = torch.ones(2, 3)
        opt.step()
        opt.step()
        params[1].grad = torch.ones(2, 3)
        opt.step()
        assert [opt.state[p]["step"].item() for p in params] == [3, 1]
        if not hasattr(opt._form.core.rule, "share"):  # a rate yet to be found may be too small
            assert not torch.equal(params[1], before[1])


@every
def test_zero_gradients_move_nothing(info):
    param = torch.nn.Parameter(torch.randn(5, 1))
    before = param.detach().clone()
    start = {"initial_accumulator": 0.0} if info.name == "Yogi" else {}
    opt = info.optim_cls([param], **start)
    param.grad = torch.zeros_like(param)
    opt.step()
    assert torch.equal(param, before)


@every
def test_can_be_printed(info):
    for kwargs in inputs(info):
        text = repr(info.optim_cls([torch.nn.Parameter(torch.ones(2))], **kwargs))
        assert text.startswith(f"{info.name} (\nParameter Group 0\n    ")
        assert all(f"\n    {k}: " in text for k in info.optim_cls._form.options)


@pytest.mark.parametrize("named_too", [False, True], ids=["to-plain", "to-named"])
@pytest.mark.parametrize("is_named", [False, True], ids=["plain", "named"])
@every
def test_a_state_dict_continues_the_run(info, is_named, named_too):
    for kwargs in inputs(info):
        one, two = problem(), problem()
        a = info.optim_cls(named(one[:2], is_named), **copy.deepcopy(kwargs))
        run(a, one[2])
        for p, q in zip(one[:2], two[:2], strict=True):
            q.data.copy_(p.data)
        b = info.optim_cls(named(two[:2], named_too))
        saved = a.state_dict()
        copied = copy.deepcopy(saved)
        b.load_state_dict(saved)
        assert equal(saved, copied)
        for _ in range(10):
            run(a, one[2], 1), run(b, two[2], 1)
            assert equal(list(one[:2]), list(two[:2]))
        mine, its = a.state_dict(), b.state_dict()
        names = [d["param_groups"][0].pop("param_names", None) for d in (mine, its)]
        assert equal(mine, its)
        assert names[1] == (["name0", "name1"] if is_named or named_too else None)
        b.param_groups.extend(b.param_groups)  # repeated parameters, packed alike
        groups = b.state_dict()["param_groups"]
        assert groups[0]["params"] == groups[1]["params"]


@every
def test_can_load_older_state_dict(info):
    for kwargs in inputs(info):
        weight, bias, loss = problem()
        opt = info.optim_cls([weight, bias], **kwargs)
        run(opt, loss, 3)
        old = copy.deepcopy(opt.state_dict())
        for group in old["param_groups"]:
            for flag in info.not_og_supported_flags:
                del group[flag]
        opt.load_state_dict(old)
        for flag in info.not_og_supported_flags:
            assert opt.param_groups[0][flag] == info.optim_cls._form.options[flag]
        run(opt, loss, 1)


@every
def test_can_load_a_step_that_is_a_number(info):
    weight, bias, loss = problem()
    opt = info.optim_cls([weight, bias])
    run(opt, loss, 3)
    old = copy.deepcopy(opt.state_dict())
    for slots in old["state"].values():
        slots["step"] = slots["step"].item()
    opt.load_state_dict(old)
    run(opt, loss, 1)
    step = opt.state[weight]["step"]
    assert (step.item(), step.dtype, step.device.type) == (4, torch.float32, "cpu")


@pytest.mark.parametrize("is_named", [False, True], ids=["plain", "named"])
@every
def test_saved_and_loaded_with_weights_only(info, is_named):
    for kwargs in inputs(info):
        weight, bias, loss = problem()
        opt = info.optim_cls(named([weight, bias], is_named), **kwargs)
        run(opt, loss, 3)
        file = io.BytesIO()
        torch.save(opt.state_dict(), file)
        file.seek(0)
        assert equal(torch.load(file, weights_only=True), opt.state_dict())


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
@every
def test_a_copy_has_everything_and_nothing_in_common(info, twin):
    for kwargs in inputs(info):
        weight, bias, loss = problem()
        opt = info.optim_cls([weight, bias], **kwargs)
        run(opt, loss, 3)
        other = twin(opt)
        assert type(other) is type(opt)
        public = {k for k in vars(opt) if not k.startswith("_")}
        assert public == {"defaults", "state", "param_groups"}
        assert public == {k for k in vars(other) if not k.startswith("_")}
        assert equal(opt.state_dict(), other.state_dict())
        before = copy.deepcopy(other.state_dict())
        grads = [p.grad.clone() for p in (weight, bias)]
        opt.step()
        assert equal(other.state_dict(), before)
        for p, g in zip(other.param_groups[0]["params"], grads, strict=True):
            p.grad = g
        other.step()
        assert equal(opt.state_dict(), other.state_dict())
        assert equal(other.param_groups[0]["params"], [weight, bias])


@every
def test_step_hooks(info):
    param = torch.nn.Parameter(torch.ones(2))
    a, b = info.optim_cls([param]), torch.optim.SGD([param])
    seen = []
    handles = [
        register_optimizer_step_pre_hook(lambda opt, args, kwargs: seen.append(0)),
        register_optimizer_step_post_hook(lambda opt, args, kwargs: seen.append(5)),
        a.register_step_pre_hook(lambda opt, args, kwargs: seen.append(1)),
        a.register_step_post_hook(lambda opt, args, kwargs: seen.append(2)),
        b.register_step_pre_hook(lambda opt, args, kwargs: seen.append(3)),
    ]
    try:
        a.step(), b.step(), a.step()
        assert seen == [0, 1, 2, 5, 0, 3, 5, 0, 1, 2, 5]
    finally:
        for handle in handles:
            handle.remove()
    a.step()
    assert len(seen) == 11


@every
def test_state_dict_hooks(info):
    opt = info.optim_cls([torch.nn.Parameter(torch.ones(2))])
    opt.register_state_dict_pre_hook(lambda opt: opt.state.__setitem__("test", 1))
    assert opt.state_dict()["state"]["test"] == 1

    def after(opt, found):
        return found | {"had": found["state"].pop("test")}

    opt.register_state_dict_post_hook(after)
    found = opt.state_dict()
    assert "test" not in found["state"]
    assert found["had"] == 1


@every
def test_load_state_dict_hooks(info):
    param = torch.nn.Parameter(torch.ones(2))
    opt = info.optim_cls([param])
    param.grad = torch.ones(2)
    opt.step()
    saved = copy.deepcopy(opt.state_dict())

    def in_place(opt, given):
        given["param_groups"][0]["lr"] = 0.002

    def anew(opt, given):
        given = copy.deepcopy(given)
        given["param_groups"][0]["lr"] = 0.003
        given["state"][0]["step"] = 7
        return given

    opt.register_load_state_dict_pre_hook(in_place)
    opt.load_state_dict(saved)
    assert opt.param_groups[0]["lr"] == 0.002
    opt.register_load_state_dict_pre_hook(anew)
    seen = []
    opt.register_load_state_dict_post_hook(lambda opt: seen.append(opt.state[param]["step"].item()))
    opt.load_state_dict(saved)
    assert opt.param_groups[0]["lr"] == 0.003
    assert seen == [7]
    assert len(opt._optimizer_load_state_dict_pre_hooks) == 2  # ours of the moment are gone
    assert len(opt._optimizer_load_state_dict_post_hooks) == 1


@every
def test_state_is_not_empty(info):
    weight, bias, loss = problem()
    opt = info.optim_cls([weight, bias])
    run(opt, loss, 1)
    assert all(len(opt.state[p]) for p in (weight, bias))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@every
def test_state_dtype_policy(info, dtype):
    param = torch.nn.Parameter(torch.ones(4, dtype=getattr(torch, dtype)))
    opt = info.optim_cls([param])
    param.grad = torch.full_like(param, 0.1)
    opt.step()
    for name, slot in opt.state[param].items():
        wide = dtype == "float64" and name != "step"
        assert slot.dtype == (torch.float64 if wide else torch.float32), name
    assert param.dtype == getattr(torch, dtype)


@every
def test_a_closure_is_called_with_gradients_on_and_its_loss_returned(info):
    weight, bias, _ = problem()
    opt = info.optim_cls([weight, bias])

    def closure():
        assert torch.is_grad_enabled()
        opt.zero_grad()
        value = (weight.sum() + bias.sum()) ** 2
        value.backward()
        return value

    with torch.no_grad():
        assert opt.step(closure=closure).requires_grad
    assert opt.step(closure=lambda: 3.5) == 3.5
    assert opt.step() is None
    opt.zero_grad(set_to_none=False)
    assert not weight.grad.any()
    opt.zero_grad()
    assert weight.grad is None


@every
def test_a_sparse_gradient_is_refused_and_changes_nothing(info):
    dense, param = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    opt = info.optim_cls([dense, param])
    dense.grad = torch.ones(2, 2)
    param.grad = torch.ones(2, 2).to_sparse()
    with pytest.raises(RuntimeError, match=f"{info.name} does not support sparse gradients"):
        opt.step()
    assert torch.equal(dense, torch.ones(2, 2))


@every
def test_parameters_of_several_dtypes_in_one_group(info):
    dtypes = torch.float64, torch.float32, torch.bfloat16, torch.complex64
    params = [torch.nn.Parameter(torch.full((3,), 0.5, dtype=d)) for d in dtypes]
    opt = info.optim_cls(params)
    for _ in range(3):
        for p in params:
            p.grad = torch.full_like(p, 0.25)
        opt.step()
    for p, d in zip(params, dtypes, strict=True):
        assert p.dtype == d
        # a real gradient does not move the imaginary part, which starts at 0
        torch.testing.assert_close(p.detach().real.double(), params[0].detach(), rtol=0.02, atol=0)
