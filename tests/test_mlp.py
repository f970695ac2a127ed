"""The digits problem: its gradient, the same numbers on every namespace, and its data."""

import sys
from contextlib import ExitStack
from functools import partial

import numpy as np
import pytest
from array_api_compat import array_namespace

from arrayopt import mlp

BACKENDS = ["numpy", "array_api_strict", "torch", "jax.numpy", "dask.array"]
SIZES = (6, 5, 4, 3)  # two hidden layers: the smallest net that passes delta through a mask twice
NAMES = ["w0", "b0", "w1", "b1", "w2", "b2"]
DTYPES = ["float32", "float64"]
EPS = 16  # between libraries, eager or compiled: exp, log and the order of sums differ; seen: 8
STRICTEST = {
    "api_version": "2024.12",
    "boolean_indexing": False,
    "data_dependent_shapes": False,
    "enabled_extensions": (),
}


@pytest.fixture(params=BACKENDS)
def xp(request):
    lib = pytest.importorskip(request.param)
    xp = array_namespace(lib.empty(0))
    with ExitStack() as stack:
        if request.param == "array_api_strict":
            stack.enter_context(xp.ArrayAPIStrictFlags(**STRICTEST))
        if request.param == "jax.numpy":
            stack.enter_context(jax_exact())
        yield xp


@pytest.fixture(scope="module")
def data():
    pytest.importorskip("sklearn")
    return mlp.Data(*map(frozen, mlp.load(0)))


def jax_exact():
    """A context with float64 allowed, and no TF32 in matmul where JAX finds a GPU."""
    jax, stack = pytest.importorskip("jax"), ExitStack()
    stack.enter_context(jax.enable_x64(True))
    stack.enter_context(jax.default_matmul_precision("highest"))
    return stack


def frozen(a):
    a.flags.writeable = False
    return a


def problem(dtype):
    """A small net and a batch of 8, all read-only: a function that writes to them raises."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((8, SIZES[0]))
    y = np.eye(SIZES[-1])[rng.integers(SIZES[-1], size=8)]
    params = {k: frozen(p.astype(dtype)) for k, p in mlp.init(1, SIZES).items()}
    return params, frozen(x.astype(dtype)), frozen(y.astype(dtype))


def put(xp, params, *arrays):
    """The arguments of ``loss_and_grad``, copied to ``xp``."""
    copy = partial(xp.asarray, copy=True)
    return {k: copy(p) for k, p in params.items()}, *map(copy, arrays)


def assert_near(got, want, eps):
    """Two results of ``loss_and_grad``: each array within ``eps`` of its largest magnitude."""
    assert list(want[1]) == NAMES
    for a, b in [(got[0], want[0]), *((got[1][k], want[1][k]) for k in NAMES)]:
        a = np.asarray(a)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        bound = eps * np.finfo(b.dtype).eps * np.max(np.abs(b))
        np.testing.assert_allclose(a, b, rtol=0, atol=bound)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_central_difference(name):
    params, x, y = problem("float64")
    grad = mlp.loss_and_grad(params, x, y, xp=np)[1][name]
    step = 1e-5  # truncation ~ step**2, cancellation ~ 1e-16 / step: both near 1e-11

    def loss(i, d):
        moved = params[name].copy()
        moved[i] += d
        return mlp.loss_and_grad({**params, name: moved}, x, y, xp=np)[0]

    want = np.empty_like(grad)
    for i in np.ndindex(grad.shape):
        want[i] = (loss(i, step) - loss(i, -step)) / (2 * step)
    assert np.max(np.abs(want)) > 1e-2
    np.testing.assert_allclose(grad, want, rtol=1e-6, atol=1e-9)


def test_problem_exercises_the_mask():
    """Each hidden layer has units on and off, none within 1e-3 of the kink."""
    params, x, _ = problem("float64")
    z0 = x @ params["w0"] + params["b0"]
    z1 = np.maximum(z0, 0) @ params["w1"] + params["b1"]
    for z in z0, z1:
        assert 0.2 < np.mean(z > 0) < 0.8
        assert np.min(np.abs(z)) > 1e-3


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-6), ("float64", 1e-12)])
def test_gradient_is_torch_autograd(dtype, rtol):
    torch = pytest.importorskip("torch")
    params, x, y = problem(dtype)
    p = {k: torch.tensor(a, requires_grad=True) for k, a in params.items()}
    h = torch.tensor(x)
    for k in range(3):
        h = torch.nn.functional.linear(torch.relu(h) if k else h, p[f"w{k}"].T, p[f"b{k}"])
    loss = torch.nn.functional.cross_entropy(h, torch.tensor(y))
    loss.backward()
    want = loss.detach().numpy(), {k: a.grad.numpy() for k, a in p.items()}
    assert_near(mlp.loss_and_grad(params, x, y, xp=np), want, rtol / np.finfo(dtype).eps)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-6), ("float64", 1e-12)])
def test_gradient_is_jax_grad(dtype, rtol):
    jax = pytest.importorskip("jax")
    params, x, y = problem(dtype)

    def reference(p):
        h = x
        for k in range(3):
            h = (jax.nn.relu(h) if k else h) @ p[f"w{k}"] + p[f"b{k}"]
        return -(y * jax.nn.log_softmax(h)).sum(axis=1).mean()

    with jax_exact():
        loss, grads = jax.value_and_grad(reference)(*put(jax.numpy, params))
    want = np.asarray(loss), {k: np.asarray(grads[k]) for k in NAMES}
    assert_near(mlp.loss_and_grad(params, x, y, xp=np), want, rtol / np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_logits_do_not_overflow(xp, dtype):
    params = {"w0": np.eye(3, dtype=dtype), "b0": np.zeros(3, dtype=dtype)}  # logits = x
    x, y = np.asarray([[1e4, 0, 0]], dtype=dtype), np.asarray([[0, 1, 0]], dtype=dtype)
    loss, grads = mlp.loss_and_grad(*put(xp, params, x, y), xp=xp)
    assert float(loss) == 1e4
    np.testing.assert_array_equal(np.asarray(grads["b0"]), [1, -1, 0])


def test_nan_is_not_hidden(xp):
    params, x, y = problem("float32")
    x = np.where(np.arange(8)[:, None] == 2, np.float32("nan"), x)
    loss, grads = mlp.loss_and_grad(*put(xp, params, x, y), xp=xp)
    assert np.isnan(np.asarray(loss))
    assert all(np.all(np.isnan(np.asarray(g))) for g in grads.values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_on_every_namespace(xp, dtype):
    params, x, y = problem(dtype)
    loss, grads = mlp.loss_and_grad(*put(xp, params, x, y), xp=xp)
    assert list(grads) == list(params)
    assert {array_namespace(a) for a in (loss, *grads.values())} == {xp}
    assert_near((loss, grads), mlp.loss_and_grad(params, x, y, xp=np), EPS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_jit_is_eager(dtype):
    jax, args = pytest.importorskip("jax"), problem(dtype)
    with jax_exact():
        got = jax.jit(partial(mlp.loss_and_grad, xp=jax.numpy))(*args)
    assert_near(got, mlp.loss_and_grad(*args, xp=np), EPS)


def test_torch_compile_is_eager():
    torch = pytest.importorskip("torch")
    xp = array_namespace(torch.empty(0))
    args = problem("float32")
    # aot_eager traces the whole graph, which is what can fail here, and needs no C++ compiler
    step = torch.compile(mlp.loss_and_grad, fullgraph=True, backend="aot_eager")
    got = step(*put(xp, *args), xp=xp)
    assert_near(got, mlp.loss_and_grad(*args, xp=np), EPS)


def test_dask_stays_lazy():
    dask = pytest.importorskip("dask")
    xp = array_namespace(pytest.importorskip("dask.array").empty(0))
    params, x, y = put(xp, *problem("float32"))

    def refuse(*args, **kwargs):
        raise AssertionError("computed something")

    with dask.config.set(scheduler=refuse):
        got = mlp.loss_and_grad(params, x.rechunk((4, 6)), y.rechunk((4, 3)), xp=xp)
        score = mlp.accuracy(params, x, y, xp=xp)
    assert_near(got, mlp.loss_and_grad(*problem("float32"), xp=np), EPS)
    assert score.shape == ()


@pytest.mark.parametrize("dtype", DTYPES)
def test_accuracy_is_the_fraction_right(xp, dtype):
    params = {"w0": np.eye(3, dtype=dtype), "b0": np.zeros(3, dtype=dtype)}  # logits = x
    x = np.asarray([[3, 1, 2], [1, 3, 2], [1, 2, 3], [3, 2, 1]], dtype=dtype)
    y = np.eye(3, dtype=dtype)[[0, 1, 2, 1]]  # the last one is wrong
    got = mlp.accuracy(*put(xp, params, x, y), xp=xp)
    assert (got.shape, got.dtype) == ((), getattr(xp, dtype))
    assert float(got) == 0.75


def test_init_is_seeded():
    a, b, c = mlp.init(0), mlp.init(0), mlp.init(1)
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert not any(np.array_equal(a[k], c[k]) for k in a)


def test_init_has_shapes_scale_and_no_zero():
    params = mlp.init(0, (400, 300, 200))
    assert list(params) == ["w0", "b0", "w1", "b1"]
    assert [p.shape for p in params.values()] == [(400, 300), (300,), (300, 200), (200,)]
    assert {p.dtype for p in params.values()} == {np.dtype("float32")}
    assert all(np.all(p != 0) for p in params.values())
    for k, std in {"w0": (2 / 400) ** 0.5, "w1": (2 / 300) ** 0.5, "b0": 0.1, "b1": 0.1}.items():
        error = 4 / np.sqrt(2 * params[k].size)  # four standard errors of a standard deviation
        np.testing.assert_allclose(np.std(params[k]), std, rtol=error)


def test_batches_shuffle_without_replacement():
    got = list(mlp.batches(50, 8, epoch=0, seed=0))
    assert {b.shape for b in got} == {(8,)}
    rows = np.concatenate(got).tolist()
    assert len(set(rows)) == 48  # 50 % 8 = 2 rows are left out
    assert set(rows) < set(range(50))
    assert rows != sorted(rows)


def test_batches_are_seeded():
    def order(epoch, seed):
        return np.concatenate(list(mlp.batches(50, 5, epoch, seed))).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(e, s)) for e in range(3) for s in range(3)}) == 9


@pytest.mark.parametrize("size", [0, -1, 51])
def test_batches_refuse_a_size_at_once(size):
    with pytest.raises(ValueError, match=rf"batches: size must be in \[1, 50\], got {size}"):
        mlp.batches(50, size, epoch=0, seed=0)


def test_load_is_seeded():
    pytest.importorskip("sklearn")
    a, b, c = mlp.load(3), mlp.load(3), mlp.load(4)
    assert all(map(np.array_equal, a, b))
    assert not np.array_equal(a.x_test, c.x_test)


def test_data_shapes_and_values(data):
    assert [a.shape for a in data] == [(1437, 64), (1437, 10), (360, 64), (360, 10)]
    assert {a.dtype for a in data} == {np.dtype("float32")}
    pixels = np.concatenate([data.x_train, data.x_test])
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert np.all(pixels == 0, axis=0).sum() == 3
    labels = np.concatenate([data.y_train, data.y_test])
    assert np.array_equal(np.sort(labels, axis=1), np.eye(10)[np.full(1797, 9)])  # one-hot


def test_data_is_split_within_each_class(data):
    train = {row.tobytes() for row in data.x_train}
    test = {row.tobytes() for row in data.x_test}
    assert (len(train), len(test)) == (1437, 360)  # no image occurs twice
    assert train.isdisjoint(test)
    held_out = data.y_test.sum(axis=0)
    share = 0.2 * (data.y_train.sum(axis=0) + held_out)
    assert np.all(np.abs(held_out - share) < 1)


def test_labels_go_with_their_images(data):
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    label = {(p / 16).astype("float32").tobytes(): d for p, d in zip(pixels, digit, strict=True)}
    want = [label[row.tobytes()] for row in data.x_test]
    assert np.array_equal(np.argmax(data.y_test, axis=1), want)


def test_load_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'pip install "arrayopt\[cli\]"'):
        mlp.load(0)


def test_sgd_learns_the_digits(data):
    x, y = data.x_train, data.y_train
    params = mlp.init(0)
    assert mlp.accuracy(params, data.x_test, data.y_test, xp=np) < 0.3
    for epoch in range(5):
        for i in mlp.batches(len(x), 32, epoch, seed=0):
            _, grads = mlp.loss_and_grad(params, x[i], y[i], xp=np)
            params = {k: p - np.float32(0.2) * grads[k] for k, p in params.items()}
    assert mlp.accuracy(params, data.x_test, data.y_test, xp=np) >= 0.9
