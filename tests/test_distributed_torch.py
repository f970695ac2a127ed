"""The torch classes in two real processes: DDP, FSDP2, ZeRO, distributed checkpoints.

Both processes are started once, for all rules (this file, run as a program); the tests compare what
they wrote with the same run in one process. Every gradient is exact by construction: the network is
linear in its parameters and the data are small integers, so that no sum over a batch, half a batch
or two processes is rounded, whatever its order. So what differs, the optimizer did.
"""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import once, package

torch = package("torch")

import arrayopt as ao  # noqa: E402
from arrayopt.backends.torch import CLASSES, MADA  # noqa: E402

SEED = {
    "Adamax": {},
    "SimplifiedAdEMAMix": {"betas": (0.9, 0.95)},
    "MAdam": {"amsgrad": True, "weight_decay": 0.1},
    "LaMAdam": {},
    "Madam": {"p_scale": 1.0},  # so that the bound, 1.0 times the RMS, acts on most elements
    "MADA": {"betas": (0.8, 0.95, 0.1), "rho": 0.7, "c": 0.6},
}
GLOBAL = ("Madam", "MADA")  # sums over elements: their rounding depends on the shards
HALF, END, WORLD = 3, 6, 2
EPS = 2**-23

each = pytest.mark.parametrize("name", SEED)


class Net(torch.nn.Module):
    """Linear in its parameters. Rows are 9 (two uneven shards) and 1 (an empty shard)."""

    def __init__(self, seed=0):
        super().__init__()
        self.many, self.one = torch.nn.Linear(6, 9), torch.nn.Linear(6, 1)
        gen = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=gen) + 0.1)

    def forward(self, x):
        return self.many(x), self.one(x)


def loss_of(net, step, rank=None):
    """Of one process' half of the batch, or the mean over both halves."""
    gen = torch.Generator().manual_seed(1000 + step)
    x, y, z = (torch.randint(-4, 5, (WORLD, 8, n), generator=gen).float() for n in (6, 9, 1))
    share = slice(None) if rank is None else slice(rank, rank + 1)
    many, one = net(x[share].reshape(-1, 6))
    total = (many * y[share].reshape(-1, 9)).sum() + (one * z[share].reshape(-1, 1)).sum()
    return total * 2.0 ** (step % 3 - 4) / (WORLD if rank is None else 1)


def train(net, opt, steps, rank=None):
    for step in steps:
        opt.zero_grad()
        loss_of(net, step, rank).backward()
        opt.step()


def options_of(name):
    # DTensors' steps are eager; these two rules' compiled loops are some eps off
    engine = "eager" if name in GLOBAL else None
    return {"lr": 2.0**-5, "engine": engine, **SEED[name]}


def optimizer_of(name, params):
    return CLASSES[name](params, **options_of(name))


def whole(x):
    x = x.detach()
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def record(net, opt):
    """Parameters and state in full, and the state of the whole optimizer."""
    out = {}
    for name, p in net.named_parameters():
        name = name.removeprefix("module.")
        out[name] = whole(p).clone()
        out |= {f"{name}/{k}": whole(x).clone() for k, x in opt.state.get(p, {}).items()}
    shared = opt.param_groups[0].get("shared", {})
    return out | {f"{k}/{c}": x.clone() for k, v in shared.items() for c, x in v.items()}


# What runs in each of the two processes.


def under_ddp(rank, out):
    from torch.nn.parallel import DistributedDataParallel

    for name in SEED:
        net = DistributedDataParallel(Net())
        opt = optimizer_of(name, net.parameters())
        train(net, opt, range(END), rank)
        out["ddp", name] = record(net, opt)


def under_zero(rank, out):
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.nn.parallel import DistributedDataParallel

    for name in SEED:
        net = DistributedDataParallel(Net())
        kwargs = {"optimizer_class": CLASSES[name], **options_of(name)}
        opt = ZeroRedundancyOptimizer(net.parameters(), **kwargs)
        train(net, opt, range(END), rank)
        found = record(net, opt.optim)
        mine = {id(p) for group in opt.optim.param_groups for p in group["params"]}
        out["zero mine", name] = [k for k, p in net.module.named_parameters() if id(p) in mine]
        out["zero", name] = found
        opt.consolidate_state_dict()
        if rank == 0:
            out["zero state", name] = opt.state_dict()
    return out


def sharded(seed=0):
    from torch.distributed.fsdp import fully_shard

    net = Net(seed)
    for part in (net.many, net.one, net):
        fully_shard(part)
    return net


def under_fsdp(rank, out, folder):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.tensor import DTensor

    for name in SEED:
        net = sharded()
        opt = optimizer_of(name, net.parameters())
        train(net, opt, range(HALF), rank)
        for p in net.parameters():
            for x in (p, *(v for k, v in opt.state[p].items() if k not in ("step", "scale"))):
                assert isinstance(x, DTensor), name
                assert x.placements == p.placements, name
                assert x.to_local().shape == p.to_local().shape, name
        model_state, optim_state = get_state_dict(net, opt)
        dcp.save({"model": model_state, "optim": optim_state}, checkpoint_id=folder / name)
        train(net, opt, range(HALF, END), rank)
        out["fsdp", name] = record(net, opt)

        again = sharded(seed=1)
        opt = optimizer_of(name, again.parameters())
        model_state, optim_state = get_state_dict(again, opt)
        found = {"model": model_state, "optim": optim_state}
        dcp.load(found, checkpoint_id=folder / name)
        set_state_dict(again, opt, model_state_dict=found["model"], optim_state_dict=found["optim"])
        out["resumed at", name] = record(again, opt)
        train(again, opt, range(HALF, END), rank)
        out["resumed", name] = record(again, opt)


def under_the_pure_optimizer(rank, out):
    """``arrayopt.Optimizer`` on a tree of DTensors."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (WORLD,))
    for name in SEED:
        rule = CLASSES[name]._form.core.name
        opt = ao.Optimizer(rule, lr=2.0**-5)
        params = {k: distribute_tensor(x, mesh, [Shard(0)]) for k, x in start_of(0)}
        state = opt.init(params)
        for step in range(END):
            grads = {k: distribute_tensor(x, mesh, [Shard(0)]) for k, x in start_of(1 + step)}
            params, state = opt.step(params, grads, state)
        out["pure", name] = {k: whole(x) for k, x in params.items()}


def start_of(seed):
    return [(k, p.detach()) for k, p in Net(seed).named_parameters()]


def main(rank, folder):
    import torch.distributed as dist

    warnings.simplefilter("error", append=True)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    out = {}
    under_ddp(rank, out)
    under_zero(rank, out)
    under_fsdp(rank, out, folder)
    under_the_pure_optimizer(rank, out)
    dist.barrier()
    torch.save({"\n".join(k): v for k, v in out.items()}, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def two_processes(folder):
    env = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    logs = [folder / f"log{r}" for r in range(WORLD)]
    processes = []
    for rank, log in enumerate(logs):
        with log.open("w") as file:
            run = [sys.executable, __file__, str(rank), str(folder)]
            processes.append(subprocess.Popen(run, stdout=file, stderr=file, env=env))
    try:
        codes = [p.wait(timeout=240) for p in processes]
    finally:
        for p in processes:
            p.kill()
            p.wait()
    assert codes == [0] * WORLD, "\n".join(log.read_text()[-3000:] for log in logs)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder, and what each of the two processes wrote."""
    folder = once(tmp_path_factory, "distributed_torch", two_processes)
    files = [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(WORLD)]
    return folder, [{tuple(k.split("\n")): v for k, v in f.items()} for f in files]


def alone(name, steps=END):
    """The same run in this process alone."""
    net = Net()
    opt = optimizer_of(name, net.parameters())
    train(net, opt, range(steps))
    return record(net, opt)


def assert_same(got, want, *, of=None):
    assert got.keys() == want.keys()
    for key in got if of is None else of:
        a, b = got[key], want[key]
        assert a.dtype == b.dtype
        assert torch.equal(a, b), f"{key}: {(a - b).abs().max()}"


def assert_near(got, want, eps):
    """Within ``eps`` float32 eps of the largest magnitude in each array; returns the worst."""
    assert got.keys() == want.keys()
    worst = {}
    for key in got:
        a, b = got[key].double(), want[key].double()
        size = b.abs().max() if b.numel() else 0.0
        worst[key] = float((a - b).abs().max() / size / EPS) if size else float(a.abs().max())
    assert max(worst.values()) <= eps, worst
    return worst


def test_the_gradients_of_two_halves_add_up_exactly():
    for step in range(END):
        halves = [Net(), Net()]
        net = Net()
        loss_of(net, step).backward()
        for rank, half in enumerate(halves):
            loss_of(half, step, rank).backward()
        for p, a, b in zip(net.parameters(), *(h.parameters() for h in halves), strict=True):
            assert torch.equal(p.grad, (a.grad + b.grad) / 2)
            assert p.ndim == 1 or not torch.equal(a.grad, b.grad)


@each
def test_ddp_is_bit_equal(ran, name):
    for found in ran[1]:
        assert_same(found["ddp", name], alone(name))


@each
def test_fsdp2_is_bit_equal_or_its_sums_are_global(ran, name):
    want = alone(name)
    for found in ran[1]:
        got = found["fsdp", name]
        if name not in GLOBAL:
            assert_same(got, want)
        else:
            assert_near(got, want, 4)
    assert_same(ran[1][0]["fsdp", name], ran[1][1]["fsdp", name])


def test_madams_rms_is_that_of_all_shards(ran):
    for key, p in Net().named_parameters():
        true = p.detach().double().square().mean().sqrt()
        first = p.detach()[: -(-p.shape[0] // WORLD)].double().square().mean().sqrt()
        for found in ran[1]:
            got = found["fsdp", "Madam"][f"{key}/scale"].double()
            assert abs(got - true) <= EPS * true
            assert p.shape[0] == 1 or abs(got - first) > 1000 * EPS * true


def test_madas_sums_are_those_of_all_parameters_and_shards(ran):
    """A local sum would give other coefficients: those of the first rows alone differ by far."""
    want = alone("MADA")
    part = Net()
    with torch.no_grad():
        for layer in (part.many, part.one):
            layer.weight, layer.bias = (
                torch.nn.Parameter(x[: -(-len(x) // WORLD)].clone()) for x in layer.parameters()
            )
    local = MADA(part.parameters(), lr=2.0**-5, **SEED["MADA"])
    for step in range(END):
        full = Net()
        loss_of(full, step).backward()
        for p, q in zip(part.parameters(), full.parameters(), strict=True):
            p.grad = q.grad[: len(p)]
        local.step()
    local = record(part, local)
    for key in [f"value/{c}" for c in ("b1", "b2", "b3", "rho", "c")]:
        for found in ran[1]:
            got = found["fsdp", "MADA"][key]
            assert abs(got - want[key]) <= 4 * EPS
        assert abs(local[key] - want[key]) > 100 * EPS, key


@each
def test_zero_redundancy_optimizer(ran, name):
    """Whole parameters are dealt out: all is equal but MADA, whose sums are over a process' own."""
    own = [found["zero mine", name] for found in ran[1]]
    assert sorted(own[0] + own[1]) == sorted(k for k, _ in Net().named_parameters())
    assert all(own)
    want = alone(name)
    if name == "MADA":
        net = Net()
        opts = [optimizer_of(name, [net.get_parameter(k) for k in keys]) for keys in own]
        for step in range(END):
            net.zero_grad()
            loss_of(net, step).backward()
            for opt in opts:
                opt.step()
        params = {k: p.detach() for k, p in net.named_parameters()}
        assert any(not torch.equal(p, want[k]) for k, p in params.items())
        for found, opt in zip(ran[1], opts, strict=True):
            assert_same({k: found["zero", name][k] for k in params}, params)
            mine = {k: v for k, v in record(net, opt).items() if k.startswith("value/")}
            assert_same({k: found["zero", name][k] for k in mine}, mine)
    else:
        for found, keys in zip(ran[1], own, strict=True):
            held = [k for k in want if "/" not in k or k.partition("/")[0] in keys]
            assert_same(found["zero", name], {k: want[k] for k in held})


@each
def test_zeros_consolidated_state_goes_on_in_one_process(ran, name):
    zero = ran[1][0]
    net = Net()
    with torch.no_grad():
        for k, p in net.named_parameters():
            p.copy_(zero["zero", name][k])
    opt = optimizer_of(name, net.parameters())
    opt.load_state_dict(zero["zero state", name])
    if name != "MADA":
        assert_same(record(net, opt), alone(name))
    else:  # of the coefficients, which each process has its own of, rank 0's are kept
        got = record(net, opt)
        values = [k for k in got if k.startswith("value/")]
        assert_same({k: got[k] for k in values}, {k: zero["zero", name][k] for k in values})
    train(net, opt, range(END, END + 2))
    if name != "MADA":
        assert_same(record(net, opt), alone(name, END + 2))


@each
def test_a_checkpoint_of_two_processes_goes_on_in_two(ran, name):
    """Bit-equal to the run that was not interrupted, whatever the rule."""
    for found in ran[1]:
        assert_same(found["resumed", name], found["fsdp", name])


@each
def test_a_checkpoint_of_two_processes_goes_on_in_one(ran, name):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    folder, (first, _) = ran
    net = Net(seed=1)
    opt = optimizer_of(name, net.parameters())
    model_state, optim_state = get_state_dict(net, opt)
    found = {"model": model_state, "optim": optim_state}
    with pytest.warns(UserWarning, match="the intent is to load in a single process"):
        dcp.load(found, checkpoint_id=folder / name, no_dist=True)
    set_state_dict(net, opt, model_state_dict=found["model"], optim_state_dict=found["optim"])
    assert_same(record(net, opt), first["resumed at", name])
    train(net, opt, range(HALF, END))
    if name == "MADA":
        assert_near(record(net, opt), first["fsdp", name], 4)
    else:  # Madam's one sum was taken before
        assert_same(record(net, opt), first["fsdp", name])
    if name not in GLOBAL:
        assert_same(record(net, opt), alone(name))


@each
def test_the_pure_optimizer_on_dtensors(ran, name):
    opt, params = ao.Optimizer(CLASSES[name]._form.core.name, lr=2.0**-5), dict(start_of(0))
    state = opt.init(params)
    for step in range(END):
        params, state = opt.step(params, dict(start_of(1 + step)), state)
    for found in ran[1]:
        if name in GLOBAL:
            assert_near(found["pure", name], params, 4)
        else:
            assert_same(found["pure", name], params)


def test_the_documents_table_of_memory():
    """A rule may be missing there; what is there is right."""
    text = (Path(__file__).parent.parent / "docs" / "distributed.md").read_text()
    rows = re.findall(r"^\| (`.*`) \| (\d+) \| (\d+) \| ([\d.]+) G \|$", text, re.M)
    param = np.zeros(1000, np.float32)
    for names, state, whole, many in rows:
        for name in re.findall("`(.*?)`", names):
            slots = ao.Optimizer(name).init(param).slots
            size = round(sum(np.asarray(s).nbytes for s in slots) / param.size)
            assert (int(state), int(whole)) == (size, 8 + size), name
            assert float(many) == round(80 / (8 + size), 1)
    assert len(rows) == 6


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
