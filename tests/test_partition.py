"""Several optimizers over one tree: what each part does, and which parameters it has."""

import json
import pickle
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import optree
import pytest
from conftest import adapter, package

import arrayopt as ao
from arrayopt import _storage
from arrayopt._storage import sha256
from arrayopt._tree import Tree

STEPS = 10
DECAYED = {"lr": 0.02, "weight_decay": 0.1, "decay": "decoupled"}


def problem(seed: int = 5) -> Any:
    """Read-only parameters and the gradients of each step, in float64."""
    rng = np.random.default_rng(seed)

    def tree() -> Any:
        def x(*shape: int) -> np.ndarray:
            made = rng.standard_normal(shape)
            made.flags.writeable = False
            return made

        layers = [{"weight": x(3, 2), "bias": x(2)}, {"weight": x(2, 4), "bias": x(4)}]
        return {"layers": layers, "head": {"weight": x(4, 2), "bias": x(2)}}

    return tree(), [tree() for _ in range(STEPS)]


def parts(**last: Any) -> Any:
    return {
        "head.*": None,
        "*.bias": ao.Optimizer("sgd", lr=0.1, momentum=0.9),
        "*": ao.Optimizer("adam", **DECAYED | last),
    }


def walk(step: Any, params: Any, state: Any, grads: Any) -> Any:
    for g in grads:
        params, state = step(params, g, state)
    return params, state


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, in structure and in numbers."""
    pairs = zip(map(np.asarray, Tree(a).leaves), map(np.asarray, Tree(b).leaves), strict=True)
    return optree.tree_structure(a) == optree.tree_structure(b) and all(
        (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()) for x, y in pairs
    )


def test_as_optax_multi_transform():
    optax, jax = package("optax"), package("jax")
    params, grads = problem()

    def label(path: Any, _: Any) -> str:
        keys = [getattr(k, "key", None) for k in path]
        return "frozen" if keys[0] == "head" else "bias" if keys[-1] == "bias" else "rest"

    with adapter("jax").session("float64"):
        labels = jax.tree_util.tree_map_with_path(label, params)
        peer = optax.multi_transform(
            {
                "frozen": optax.set_to_zero(),
                "bias": optax.sgd(0.1, momentum=0.9),
                "rest": optax.adamw(0.02, weight_decay=0.1),
            },
            labels,
        )
        want = jax.tree.map(jax.numpy.asarray, params)
        kept = peer.init(want)
        opt = ao.partition(parts())
        got, state = params, opt.init(params)
        for g in grads:
            move, kept = peer.update(jax.tree.map(jax.numpy.asarray, g), kept, want)
            want = optax.apply_updates(want, move)
            got, state = opt.step(got, g, state)
            for a, b in zip(Tree(got).leaves, Tree(want).leaves, strict=True):
                np.testing.assert_allclose(a, np.asarray(b), rtol=1e-12, atol=1e-12)


def test_as_torch_parameter_groups():
    torch = package("torch")
    params, grads = problem()
    leaves = Tree(params).paths
    tensors = [torch.nn.Parameter(torch.tensor(x)) for x in Tree(params).leaves]
    named = dict(zip(leaves, tensors, strict=True))
    groups = [
        {"params": [x for k, x in named.items() if "head" in k], "lr": 0.5},
        {"params": [x for k, x in named.items() if "head" not in k and "bias" not in k]},
        {
            "params": [x for k, x in named.items() if "head" not in k and "bias" in k],
            "weight_decay": 0.0,
        },
    ]
    peer = torch.optim.AdamW(groups, lr=0.02, weight_decay=0.1)
    opt = ao.partition(
        {
            "head.*": ao.Optimizer("adam", **DECAYED | {"lr": 0.5}),
            "*.bias": ao.Optimizer("adam", **DECAYED | {"weight_decay": 0.0}),
            "*.weight": ao.Optimizer("adam", **DECAYED),
        }
    )
    got = optree.tree_map(lambda x: torch.tensor(x), params)
    state = opt.init(got)
    for g in grads:
        for x, its in zip(tensors, Tree(g).leaves, strict=True):
            x.grad = torch.tensor(its)
        peer.step()
        got, state = opt.step(got, optree.tree_map(lambda x: torch.tensor(x), g), state)
        for x, want in zip(Tree(got).leaves, tensors, strict=True):
            torch.testing.assert_close(x, want.detach(), rtol=1e-12, atol=1e-12)


def test_each_part_is_that_optimizer_to_the_bit(backend):
    params, grads = (optree.tree_map(lambda x: x.astype(np.float32), t) for t in problem())
    params, grads = optree.tree_map(backend.asarray, (params, grads))
    alone = {"layers": ao.Optimizer("dog"), "head": ao.Optimizer("adam", lr=0.1)}
    opt = ao.partition({"layers.*": alone["layers"], "*": alone["head"]})  # dog sums over all
    got, _ = walk(opt.step, params, opt.init(params), grads[:3])
    for key, other in alone.items():
        own = [g[key] for g in grads[:3]]
        want, _ = walk(other.step, params[key], other.init(params[key]), own)
        mine, want = backend.settle((got[key], want))
        for a, b in zip(Tree(mine).leaves, Tree(want).leaves, strict=True):
            np.testing.assert_array_equal(backend.asnumpy(a), backend.asnumpy(b))


def test_under_jit_the_state_is_a_tree_of_arrays():
    jax = package("jax")
    with adapter("jax").session("float64"):
        params, grads = jax.tree.map(jax.numpy.asarray, problem())
        opt = ao.partition(parts())
        want, state = walk(opt.step, params, opt.init(params), grads)
        got, after = walk(jax.jit(opt.step), params, opt.init(params), grads)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        for a, b in zip(jax.tree.leaves((got, after)), jax.tree.leaves((want, state)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_torch_compile_in_one_graph():
    torch = package("torch")
    counters = package("torch._dynamo").utils.counters
    torch._dynamo.reset()
    counters.clear()
    params, grads = optree.tree_map(lambda x: torch.tensor(x), problem())
    opt = ao.partition(parts())
    want, _ = walk(opt.step, params, opt.init(params), grads)
    opt = pickle.loads(pickle.dumps(opt))  # with the paths that it has met
    step = torch.compile(opt.step, fullgraph=True, backend="eager")
    got, state = walk(step, params, opt.init(params), grads)
    assert counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)
    assert all(isinstance(x, torch.Tensor) for x in torch.utils._pytree.tree_leaves(state))


def test_frozen_parameters_are_the_given_ones_whatever_they_are():
    params = {"w": np.ones(2), "n": np.array([3]), "rest": [np.ones(3), None]}
    opt = ao.partition({"n": None, "rest.?": None, "w": ao.Optimizer("adam")})
    state = opt.init(params)
    assert [*state] == ["w"]
    nan = np.full(3, np.nan)
    new, state = opt.step(params, {"w": np.ones(2), "n": None, "rest": [nan, None]}, state)
    assert new["n"] is params["n"]
    assert new["rest"][0] is params["rest"][0]
    assert new["w"][0] != 1
    everything = ao.partition({"*": None})
    assert everything.init(params) == {}
    assert everything.step(params, params, {})[0]["w"] is params["w"]


def test_paths_and_who_has_them():
    class Layer(NamedTuple):
        bias: Any
        Weight: Any

    x = np.ones(1)
    params = {"enc": [Layer(x, x), Layer(x, x)], "a.b": x, "3": {"bias": x}}
    sgd = ao.Optimizer("sgd")
    opt = ao.partition({"enc.[1-9].*": sgd, "*.bias": sgd, "3*": None, "*b": None, "*": sgd})
    with pytest.raises(ValueError, match=r"'3\*' has no parameter: earlier .* such as 3\.bias"):
        opt.init(params)
    opt = ao.partition({"enc.[1-9].*": sgd, "*.bias": sgd, "*b": None, "*": sgd})
    assert opt.places(Tree(params)) == {
        "enc.[1-9].*": {"enc.1.bias": 4, "enc.1.Weight": 5},
        "*.bias": {"3.bias": 0, "enc.0.bias": 2},
        "*b": {"a.b": 1},
        "*": {"enc.0.Weight": 3},
    }
    assert [*ao.partition({"params": sgd}).init(x)] == ["params"]  # a bare array


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"*.bias": None}, r"no pattern matches head\.weight; there are \['\*\.bias'\]"),
        ({"*.BIAS": None, "*": None}, r"'\*\.BIAS' has no parameter: there are head\.bias, "),
        ({"*": None, "*.bias": None}, r"'\*\.bias' has no .* earlier .* such as head\.bias"),
    ],
)
def test_patterns_that_do_not_fit(given, says):
    params, grads = problem()
    opt = ao.partition(given)
    for call in (
        lambda: opt.init(params),
        lambda: opt.step(params, grads[0], {}),
        lambda: opt.eval_params(params, {}),
    ):
        with pytest.raises(ValueError, match=f"partition: .*{says}"):
            call()


def test_two_parameters_of_one_path():
    x = np.ones(1)
    with pytest.raises(ValueError, match=r"two parameters have the path a\.b"):
        ao.partition({"*": None}).init({"a": {"b": x}, "a.b": x})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "parts must be a dict"),
        (["*"], "parts must be a dict"),
        ({0: None}, "a pattern must be a string, got 0"),
        ({"*": "adam"}, r"'\*' must have an Optimizer or None, got 'adam'"),
    ],
)
def test_what_is_no_partition(given, says):
    with pytest.raises(TypeError, match=f"partition: {says}"):
        ao.partition(given)


def test_overrides_go_where_they_belong():
    params, grads = problem()
    made = {"head.*": ao.Optimizer("sgd", lr=0.1), "*": ao.Optimizer("adam", lr=0.2)}
    opt = ao.partition(made)

    def after(**override: Any) -> Any:
        return opt.step(params, grads[0], opt.init(params), **override)[0]

    def alone(key: str, part: str, **hyper: Any) -> Any:
        its = ao.Optimizer(made[part].name, **made[part].options() | hyper)
        return its.step(params[key], grads[0][key], its.init(params[key]))[0]

    for override, head in (
        ({"b1": 0.5}, {}),
        ({"lr": 0.3}, {"lr": 0.3}),
        ({"weight_decay": 0.4}, {"weight_decay": 0.4}),
    ):
        got = after(**override)
        assert same(got["layers"], alone("layers", "*", **override))
        assert same(got["head"], alone("head", "head.*", **head))
    with pytest.raises(TypeError, match=r"none of its rules \(adam, sgd\) has 'rho'"):
        after(rho=0.5)
    with pytest.raises(ValueError, match=r"adam: b1 must be in \[0, 1\), got 2"):
        after(b1=2)


def test_a_step_that_fails_has_changed_nothing():
    params, grads = problem()  # which are read-only
    opt = ao.partition(parts(nonfinite="raise"))
    state = opt.init(params)
    before = pickle.dumps(state)
    bad = optree.tree_map(np.array, grads[0])
    bad["layers"][1]["weight"][0, 0] = np.nan
    with pytest.raises(FloatingPointError, match=r"adam: .*layers\.1\.weight.* is not finite"):
        opt.step(params, bad, state)
    bad["layers"][1]["weight"] = np.ones(3)
    with pytest.raises(ValueError, match=r"layers\.1\.weight.* must have shape \(2, 4\)"):
        opt.step(params, bad, state)
    with pytest.raises(ValueError, match="gradients must have the structure of the parameters"):
        opt.step(params, {"layers": bad["layers"]}, state)
    for wrong in ({}, state["*"], state | {"head.*": state["*"]}):
        with pytest.raises(TypeError, match="state must be what init or step gave"):
            opt.step(params, grads[0], wrong)
    assert pickle.dumps(state) == before


def test_a_skipped_part_skips_alone_and_a_mask_is_by_path():
    params, grads = problem()
    opt = ao.partition(parts(nonfinite="skip", decay_mask=lambda p: {k: "0" in k for k in p}))
    state = opt.init(params)
    bad = optree.tree_map(np.array, grads[0])
    bad["layers"][0]["weight"][0, 0] = np.inf
    new, after = opt.step(params, bad, state)
    assert (after["*"].step, after["*.bias"].step) == (0, 1)
    assert same(new["layers"][1]["weight"], params["layers"][1]["weight"])
    assert not np.array_equal(new["layers"][0]["bias"], params["layers"][0]["bias"])
    zeros = optree.tree_map(np.zeros_like, params)
    new, _ = opt.step(params, zeros, state)
    np.testing.assert_allclose(
        new["layers"][0]["weight"], 0.998 * params["layers"][0]["weight"], rtol=1e-15
    )
    assert same(new["layers"][1]["weight"], params["layers"][1]["weight"])


def test_parameters_to_evaluate_with():
    params, grads = problem()
    free = ao.Optimizer("schedule_free_sgd", lr=0.1)
    opt = ao.partition({"layers.*": free, "head.bias": None, "*": ao.Optimizer("sgd")})
    new, state = walk(opt.step, params, opt.init(params), grads)
    got = opt.eval_params(new, state)
    alone, its = walk(
        free.step, params["layers"], free.init(params["layers"]), [g["layers"] for g in grads]
    )
    assert same(got["layers"], free.eval_params(alone, its))
    assert not same(got["layers"], new["layers"])
    assert same(got["head"], new["head"])
    assert got["head"]["bias"] is params["head"]["bias"]


def test_pickle_and_repr():
    params, grads = problem()
    opt = ao.partition(parts())
    state = opt.init(params)
    other, held = pickle.loads(pickle.dumps((opt, state)))
    assert same(walk(other.step, params, held, grads), walk(opt.step, params, state, grads))
    words = repr(opt)
    assert words == repr(other)
    again = eval(words, {"partition": ao.partition, "Optimizer": ao.Optimizer})
    assert repr(again) == words


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("how", ["like", "namespace"])
@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_a_run_goes_on_from_its_file(tmp_path, name, how, include):
    library = adapter(name)
    rate = ao.schedules.linear(0.1, 20)
    with library.session("float64"):
        params, grads = optree.tree_map(library.asarray, problem())
        made = parts(decay_mask=lambda p: {k: "0" in k for k in p})
        made["*.bias"] = ao.Optimizer("dog", lr=rate)  # with state of the whole optimizer
        opt = ao.partition(made)
        middle, state = walk(opt.step, params, opt.init(params), grads[:5])
        ao.save(tmp_path / "run", opt, middle, state, include_params=include)
        onto = {"like": params} if how == "like" else {"namespace": name}
        run = ao.load(tmp_path / "run", **onto, **{"*.bias": {"lr": rate}})
        assert [*run.optimizer.parts] == ["head.*", "*.bias", "*"]
        assert run.optimizer.parts["head.*"] is None
        assert include or run.params is None
        here = run.params if include else middle
        got = library.settle(walk(run.optimizer.step, here, run.state, grads[5:]))
        want = library.settle(walk(opt.step, middle, state, grads[5:]))
        assert [type(x) for x in Tree(got).leaves] == [type(x) for x in Tree(want).leaves]
        assert same(got, want)


def test_files_that_cannot_be_taken_up(tmp_path):
    params, _ = problem()
    opt = ao.partition(parts(lr=lambda t: 0.1))
    path = tmp_path / "run"
    state = opt.init(params)
    ao.save(path, opt, params, state | {"*.bias": state["*.bias"]._replace(step=7)})
    rate = {"*": {"lr": 0.1}}
    for override, says in (
        ({}, r"'\*': lr was a schedule"),
        ({"*": {"lr": -1}}, r"'\*': adam: lr must be in"),
        ({"*": {"lr": 0.1, "rule": "sgd"}}, r"'\*': its rule is 'adam', not 'sgd'"),
        (rate | {"rule": "adam"}, r"it is a partition: give a rule for a pattern"),
        (rate | {"head.*": {"lr": 1}}, r"none of its optimizers has the pattern 'head\.\*'"),
    ):
        with pytest.raises(ao.CheckpointError, match=says):
            ao.load(path, like=params, **override)
    about, tensors = _storage.read(path)
    assert about["step"] == 7
    slots = {f"1/slot/m/['layers.{i}.bias']" for i in range(2)}
    slots |= {f"2/slot/{k}/['layers.{i}.weight']" for k in "mv" for i in range(2)}
    assert {*tensors} == {f"param/{k}" for k in Tree(params).paths} | {f"part/{k}" for k in slots}
    part = json.loads(about["options"]["*"])

    def refused(says: str, tensors: Any, **members: Any) -> None:
        digests = {"tensors": {k: sha256(x) for k, x in tensors.items()}}
        _storage.write(
            str(path), tensors, json.dumps(about | members | digests, separators=(",", ":"))
        )
        with pytest.raises(ao.CheckpointError, match=says):
            ao.load(path, like=params, **rate)

    def options(**given: Any) -> Any:
        return {"options": about["options"] | given}

    name = "part/2/slot/m/['layers.0.weight']"
    lacking = {k: x for k, x in tensors.items() if k != "param/['head']['weight']"}
    refused(r"'weight'\], which partition needs", lacking)
    refused(r"part '\*' is not .* tensors of", {k: x for k, x in tensors.items() if k != name})
    refused("it has part/9/x, which partition does not know", tensors | {"part/9/x": np.ones(1)})
    for text, says in (
        ("{", r"its part '\*' is not as format 1"),
        (json.dumps(part | {"step": -1}), r"its part '\*' is not as format 1"),
        (json.dumps(part | {"rule": "partition"}), r"'\*': its rule 'partition' is none"),
    ):
        refused(says, tensors, **options(**{"*": text}))
    refused("partition: the pattern 'x' has no parameter", tensors, **options(x=None))


def test_a_rule_of_ones_own_in_a_part_and_one_named_partition(tmp_path):
    params, _ = problem()
    mine = ModuleType("partition")
    vars(mine).update(State=ao.sgd.State, init=ao.sgd.init, update=ao.sgd.update)
    path, alone = tmp_path / "run", ao.Optimizer(mine)
    ao.save(path, alone, params, alone.init(params))
    assert ao.load(path, like=params, rule=mine).optimizer.rule is mine
    opt = ao.partition({"head.*": None, "*": alone})
    ao.save(path, opt, params, opt.init(params))
    run = ao.load(path, like=params, **{"*": {"rule": mine, "lr": 0.5}})
    assert run.optimizer.parts["*"].rule is mine
    assert run.optimizer.parts["*"].hyper["lr"] == 0.5
    with pytest.raises(ao.CheckpointError, match=r"'\*': its rule 'partition' is none of .*"):
        ao.load(path, like=params)
