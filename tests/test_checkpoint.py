"""A run in one file: saved from any library, taken up in any other, whole or not at all."""

import collections
import dataclasses
import functools
import hashlib
import json
import os
import pickle
import random
import re
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optree
import pytest
from conftest import adapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import arrayopt as ao
from arrayopt import _storage, parity
from arrayopt._tree import Tree

LIBRARIES = ("numpy", "torch", "jax", "dask")
STEPS = 4  # half of them before the file, half after


def problem(dtype: Any = "float32") -> Any:
    """Small read-only parameters and gradients: a matrix, an empty one, a 0-d one in a list."""
    rng = np.random.default_rng(7)
    shapes = {"w": (2, 3), "e": (0, 2), "b": ()}

    def tree(scale: float) -> Any:
        found = {
            k: np.asarray(scale * rng.uniform(0.5, 2, s)).astype(dtype) for k, s in shapes.items()
        }
        for x in found.values():
            x.flags.writeable = False
        return {"layer": {"w": found["w"], "e": found["e"]}, "rest": [found["b"]]}

    return tree(1.0), [tree(s) for s in rng.choice([-3.0, -0.1, 0.5, 2.0], STEPS)]


def there(library: Any, tree: Any) -> Any:
    return optree.tree_map(library.asarray, tree)


def walk(library: Any, opt: Any, params: Any, state: Any, grads: Any) -> Any:
    for g in grads:
        params, state = library.settle(opt.step(params, there(library, g), state))
    return params, state


def numbers(library: Any, tree: Any) -> list[np.ndarray]:
    return [np.array(library.asnumpy(x)) for x in Tree(tree).leaves]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    """Equal to the bit."""
    pairs = zip(a, b, strict=True)
    return all((x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()) for x, y in pairs)


@functools.cache
def half_way(rule: str, name: str, folder: str) -> str:
    """The file of a run after half of its steps."""
    library = adapter(name)
    params, grads = problem()
    with library.session("float32"):
        opt = ao.Optimizer(rule)
        p = there(library, params)
        p, state = walk(library, opt, p, opt.init(p), grads[: STEPS // 2])
        path = os.path.join(folder, f"{rule}-{name}")
        ao.save(path, opt, p, state)
    return path


@functools.cache
def uninterrupted(rule: str, name: str) -> Any:
    library = adapter(name)
    params, grads = problem()
    with library.session("float32"):
        opt = ao.Optimizer(rule)
        p = there(library, params)
        p, state = walk(library, opt, p, opt.init(p), grads)
        return numbers(library, p), numbers(library, (p, state.slots))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("half"))


@pytest.mark.parametrize("to", [*LIBRARIES, "strict", "mlx"])
@pytest.mark.parametrize("source", LIBRARIES)
def test_resumes_anywhere(rule: str, source: str, to: str, folder: str) -> None:
    if "dask" in (source, to) and "numpy" not in (source, to):
        pytest.skip("it is NumPy, slowly")
    library = adapter(to)
    _, grads = problem()
    file = half_way(rule, source, folder)
    with library.session("float32"):
        opt, params, state = ao.load(file, namespace=to)
        assert int(state.step) == STEPS // 2
        assert repr(opt) == repr(ao.Optimizer(rule))
        params, state = walk(library, opt, params, state, grads[STEPS // 2 :])
        got = numbers(library, params)
        every = numbers(library, (params, state.slots))
    bounds = {parity.bound(rule, name, STEPS) for name in (source, to)}
    if source == to or bounds == {("ulp", 0)}:
        assert same(every, uninterrupted(rule, to)[1])
        return
    most = max(most for unit, most in bounds if unit == "eps")
    want, start = uninterrupted(rule, "numpy")[0], numbers(adapter("numpy"), problem()[0])
    for a, b, c in zip(got, want, start, strict=True):
        assert np.all(np.abs(a - b) <= most * 2.0**-23 * np.maximum(np.abs(b), np.abs(c)))


@pytest.mark.parametrize("to", [*LIBRARIES, "mlx"])
@pytest.mark.parametrize("source", LIBRARIES)
def test_the_same_bytes_from_any_library(
    rule: str, source: str, to: str, folder: str, tmp_path: Path
) -> None:
    if hasattr(ao.rules.find(rule), "share") and "jax" in (source, to):
        pytest.skip("its scalars are float64 where there is one, float32 elsewhere")
    library = adapter(to)
    file = half_way(rule, source, folder)
    with library.session("float32"):
        ao.save(tmp_path / "again", *ao.load(file, namespace=to))
    assert (tmp_path / "again").read_bytes() == Path(file).read_bytes()


@pytest.mark.parametrize(
    ("rule", "hyper"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": True}),
        ("maxva_madam", {"amsgrad": True, "nesterov": True}),
        ("mada", {"yogi_reference": "ema", "accumulate": "mean", "hyper_momentum": 0.5}),
        ("madam", {"g_bound": float("inf"), "p_scale": 2}),
        ("adan", {"difference_weight": 0.5, "bias_correction": False}),
        ("adam", {"weight_decay": 0.1, "decay": "independent", "maximize": True}),
        ("adam", {"nonfinite": "skip", "lr": np.float32(0.1), "b1": np.array(0.5)}),
        ("adam", {"lr": np.array([0.1, 0.2, 0.3]), "weight_decay": np.ones((2, 3))}),
        ("adam", {"lr": np.array([1, 2, 3])}),
    ],
)
@pytest.mark.parametrize("to", ["numpy", "torch"])
def test_options_survive(rule: str, hyper: Any, to: str, tmp_path: Path) -> None:
    library = adapter(to)
    params, grads = (
        {"w": problem()[0]["layer"]["w"]},
        [{"w": g["layer"]["w"]} for g in problem()[1]],
    )
    opt = ao.Optimizer(rule, **hyper)
    p, state = walk(adapter("numpy"), opt, params, opt.init(params), grads[:2])
    ao.save(tmp_path / "run", opt, p, state)
    want = walk(adapter("numpy"), opt, p, state, grads[2:])
    again, q, after = ao.load(tmp_path / "run", namespace=to)
    for name, value in opt.options().items():
        assert type(again.options()[name]) in (type(value), float, np.ndarray)
        assert np.array_equal(again.options()[name], value)
    got = walk(library, again, q, after, grads[2:])
    if rule in ("mada", "madam") and to != "numpy":
        for a, b in zip(numbers(library, got[0]), numbers(adapter("numpy"), want[0]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    else:
        assert same(numbers(library, got[0]), numbers(adapter("numpy"), want[0]))


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opt, p = ao.Optimizer("sgd"), np.ones(2)
    run = opt, p, opt.init(p)
    with pytest.raises(FileNotFoundError, match=rf"^save: there is no folder {tmp_path}/no/dir$"):
        ao.save(tmp_path / "no" / "dir" / "x", *run)
    assert not [*tmp_path.iterdir()]
    ao.save(tmp_path / "x", *run)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    text = r'a checkpoint needs safetensors: pip install "arrayopt\[checkpoint\]"$'
    for call in (lambda: ao.save(tmp_path / "y", *run), lambda: ao.load(tmp_path / "x", like=p)):
        with pytest.raises(ImportError, match=text):
            call()


def test_a_scalar_hyperparameter_stays_an_array(tmp_path: Path) -> None:
    torch = adapter("torch").torch
    opt = ao.Optimizer("adam", lr=torch.tensor(0.1, dtype=torch.float64))
    p = {"w": torch.ones(2)}
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    lr = ao.load(tmp_path / "run", like=p).optimizer.hyper["lr"]
    assert isinstance(lr, torch.Tensor)
    assert lr.dtype == torch.float64


def test_a_schedule_is_asked_for_again(tmp_path: Path) -> None:
    opt = ao.Optimizer("adam", lr=lambda t: 0.1 / (t + 1), b1=lambda t: 0.9)
    p = np.ones(2)
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    with pytest.raises(ao.CheckpointError, match=r"run: b1 was a schedule.*give it again, as b1="):
        ao.load(tmp_path / "run", like=p, lr=0.1)
    again = ao.load(tmp_path / "run", like=p, lr=0.1, b1=0.9, weight_decay=0.5).optimizer
    assert again.hyper["lr"] == 0.1
    assert again.hyper["weight_decay"] == 0.5


@pytest.mark.parametrize(
    "mask", [{"a": [True, False]}, lambda p: {"a": [x.ndim > 0 for x in p["a"]]}]
)
def test_a_mask_survives(mask: Any, tmp_path: Path) -> None:
    p = {"a": [np.ones(2), np.array(1.0)]}
    opt = ao.Optimizer("sgd", weight_decay=0.5, decay_mask=mask)
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    again, q, state = ao.load(tmp_path / "run", namespace="numpy")
    assert again.decay_mask == {"a": [True, False]}
    zero = {"a": [np.zeros(2), np.array(0.0)]}
    assert same(
        numbers(adapter("numpy"), again.step(q, zero, state)[0]),
        numbers(adapter("numpy"), opt.step(p, zero, opt.init(p))[0]),
    )


@pytest.mark.parametrize("to", ["numpy", "torch", "jax", "mlx"])
@pytest.mark.parametrize("source", ["numpy", "torch", "jax", "mlx"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_survives(dtype: str, source: str, to: str, tmp_path: Path) -> None:
    a, b = adapter(source), adapter(to)
    params = problem(parity.numpy_dtype(dtype))[0]
    opt = ao.Optimizer("adam")
    p = there(a, params)
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    q = ao.load(tmp_path / "run", like=there(b, params))
    assert same(numbers(b, q.params), numbers(adapter("numpy"), params))
    assert {x.dtype.name for x in numbers(b, q.state.slots)} == {"float32"}


def ordered(tree: Any) -> str:
    """What a tree of dicts and lists holds, whatever the order of its dicts."""
    if isinstance(tree, dict):
        return str(sorted((repr(k), ordered(v)) for k, v in tree.items()))
    return str([ordered(x) for x in tree]) if isinstance(tree, list) else repr(tree)


NT = collections.namedtuple("NT", "a b")


@optree.dataclasses.dataclass(namespace="arrayopt")
class Data:
    a: Any
    b: Any


@pytest.mark.parametrize(
    ("tree", "plain"),
    [
        (lambda x, y: x, lambda x, y: x),
        (lambda x, y: [x, y], lambda x, y: [x, y]),
        (lambda x, y: (x, (y,)), lambda x, y: [x, [y]]),
        (lambda x, y: NT(x, [y]), lambda x, y: {"a": x, "b": [y]}),
        (lambda x, y: Data(x, NT(y, None)), lambda x, y: {"a": x, "b": {"a": y}}),
        (lambda x, y: {"a']['": x, 'b"\n': {"": y}}, lambda x, y: {"a']['": x, 'b"\n': {"": y}}),
        (lambda x, y: {1: x, 2: y}, lambda x, y: {1: x, 2: y}),
        (lambda x, y: [None, x, y], lambda x, y: {1: x, 2: y}),
        (lambda x, y: {("t", 0): x, -1: y}, lambda x, y: {("t", 0): x, -1: y}),
        (
            lambda x, y: collections.OrderedDict([("0.w", x), ("é\u2028", y)]),
            lambda x, y: {"0.w": x, "é\u2028": y},
        ),
    ],
)
def test_any_tree(tree: Any, plain: Any, tmp_path: Path) -> None:
    x, y = np.arange(2.0), np.array(3.0)
    p = tree(x, y)
    opt = ao.Optimizer("adam")
    state = opt.step(p, p, opt.init(p))[1]
    ao.save(tmp_path / "run", opt, p, state)
    q = ao.load(tmp_path / "run", like=p)
    assert repr(q.params) == repr(p)
    assert repr(q.state) == repr(state)
    r = ao.load(tmp_path / "run", namespace="numpy")
    assert ordered(r.params) == ordered(plain(x, y))


def test_a_tree_that_only_jax_knows(tmp_path: Path) -> None:
    jax = adapter("jax").jax

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Net:
        a: Any
        b: Any

    opt = ao.Optimizer("adam")
    p = Net(np.ones(2), np.zeros(()))
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    like = Data(np.zeros(2), np.ones(()))  # the same paths in another class
    q = ao.load(tmp_path / "run", like=like)
    assert isinstance(q.params, Data)
    assert isinstance(q.state.slots.m, Data)
    ao.save(tmp_path / "run", q.optimizer, q.params, q.state)
    assert repr(ao.load(tmp_path / "run", like=p).params) == repr(p)


def test_a_nameless_place_needs_like(tmp_path: Path) -> None:
    class Box:
        def __init__(self, *items: Any) -> None:
            self.items = items

    optree.register_pytree_node(
        Box, lambda b: (b.items, None), lambda _, items: Box(*items), namespace="arrayopt"
    )
    opt, p = ao.Optimizer("sgd"), {"x": Box(np.ones(2), np.ones(3))}
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    with pytest.raises(ao.CheckpointError, match=r"flat index 0.*give like="):
        ao.load(tmp_path / "run", namespace="numpy")
    assert ao.load(tmp_path / "run", like=p).params["x"].items[1].shape == (3,)


def test_without_parameters(tmp_path: Path) -> None:
    opt, p = ao.Optimizer("adam"), {"b": [np.ones(())], "w": np.ones(2)}
    state = opt.step(p, p, opt.init(p))[1]
    ao.save(tmp_path / "run", opt, p, state, include_params=False)
    for q in (ao.load(tmp_path / "run", like=p), ao.load(tmp_path / "run", namespace="numpy")):
        assert q.params is None
        assert repr(q.state) == repr(state)


def test_takes_the_place_of_like(tmp_path: Path) -> None:
    import dask.array as da

    opt, p = ao.Optimizer("madam"), {"w": np.arange(1.0, 7.0)}
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    q = ao.load(tmp_path / "run", like={"w": da.ones(6, chunks=2)})
    assert q.params["w"].chunks == q.state.slots.v["w"].chunks == ((2, 2, 2),)
    torch = adapter("torch").torch
    module = torch.nn.ParameterDict({"w": torch.ones(6, dtype=torch.float64)})
    q = ao.load(tmp_path / "run", like=dict(module))
    assert type(q.params["w"]) is torch.Tensor
    assert q.params["w"].tolist() == p["w"].tolist()
    q = ao.load(tmp_path / "run", namespace="torch", device="meta")
    assert {x.device.type for x in Tree((q.params, q.state.slots)).leaves} == {"meta"}


def test_jax_sharding_is_that_of_like(tmp_path: Path) -> None:
    script = """
    import sys, jax, numpy as np, arrayopt as ao
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
    mesh = Mesh(np.array(jax.devices()), "x")
    like = {"w": jax.device_put(np.zeros(8, np.float32), NamedSharding(mesh, P("x"))),
            "one": jax.device_put(np.ones((), np.float32), jax.devices()[3])}
    opt, p = ao.Optimizer("madam"), {"w": np.arange(8, dtype="f4"), "one": np.ones((), "f4")}
    ao.save(sys.argv[1], opt, p, opt.init(p))
    q = ao.load(sys.argv[1], like=like)
    assert q.params["w"].sharding == q.state.slots.v["w"].sharding == like["w"].sharding
    assert q.params["one"].sharding == like["one"].sharding
    opt.step(q.params, q.params, q.state)
    q = ao.load(sys.argv[1], namespace="jax", device=jax.devices()[2])
    assert q.params["w"].devices() == {jax.devices()[2]}
    q = ao.load(sys.argv[1], namespace="jax", device="cpu")
    """
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    env |= {"JAX_PLATFORMS": "cpu"}
    code = textwrap.dedent(script)
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], env=env, check=True)


def test_does_not_touch_what_it_saves(tmp_path: Path) -> None:
    w = np.arange(6.0).reshape(2, 3).T  # not contiguous
    opt, p = ao.Optimizer("adam"), {"w": w, "v": w[::2]}
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    q = ao.load(tmp_path / "run", like=p)
    assert np.array_equal(q.params["w"], w)
    assert np.array_equal(q.params["v"], w[::2])
    q.params["w"][:] = 5  # its own memory, and writable
    assert np.array_equal(w, np.arange(6.0).reshape(2, 3).T)


def test_a_rule_of_ones_own(tmp_path: Path) -> None:
    sgd = ao.rules.find("sgd")
    mine = SimpleNamespace(__name__="mine", State=sgd.State, init=sgd.init, update=sgd.update)

    class Hashable(SimpleNamespace):
        __hash__ = object.__hash__

    mine = Hashable(**vars(mine))
    opt, p = ao.Optimizer(mine, momentum=0.5), np.ones(2)
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    with pytest.raises(
        ao.CheckpointError, match="rule 'mine' is none of arrayopt's: give it as rule="
    ):
        ao.load(tmp_path / "run", like=p)
    assert ao.load(tmp_path / "run", like=p, rule=mine).optimizer.rule is mine
    with pytest.raises(ao.CheckpointError, match="its rule is 'mine', not 'sgd'"):
        ao.load(tmp_path / "run", like=p, rule="sgd")
    imposter = Hashable(**(vars(mine) | {"__name__": "adam"}))
    opt = ao.Optimizer(imposter)
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    with pytest.raises(ao.CheckpointError, match="give it as rule="):
        ao.load(tmp_path / "run", like=p)


# --- what cannot be saved ----------------------------------------------------------------------


def test_refuses_to_save_what_is_no_state(tmp_path: Path) -> None:
    opt, p = ao.Optimizer("adam"), {"w": np.ones(2)}
    state = opt.init(p)
    with pytest.raises(ValueError, match="its slots are"):
        ao.save(tmp_path / "run", opt, p, ao.Optimizer("adamax").init(p))
    with pytest.raises(ValueError, match=r"slot 'm' of \['w'\] must have shape \(3,\)"):
        ao.save(tmp_path / "run", opt, {"w": np.ones(3)}, state)
    with pytest.raises(TypeError, match="array of"):
        ao.save(tmp_path / "run", opt, there(adapter("torch"), p), state)
    assert not os.listdir(tmp_path)


# --- files that are not what they should be ----------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a good file, of all kinds of tensors."""
    path = tmp_path_factory.mktemp("good") / "run"
    p = {"w": np.arange(3.0, dtype="f4"), "b": np.ones(())}
    opt = ao.Optimizer("madam", lr=np.array([0.1, 0.2, 0.3]))
    ao.save(path, opt, p, opt.init(p))
    return path.read_bytes()


def refused(path: Path, data: bytes) -> str:
    """The message with which a file is refused; it and the tree given stay as they were."""
    path.write_bytes(data)
    like = {"w": np.arange(3.0, dtype="f4"), "b": np.ones(())}
    with pytest.raises(ao.CheckpointError) as error:
        ao.load(path, like=like)
    assert path.read_bytes() == data
    assert same(numbers(adapter("numpy"), like), [np.ones(()), np.arange(3, dtype="f4")])
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def test_every_byte_counts(good: bytes, tmp_path: Path) -> None:
    flip = random.Random(0)
    for i in range(len(good)):
        if i % 8 == 0:
            refused(tmp_path / "run", good[:i])
        refused(
            tmp_path / "run", good[:i] + bytes([good[i] ^ flip.randrange(1, 256)]) + good[i + 1 :]
        )


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damage(good: bytes, tmp_path: Path, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(good)))
    j = data.draw(st.integers(i, len(good)))
    bad = good[:i] + data.draw(st.binary(max_size=20)) + good[j:]
    if bad != good:
        refused(tmp_path / "run", bad)


def test_says_what_is_damaged(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run"
    end = 8 + int.from_bytes(good[:8], "little")
    message = refused(path, good[:-1] + bytes([good[-1] ^ 1]))
    names = ("param/", "slot/", "hyper/")
    assert any(f"the bytes of {n}" in message for n in names)
    assert f"has {len(good) - 3} bytes, but should have {len(good)}" in refused(path, good[:-3])
    assert f"has {len(good) + 1} bytes" in refused(path, good + b"\0")
    assert f"cut off in its header, at 500 of {end} bytes" in refused(path, good[:500])
    assert "header (bytes 0 to" in refused(path, good.replace(b"madam", b"mada_", 1))
    assert "not one that arrayopt.save wrote" in refused(path, b"")


def test_foreign_files(tmp_path: Path) -> None:
    from safetensors.numpy import save

    path = tmp_path / "run"
    assert "a safetensors file, but not one" in refused(path, save({"w": np.ones(3)}))
    assert "a safetensors file, but not one" in refused(path, save({}, {"format": "pt"}))
    assert "a file not one that" in refused(path, b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'}")

    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "bomb"),)

    refused(path, pickle.dumps(Bomb()))
    assert not (tmp_path / "bomb").exists()
    with pytest.raises(FileNotFoundError):
        ao.load(tmp_path / "none", namespace="numpy")


def rewritten(path: Path, change: Any) -> bytes:
    """A file with other contents and right checksums, as someone may make it."""
    about, tensors = _storage.read(path)
    change(about, tensors)
    about["tensors"] = {k: _storage.sha256(x) for k, x in sorted(tensors.items())}
    other = path.with_name("other")
    _storage.write(
        str(other), tensors, json.dumps(about | {"checksum": "0" * 64}, separators=(",", ":"))
    )
    return other.read_bytes()


def drop(name: str) -> Any:
    return lambda about, tensors: tensors.pop(name)


def put(name: str, value: Any) -> Any:
    return lambda about, tensors: tensors.update({name: value})


def tell(**members: Any) -> Any:
    return lambda about, tensors: about.update(members)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            tell(format=2, arrayopt="9.0"),
            r"its format is 2, written by arrayopt 9.0; this one .* 1$",
        ),
        (drop("slot/v/['w']"), r"it lacks slot/v/\['w'\], which madam needs"),
        (drop("param/['b']"), r"it lacks param/\['b'\]"),
        (put("slot/m/['w']", np.ones(3)), r"it has slot/m/\['w'\], which madam does not know"),
        (
            put("slot/v/['w']", np.ones(2)),
            r"slot/v/\['w'\] has shape \(2,\), but should have \(3,\)",
        ),
        (
            put("slot/scale/['w']", np.ones(3)),
            r"scale/\['w'\] has shape \(3,\), but should have \(\)",
        ),
        (put("slot/v/['w']", np.ones(3, "i4")), r"slot/v/\['w'\] has dtype I32"),
        (
            put("param/['w']", np.ones(3)),
            r"param/\['w'\] has dtype float64, but should have float32",
        ),
        (tell(rule="adam"), r"its slots are v, scale; those of adam are m, v"),
        (tell(rule="os"), r"its rule 'os' is none of arrayopt's: give it as rule="),
        (tell(rule="../../evil"), r"is none of arrayopt's"),
        (tell(rule=["adam"]), r"header is not as format 1 has it"),
        (tell(options={"b2": -1.0}), r"madam: b2 must be in \[0, 1\), got -1.0"),
        (tell(options={"b2": "__import__('os')"}), r"b2 must be a number in \[0, 1\)"),
        (tell(options={"lr": ["adam"]}), r"header is not as format 1 has it: options"),
        (tell(options={"nosuch": 1.0}), r"no hyperparameter 'nosuch'"),
        (tell(options=[]), r"header is not as format 1 has it"),
        (tell(step="3"), r"header is not as format 1 has it"),
        (tell(step=-1), r"header is not as format 1 has it"),
        (tell(slots={"v": False, "scale": True}), r"its slot 'v' is not there"),
        (tell(parameters={}), r"format 1 has it: parameters"),
        (tell(parameters={"['w']": ["float32", [3]]}), r"the file lacks its \['b'\]"),
        (tell(parameters={"['w']": ["float32", -3], "['b']": 3}), r"not as format 1 has it"),
        (tell(decay_mask={"['w']": True}), r"not as format 1 has it"),
        (lambda about, tensors: about.pop("options"), r"not as format 1 has it: KeyError"),
    ],
)
def test_files_that_do_not_fit(good: bytes, change: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(good)
    bad = rewritten(tmp_path / "run", change)
    assert re.search(message, refused(tmp_path / "run", bad))


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": np.ones(3, "f4")}, r"like is another tree: it lacks \['b'\] of the file \(1 and 0"),
        (
            {"w": np.ones(3, "f4"), "c": np.ones(())},
            r"lacks \['b'\] .* and the file lacks its \['c'\]",
        ),
        ([np.ones(3, "f4"), np.ones(())], r"another tree"),
        (
            {"w": np.ones(2, "f4"), "b": np.ones(())},
            r"\['w'\] has shape \(3,\), but like has \(2,\)",
        ),
        ({"w": np.ones(3), "b": np.ones(())}, r"\['w'\] has dtype float32, but like has float64"),
    ],
)
def test_another_tree(good: bytes, like: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(good)
    with pytest.raises(ao.CheckpointError, match=message):
        ao.load(tmp_path / "run", like=like)


def test_arguments(good: bytes, tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(good)
    with pytest.raises(TypeError, match="either like="):
        ao.load(tmp_path / "run")
    with pytest.raises(TypeError, match="either like="):
        ao.load(tmp_path / "run", like=np.ones(3), namespace="numpy")
    with pytest.raises(ValueError, match="no backend is named 'nympy'"):
        ao.load(tmp_path / "run", namespace="nympy")


def test_a_library_that_lacks_the_dtype(good: bytes, tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(good)
    library = adapter("jax")
    with library.session("float32"), pytest.raises(ao.CheckpointError, match=r"64-bit mode"):
        ao.load(tmp_path / "run", namespace="jax")
    with library.session("float64"):
        assert ao.load(tmp_path / "run", namespace="jax").params["b"].dtype == "float64"
    adapter("mlx")
    with pytest.raises(ao.CheckpointError, match=r"\['b'\] is float64, of which mlx makes float32"):
        ao.load(tmp_path / "run", namespace="mlx")


def test_options_that_do_not_fit_the_slots(tmp_path: Path) -> None:
    opt, p = ao.Optimizer("sgd"), np.ones(2)
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    with pytest.raises(ao.CheckpointError, match="its slot 'm' is not there, otherwise than"):
        ao.load(tmp_path / "run", like=p, momentum=0.9)


def test_the_format_is_as_documented(tmp_path: Path) -> None:
    """Read by the book, with nothing of this library."""
    p = {"layer": [{"w": np.arange(3.0)}]}
    opt = ao.Optimizer("mada", lr=0.5, hyper_clip=float("inf"))
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    data = (tmp_path / "run").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    about = json.loads(header.pop("__metadata__")["arrayopt"])
    checksum = about["checksum"]
    zeroed = data[:end].replace(checksum.encode(), b"0" * 64)
    assert hashlib.sha256(zeroed).hexdigest() == checksum
    assert [*about] == [
        *("checksum", "format", "arrayopt", "rule", "custom", "step", "options", "schedules"),
        *("decay_mask", "parameters", "slots", "tensors"),
    ]
    assert about["options"]["hyper_clip"] == "inf"
    assert about["parameters"] == {"['layer'][0]['w']": ["float64", [3]]}
    assert header.keys() == about["tensors"].keys()
    assert {k.split("/")[0] for k in header} == {"param", "slot", "shared"}
    assert "shared/.value.b1" in header
    for name, entry in header.items():
        low, high = entry["data_offsets"]
        part = data[end + low : end + high]
        assert hashlib.sha256(part).hexdigest() == about["tensors"][name]
        if name == "param/['layer'][0]['w']":
            assert np.frombuffer(part, "<f8").tolist() == [0.0, 1.0, 2.0]


# --- written whole or not at all ---------------------------------------------------------------

WRITER = """
import json, os, random, signal, sys, time
import numpy as np
import arrayopt as ao

path, random = sys.argv[1], random.Random(int(sys.argv[2]))
opt = ao.Optimizer("adam")
like = {"w": np.zeros(100_000)}

def save(step):
    x = {"w": np.full(100_000, float(step))}
    ao.save(path, opt, x, ao.State(step, (), opt.rule.State(x, x)))

save(1)
began = time.perf_counter()
for last in range(2, 12):
    save(last)
once = (time.perf_counter() - began) / 10
fresh = 0
for _ in range(200):
    child = os.fork()
    if not child:
        try:
            while True:
                last += 1
                save(last)
        finally:
            os._exit(1)
    time.sleep(random.uniform(0, 3 * once))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    _, params, state = ao.load(path, like=like)
    assert state.step >= last, (state.step, last)
    for x in (params["w"], state.slots.m["w"], state.slots.v["w"]):
        assert (x == state.step).all()
    fresh += state.step > last
    last = state.step
left = len([x for x in os.listdir(os.path.dirname(path)) if x.endswith(".tmp")])
print(json.dumps({"fresh": fresh, "left": left, "once": once}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path / "run"), "0"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    seen = json.loads(done.stdout)
    assert seen["fresh"] > 20, seen  # the kills struck before and after the file was replaced,
    assert seen["left"] > 20, seen  # and in the middle of writing


@pytest.mark.parametrize("where", ["os.replace", "os.fsync", "safetensors.numpy.save_file"])
def test_a_failing_write_changes_nothing(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opt, p = ao.Optimizer("adam"), np.ones(2)
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    before = (tmp_path / "run").read_bytes()

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(where, full)
    with pytest.raises(OSError, match="disk full"):
        ao.save(tmp_path / "run", opt, 2 * p, opt.init(p))
    assert (tmp_path / "run").read_bytes() == before
    assert os.listdir(tmp_path) == ["run"]


def test_is_forced_to_the_disk_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace

    def noted(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    opt, p = ao.Optimizer("adam"), np.ones(2)
    ao.save(tmp_path / "run", opt, p, opt.init(p))
    assert calls == ["file", "rename", "folder"]


def test_permissions_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opt, p = ao.Optimizer("adam"), np.ones(2)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    ao.save(tmp_path / "link", opt, p, opt.init(p))
    assert (tmp_path / "link").is_symlink()
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "run").stat().st_mode == plain.stat().st_mode
    monkeypatch.chdir(tmp_path)
    ao.save("here", opt, p, opt.init(p))
    assert ao.load("here", like=p).state.step == 0


def test_import_stays_light() -> None:
    code = "import sys, arrayopt; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    modules = loaded.stdout.split()
    assert not {"safetensors", "torch", "jax", "optax", "dask", "ml_dtypes", "hashlib"} & {*modules}
    assert "arrayopt.checkpoint" not in modules
