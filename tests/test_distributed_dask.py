"""Dask on a cluster of two worker processes, with more parameters and state than one may hold."""

import contextlib
import os

import numpy as np
import pytest
from conftest import SEED_RULES, adapter, data, package

import arrayopt as ao

LIMIT = 400_000_000  # bytes of memory for each worker; a worker that just started has 105 MB
CHUNK, CHUNKS, STEPS = 1_500_000, 14, 2


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    adapter("dask")
    distributed = package("distributed")
    with contextlib.ExitStack() as stack:
        cluster = distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            memory_limit=LIMIT,
            dashboard_address=":0",
            local_directory=tmp_path_factory.mktemp("dask"),
        )
        stack.enter_context(cluster)
        yield stack.enter_context(distributed.Client(cluster))


def wave(block_info=None, *, seed):
    """One chunk of smooth data: the same wherever it is made."""
    ((start, stop),) = block_info[None]["array-location"]
    return np.sin(np.arange(start, stop, dtype=np.float32) * np.float32(0.001) + np.float32(seed))


def test_parameters_and_state_larger_than_a_workers_memory(client):
    import dask.array as da
    from distributed import wait

    from arrayopt.backends.dask import Optimizer

    def made(seed):
        return da.map_blocks(wave, seed=seed, chunks=((CHUNK,) * CHUNKS,), dtype=np.float32)

    workers = client.run(os.getpid)
    opt = Optimizer("maxva_madam", weight_decay=0.1)
    params = made(0).persist()
    state = opt.init(params)
    for step in range(STEPS):
        params, state = opt.step(params, made(1 + step), state)
        wait([params, *state.slots[:4]])
    arrays = [params, *(s for s in state.slots if not isinstance(s, tuple))]
    assert len(arrays) == 5
    assert sum(x.nbytes for x in arrays) > LIMIT
    assert all(len(dict(x.__dask_graph__())) == CHUNKS for x in arrays)  # chunks, not a history
    for spec in client.scheduler_info()["workers"].values():
        assert spec["memory_limit"] == LIMIT
    held = {k: len(v) for k, v in client.has_what().items()}
    assert min(held.values()) >= CHUNKS, held  # of 5 * CHUNKS
    for i in range(CHUNKS):
        info = {None: {"array-location": [(i * CHUNK, (i + 1) * CHUNK)]}}
        whole = ao.Optimizer("maxva_madam", weight_decay=0.1)
        p = wave(info, seed=0)
        s = whole.init(p)
        for step in range(STEPS):
            p, s = whole.step(p, wave(info, seed=1 + step), s)
        for got, want in zip(arrays, (p, *s.slots[:4]), strict=True):
            if got is params or i == CHUNKS - 1:
                assert np.array_equal(got.blocks[i].compute(), want)
    assert client.run(os.getpid) == workers  # none was killed for its memory


@pytest.mark.parametrize("rule", SEED_RULES)
def test_every_seed_rule_is_equal_to_numpy(client, rule):
    """Bit-equal where the rule is elementwise; sums are added up chunk by chunk, in float64."""
    import dask.array as da

    from arrayopt.backends.dask import Optimizer

    start, grads = data(steps=2)
    opt, whole = Optimizer(rule), ao.Optimizer(rule)

    def chunked(tree):
        return {
            "w": da.from_array(tree["w"], chunks=(2, 4)),
            "b": [da.from_array(tree["b"][0], chunks=3)],
        }

    params, want = chunked(start), start
    state, want_state = opt.init(params), whole.init(want)
    for g in grads:
        params, state = opt.step(params, chunked(g), state)
        want, want_state = whole.step(want, g, want_state)
    assert params["w"].chunks == state.slots[0]["w"].chunks == ((2, 2), (4, 3))
    for got, x in ((params["w"], want["w"]), (params["b"][0], want["b"][0])):
        bound = 16 * np.finfo(np.float64).eps if rule in ("madam", "mada") else 0
        np.testing.assert_allclose(got.compute(), x, rtol=0, atol=bound * np.abs(x).max())
    if rule == "madam":
        got, true = state.slots.scale["w"].compute(), np.sqrt(np.mean(start["w"] ** 2))
        assert abs(got - true) <= 2 * np.finfo(np.float64).eps * true
