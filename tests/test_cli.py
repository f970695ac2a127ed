"""The command line."""

import contextlib
import functools
import inspect
import io
import json
import re
import subprocess
import sys
from unittest import mock

import pytest
from conftest import SEED_RULES, adapter

import arrayopt as ao
from arrayopt._like import FRAMEWORKS, load
from arrayopt.wrappers import ema


def program(*args, code=0):
    """As a user runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "arrayopt", *args], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def run(*args, code=0):
    """The same in this process, which has the libraries loaded."""
    from arrayopt import cli

    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["arrayopt", *args]),
        pytest.raises(SystemExit) as stop,
    ):
        cli.main()
    found = subprocess.CompletedProcess(args, stop.value.code, out.getvalue(), err.getvalue())
    assert found.returncode == code, found.stdout + found.stderr
    return found


def test_as_a_user_runs_it():
    args = ("parity", "--rules", "adam", "--backends", "numpy", "--steps", "2")
    assert program(*args).stdout == run(*args).stdout
    args = ("train", "--set", "b1")
    assert program(*args, code=2).stderr == run(*args, code=2).stderr


def test_list_and_show():
    rows = json.loads(run("list", "--json").stdout)
    assert [r["rule"] for r in rows] == ao.rules.names()
    adam = next(r for r in rows if r["rule"] == "adam")
    assert adam["bytes"] == 8
    assert adam["hyper"]["b1"] == {"default": 0.9, "legal": "[0, 1)"}
    assert all(r["url"].startswith("https://") for r in rows)
    text = run("show", "madam").stdout
    assert "https://arxiv.org/abs/2006.14560" in text
    assert "p_scale" in text
    text = run("list").stdout
    assert "adamax" in text
    assert "…" not in text  # at 80 columns too
    assert all(r["url"] in text for r in rows if "arxiv.org/abs/" in r["url"])


def test_the_markup_of_a_docstring_is_left_out():
    from arrayopt._plain import plain

    text = plain(inspect.getdoc(ao.adam))
    assert "    m ← β_1 m + (1 - β_1) g\n    v ← β_2 v" in text
    assert "(m / (√(v / (1 - β_2^t) + ε_root) + ε))\n\nKingma & Ba" in text
    assert "^2))),\n        τ = 0 if" in plain(inspect.getdoc(ao.rules.find("momo")))
    assert "Equal to torch.optim.Adam and optax.adam." in text
    assert "    a ← β a + (1 - β) p,  a_0 = p_0\n\nwith ema_decay β" in plain(ema.__doc__)
    docs = [ao.rules.find(name) for name in ao.rules.names()]
    docs += [ao.wrappers.find(name) for name in ao.wrappers.names()]
    for doc in map(inspect.getdoc, docs):
        assert not re.search(r"\\|`|^\.\. |\x01|\x02|\x03", plain(doc), re.MULTILINE), plain(doc)


@pytest.mark.parametrize(("rule", "backend"), [("polyak_sgd", "numpy"), ("momo", "jax")])
def test_train_gives_the_loss_to_rules_that_read_it(rule, backend):
    adapter(backend)
    args = ("train", "--rule", rule, "--epochs", "2", "--backend", backend, "--json")
    one, two = (e["loss"] for e in json.loads(run(*args).stdout)[backend])
    assert two < one - 0.1  # SPS with a loss of 0 would stay


def test_what_has_to_be_installed_is_told(monkeypatch):
    for package, args, extra in (
        ("llvmlite", ("bench", "--quick"), "bench"),
        ("matplotlib", ("train", "--plot", "x.png"), "plot"),
        ("matplotlib", ("race", "--output", "x.png"), "plot"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            text = run(*args, code=2).stderr
        assert f'needs {package}: pip install "arrayopt[{extra}]"\n' in text


def test_version():
    assert run("--version").stdout == f"arrayopt {ao.__version__}\n"


@pytest.mark.parametrize("rule", SEED_RULES)
def test_train_reaches_95_percent(rule):
    done = run("train", "--rule", rule, "--seed", "0", "--json")
    last = json.loads(done.stdout)["numpy"][-1]
    assert last["accuracy"] >= 0.95
    assert last["seconds"] < 60  # 2 to 8 on a quiet machine of two cores


def test_train_writes_a_plot_and_is_reproducible(tmp_path):
    pytest.importorskip("matplotlib")
    args = ("train", "--rule", "adamax", "--epochs", "2", "--json", "--set", "b1=0.8")
    one = json.loads(run(*args, "--plot", str(tmp_path / "curve.png")).stdout)["numpy"]
    two = json.loads(run(*args).stdout)["numpy"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert [e["loss"] for e in one] == [e["loss"] for e in two]


@pytest.mark.parametrize("backend", ["strict", "torch", "jax", "dask", "mlx"])
def test_train_on_every_backend(backend):
    adapter(backend)
    args = ("train", "--rule", "maxva_madam", "--epochs", "1", "--batch", "360", "--json")
    there = json.loads(run(*args, "--backend", backend).stdout)[backend][0]
    assert there["loss"] == pytest.approx(loss_on_numpy(*args), rel=1e-5)


@functools.cache
def loss_on_numpy(*args):
    return json.loads(run(*args).stdout)["numpy"][0]["loss"]


def test_parity_keeps_its_bounds():
    args = ("parity", "--rules", "adam,madam", "--backends", "numpy,strict", "--steps", "5")
    rows = json.loads(run(*args, "--json").stdout)
    assert len(rows) == 8
    assert all(r["kept"] for r in rows)
    assert "every bound kept" in run(*args).stdout


def test_parity_exits_with_1_where_a_bound_is_broken(monkeypatch):
    from arrayopt import parity

    real = parity.run
    monkeypatch.setattr(parity, "run", lambda *a: (r._replace(kept=False) for r in real(*a)))
    args = ("parity", "--rules", "sgd", "--backends", "numpy", "--steps", "1")
    assert "2 bounds broken" in run(*args, code=1).stdout


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("train", "--rule", "adamx"), "no rule is named 'adamx'; did you mean adamax"),
        (("train", "--rule", "madam", "--set", "b_hi=0.9"), "maxva_madam"),
        (("train", "--rule", "adam", "--lr", "-1"), "lr must be in [0, inf)"),
        (("train", "--set", "b1"), "--set takes NAME=VALUE, got 'b1'"),
        (("train", "--backend", "tensorflow"), "no backend is named 'tensorflow'"),
        (("train", "--set", "seed=3"), "has no hyperparameter 'seed'"),
        (("train", "--set", "lr=abc"), "lr must be a number in [0, inf), got 'abc'"),
        (("train", "--plot", "nowhere/x.png"), "--plot needs a file in a folder that is there"),
        (("train", "--plot", "x.txt"), ".png, .pdf, .svg: x.txt"),
        (("engines", "--rules", "adam,,sgd"), "the name of a rule is empty"),
        (("parity", "--backends", "mlx", "--dtype", "float64"), "none of mlx has float64"),
        (("parity", "--dtype", "int8"), "no dtype is named 'int8'"),
        (("show", "nothing"), "no rule is named 'nothing'"),
        (("like", "jax"), "no framework is named 'jax'"),
        (("like", "torch", "adam"), "did you mean 'Adam'?"),
    ],
)
def test_mistakes_are_one_line(args, text):
    done = run(*args, code=2)
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_engines():
    rows = json.loads(run("engines", "--rules", "adam,mada", "--json").stdout)
    found = {(r["arrays"], r["rule"]): r["engines"] for r in rows}
    assert found["numpy", "mada"] == {"fused": None, "blocks": None, "eager": None}
    assert found["torch", "adam"] == {"fused": None, "eager": None}
    assert list(found["jax", "adam"]) == ["jit", "eager"]
    assert found["dask", "adam"] == {"eager": None}
    text = run("engines", "--rules", "adam,mada").stdout
    assert "blocks: can too" in text
    assert "no rule is named 'nadamw'" in run("engines", "--rules", "nadamw", code=2).stderr


def test_like():
    text = run("like", "torch").stdout
    assert "torch.optim: " in text
    assert re.search(r" AdamW +│ adam +│ decay='decoupled'", text)
    assert "LBFGS has no counterpart: it calls the loss several times" in text
    text = run("like", "keras", "Adam").stdout
    assert re.search(r"epsilon +│ 1e-07 +│ eps +│", text)
    assert re.search(r"amsgrad +│ False +│ rule amsgrad", text)
    assert re.search(r"use_ema +│ False +│ the default alone: write", text)
    assert re.search(r"always +│ eps_hat=True", text)
    for framework in FRAMEWORKS:  # no name and no option is cut
        text = run("like", framework).stdout
        assert "…" not in text
        assert all(re.search(rf" {name} +│", text) for name in load(framework).rows)
        assert framework in run("like").stdout
    text = run("like", "optax", "rmsprop").stdout
    assert re.search(r"learning_rate +│ needed +│ lr ", text)
    assert re.search(r"eps_in_sqrt +│ True +│ eps_root ", text)
