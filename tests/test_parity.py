"""The contract on numbers: every library beside NumPy, 100 steps, every rule."""

import numpy as np
import pytest
from conftest import adapter, package, sums

from arrayopt import parity

STEPS = 100
PROMISED = ("adam", "adamax", "adan", "maxva_madam", "schedule_free_adamw", "sgd", "yogi")  # bits


def row(rule, name, dtype, steps=STEPS):
    if dtype not in adapter(name).DTYPES:
        pytest.skip(f"{name} has no {dtype}")
    (found,) = parity.run([rule], [name], [dtype], steps)
    return found


@pytest.mark.parametrize("name", ["strict", "torch", "jax", "mlx"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bound_is_kept(rule, name, dtype):
    steps = 20 if name == "strict" else STEPS  # it is NumPy, slowly
    found = row(rule, name, dtype, steps)
    assert found.kept, found
    assert found.steps == steps


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dask_bound_is_kept(rule, dtype):
    if dtype == "float64" and rule != "adam":
        pytest.skip("it is NumPy, slowly")
    found = row(rule, "dask", dtype, STEPS if rule == "adam" else 4)
    assert found.kept, found
    assert found.steps == (20 if rule == "adam" else 4)


@pytest.mark.parametrize("name", ["strict", "torch", "jax", "mlx"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_bound_is_kept(rule, name, dtype):
    package("ml_dtypes")
    found = row(rule, name, dtype, 20)
    assert found.kept, found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_promise_of_bits_is_made_where_it_must_be(rule, dtype):
    found = parity.rules.find(rule)
    unit, most = parity.bound(rule, "torch", STEPS)
    own = sums(rule) or hasattr(found, "PARITY_EPS")
    assert unit == ("eps" if own else "ulp")
    assert most == getattr(found, "PARITY_EPS", 100.0 if own else 0.0)
    assert own == (rule not in PROMISED)
    jax = getattr(found, "CONTRACTED_EPS", 4.0)
    assert parity.bound(rule, "jax", STEPS) == ("eps", most if own else jax)


@pytest.mark.parametrize(("rule", "kept"), [("shampoo", "has no eigh"), ("sgd", "0 ulp")])
def test_a_library_that_lacks_a_function_is_told(rule, kept):
    found = row(rule, "dask", "float32", 2)
    assert (found.bound, found.ulp) == (kept, 0 if rule == "sgd" else None)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_float64_distance_is_that_of_the_dtype(rule, dtype):
    found = row(rule, "numpy", dtype, 20)
    assert found.ulp == found.eps == 0
    assert (found.float64 == 0) == (dtype == "float64")
    assert found.float64 < 30


def test_distance_in_ulp():
    a = np.asarray([0.0, 1.0, -1.0, np.nan, 5e-324, np.inf])
    assert parity._ulp(a, a.copy()) == 0
    assert parity._ulp(np.asarray([0.0]), np.asarray([-0.0])) == 0
    assert parity._ulp(np.asarray([5e-324]), np.asarray([-5e-324])) == 2
    assert parity._ulp(np.asarray([1.0]), np.nextafter([1.0], 2)) == 1
    assert parity._ulp(np.asarray([-1.0]), np.nextafter([-1.0], -2)) == 1
    assert parity._ulp(np.asarray([1.0]), np.asarray([np.nan])) == np.inf
    assert parity._ulp(np.float32([1]), np.float64([1])) == np.inf
    one = np.float16([1])
    assert parity._ulp(one, np.nextafter(one, np.float16(0))) == 1


def test_a_broken_library_is_seen(monkeypatch):
    torch_adapter = adapter("torch")
    asnumpy = torch_adapter.asnumpy
    monkeypatch.setattr(torch_adapter, "asnumpy", lambda x: np.nextafter(asnumpy(x), np.inf))
    found = row("adam", "torch", "float32", 2)
    assert not found.kept
    assert found.ulp == 1


def test_torch_sqrt_is_correctly_rounded():
    torch = package("torch")
    from arrayopt._namespace import namespace

    x = np.random.default_rng(0).uniform(1e-3, 1e3, 100_000)
    single = x.astype(np.float32)
    for y in (x, single):
        t = torch.tensor(y)
        np.testing.assert_array_equal(namespace(t).sqrt(t).numpy(), np.sqrt(y))
    t = torch.tensor([4.0], requires_grad=True)
    namespace(t).sqrt(t).sum().backward()
    assert t.grad.tolist() == [0.25]
