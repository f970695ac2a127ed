"""JAX arrays over 8 devices: shardings are kept, and the numbers are those of one device.

The devices are eight of the host's, which XLA makes when it starts: so this file also runs as a
program, once for all rules, and prints what it found as JSON. That program is kept from fused
multiply-adds (``xla_cpu_max_isa``): which operations XLA contracts to them depends on the shape, so
that a shard and the whole array would round differently; without, every elementwise rule must be
bit-equal.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from conftest import once, package

STEPS = 5
OPTIONS: dict[str, dict[str, Any]] = {
    "adamax": {},
    "mada": {"b1": 0.8, "b2": 0.95, "b3": 0.1, "rho": 0.7, "c": 0.6},
    "madam": {"p_scale": 1.0},
    "maxva_lamadam": {},
    "maxva_madam": {"amsgrad": True, "weight_decay": 0.1},
    "simplified_ademamix": {},
}
# In eps of each array's largest magnitude. Sums are taken in float32 (64-bit mode is off), shard by
# shard: MADA's move its coefficients, and so every slot. expm1 of the bias correction and Madam's
# exp have several forms, 1 ulp apart, of which XLA takes one for each loop they are folded into.
EPS = {"mada": 64, "madam": 4, "simplified_ademamix": 2}
FLAGS = "--xla_force_host_platform_device_count=8 --xla_cpu_max_isa=AVX"


def main():
    """For each way to run each rule: what lies elsewhere than its parameter, and the distance."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    import arrayopt as ao
    import arrayopt.backends.jax as adapter

    assert len(jax.devices()) == 8
    specs = {"w": P("a", "b"), "bias": [P(("b", "a")), P()]}
    shapes = {"w": (16, 24), "bias": [(24,), (3,)]}
    leaf = {"is_leaf": lambda x: isinstance(x, P | tuple)}

    def places(axis_type):
        mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(axis_type,) * 2)
        return jax.tree.map(lambda s: NamedSharding(mesh, s), specs, **leaf)

    def tree(seed, place):
        rng = np.random.default_rng(seed)
        made = jax.tree.map(lambda s: rng.standard_normal(s, np.float32), shapes, **leaf)
        return jax.device_put(made, place)  # on one device where that is None

    def misplaced(place, *trees):
        """The arrays that do not lie like their parameters; 0-d ones must be on all devices."""
        bad = []
        for x_tree in trees:
            for x, want in zip(jax.tree.leaves(x_tree), jax.tree.leaves(place), strict=True):
                want = want if x.ndim else NamedSharding(want.mesh, P())
                if not x.sharding.is_equivalent_to(want, x.ndim):
                    bad.append(f"{x.shape}: {x.sharding}, not {want}")
        return bad

    def slots_of(state):
        return [s for s in state.slots if s != ()]

    def distance(got, want):
        worst = 0.0
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            worst = max(worst, float(np.abs(a - b).max() / (np.abs(b).max() or 1.0)) / 2**-23)
        return worst

    def step(rule, place):
        """``Optimizer.init``, and ``backends.jax.step`` with donated buffers."""
        opt = ao.Optimizer(rule, lr=0.01, **OPTIONS[rule])
        advance, params = adapter.step(opt), tree(0, place)
        state = opt.init(params)
        started = slots_of(state)
        bad = misplaced(place, *started) if place else []
        for t in range(STEPS):
            params, state = advance(params, tree(1 + t, place), state)
        return params, state, bad

    def transformation(rule, place):
        """As an optax transformation, both of its functions under jit."""
        tx = adapter.transformation(rule, lr=0.01, **OPTIONS[rule])
        params = tree(0, place)
        state = tx.init(params)
        bad = misplaced(place, *slots_of(state)) if place else []

        @jax.jit
        def advance(params, grads, state):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        for t in range(STEPS):
            params, state = advance(params, tree(1 + t, place), state)
        return params, state, bad

    def init_under_jit(rule, place):
        """Without being told, XLA may place what does not depend on the values anywhere."""
        opt, params = ao.Optimizer(rule, **OPTIONS[rule]), tree(0, place)
        told = None
        if place:
            shape = jax.eval_shape(opt.init, params)
            everywhere = NamedSharding(place["w"].mesh, P())
            told = jax.tree.map(lambda _: everywhere, shape)
            told = told._replace(slots=type(told.slots)(*(
                s if s == () else jax.tree.map(lambda x, q: q if x.ndim else everywhere, s, place)
                for s in shape.slots)))  # fmt: skip
        state = jax.jit(opt.init, out_shardings=told)(params)
        return params, state, []

    auto, explicit = places(AxisType.Auto), places(AxisType.Explicit)
    todo = [(run, rule, auto) for run in (step, transformation) for rule in OPTIONS]
    todo += [(init_under_jit, rule, auto) for rule in ("adamax", "madam")]
    todo += [(step, rule, explicit) for rule in ("adamax", "mada")]
    whole, out = {}, {}
    for run, rule, place in todo:
        if (run, rule) not in whole:
            whole[run, rule] = run(rule, None)[:2]
        params, state, bad = run(rule, place)
        bad += misplaced(place, params, *slots_of(state))
        kind = "" if place is auto else " explicit"
        out[f"{run.__name__} {rule}{kind}"] = bad, distance((params, state), whole[run, rule])
    assert jnp.zeros(()).dtype == "float32"
    print(json.dumps(out))


def eight_devices(folder):
    env = os.environ | {"XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"}
    run = [sys.executable, "-W", "error", __file__]
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "found.json").write_text(done.stdout)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    package("jax")
    package("optax")
    folder = once(tmp_path_factory, "distributed_jax", eight_devices)
    return json.loads((folder / "found.json").read_text())


ways = [f"{how} {rule}" for how in ("step", "transformation") for rule in OPTIONS]
ways += ["init_under_jit adamax", "init_under_jit madam"]
ways += ["step adamax explicit", "step mada explicit"]


@pytest.mark.parametrize("way", ways)
def test_sharded_is_equal_to_unsharded_and_stays_sharded(found, way):
    assert list(found) == ways
    misplaced, distance = found[way]
    assert misplaced == []
    assert distance <= EPS.get(way.split()[1], 0)


if __name__ == "__main__":
    main()
