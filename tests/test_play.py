"""The page that runs rules in a browser: its paths are NumPy's, and everything on it works."""

import json
import math
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import package

import arrayopt as ao
from arrayopt import rules
from arrayopt._describe import describe
from arrayopt._step import is_elementwise
from arrayopt.race import problems, run

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS / "_ext"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
STEPS = 30


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The page's address: the site's own, built alone."""
    for name in ("sphinx", "myst_parser", "furo", "latex2mathml"):
        package(name)
    site = tmp_path_factory.mktemp("site")
    options = ("extensions=myst_parser,mathml,play", "include_patterns=play.md", "root_doc=play")
    flags = [f"-D{option}" for option in options]
    command = [sys.executable, "-m", "sphinx", "-q", "-W", *flags, DOCS, site]
    subprocess.run(command, check=True, capture_output=True)
    return (site / "play.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    api = package("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with api.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser, built):
    """Opens the page; at the end, nothing of it may have failed."""
    failed, contexts = [], []

    def open_(address="", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("console", lambda m: failed.append(m.text) if m.type == "error" else None)
        page.goto(built + address)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not failed


def test_its_paths_are_numpys(opened):
    page = opened()
    names = page.evaluate("Object.keys(RULES)")
    left_out = set(rules.names()) - set(names)
    assert not [r for r in left_out if is_elementwise(rules.find(r))]  # the others are for matrices
    assert len(names) > len(rules.names())
    todo = [[n, p, STEPS] for n in names for p in problems.PROBLEMS]
    found = page.evaluate("todo => todo.map(([r, p, n]) => trajectory(r, p, {}, n))", todo)
    for (name, problem, _), path in zip(todo, found, strict=True):
        want = run.trajectory(name, problem, STEPS, lr=run.tuned(name, problem))
        np.testing.assert_allclose(path, want, rtol=1e-9, atol=1e-9, err_msg=f"{name} {problem}")


def test_its_numbers_are_the_schemas(opened):
    page = opened("#rule=adam&problem=beale&h.b1=0.5&steps=50")
    fields = page.eval_on_selector_all("[name^='h.']", "all => all.map(e => [e.name, e.value])")
    legal = page.evaluate("RULES.adam.hyper")
    hyper = describe("adam")["hyper"]
    hyper["weight_decay"] = {"default": 0.0, "legal": "[0, inf)"}
    want = {f"h.{k}": hyper[k]["default"] for k in legal} | {"h.b1": 0.5}
    want["h.lr"] = run.tuned("adam", "beale")
    assert {k: float(v) for k, v in fields} == want
    assert {k: v["legal"] for k, v in legal.items()} == {k: hyper[k]["legal"] for k in legal}
    told = page.inner_text(".play-told")
    x, y = run.trajectory("adam", "beale", 50, b1=0.5, lr=want["h.lr"])[-1]
    assert told.startswith(f"Step 50: x = {x:#.6g}, y = {y:#.6g}")


def test_a_number_out_of_range_is_told_and_changes_nothing(opened):
    page = opened("#rule=adam&problem=quadratic")
    page.wait_for_function("location.hash.includes('steps=200')")
    before = page.evaluate("location.hash")
    for name, wrong, told in [
        *(("h.b1", value, "b1 must be in [0, 1)") for value in ("1", "-0.1", "", "1e999")),
        *(("steps", value, "Steps must be a whole number from 1 to 5000") for value in ("0", "")),
        ("steps", "5001", "Steps must be a whole number from 1 to 5000"),
        ("steps", "2.5", "Steps must be a whole number from 1 to 5000"),
        ("x", "", "Start x must be a number"),
    ]:
        right = page.input_value(f"[name='{name}']")
        page.fill(f"[name='{name}']", wrong)
        assert page.inner_text(".play-told") == told
        page.fill("[name='h.b2']", "0.9")  # another one that is right runs nothing yet
        assert page.inner_text(".play-told") == told
        page.fill("[name='h.b2']", "0.999")
        page.fill(f"[name='{name}']", right)
        assert page.inner_text(".play-told").startswith("Step 200")
    page.wait_for_timeout(400)
    assert page.evaluate("location.hash") == before
    page.fill("[name='h.b1']", "0.25")
    page.wait_for_function("location.hash.includes('h.b1=0.25')")


def test_by_keyboard(opened):
    page = opened("#rule=lion&problem=saddle&steps=40")
    page.focus(".play-ground")
    for key, step in (("ArrowLeft", 39), ("ArrowLeft", 38), ("ArrowRight", 39)):
        page.keyboard.press(key)
        assert page.inner_text(".play-told").startswith(f"Step {step}:")
    for key, step in (("Home", 0), ("End", 40)):
        page.keyboard.press(key)
        assert page.inner_text(".play-told").startswith(f"Step {step}:")
    page.keyboard.press("Space")  # from the start to the end
    assert page.inner_text("[name=play]") == "Stop"
    page.wait_for_function("document.querySelector('[name=play]').textContent === 'Play'")
    assert page.inner_text(".play-told").startswith("Step 40:")
    page.focus("[name=rule]")
    reached = set()
    for _ in range(40):
        reached.add(
            page.evaluate("document.activeElement.name || document.activeElement.className")
        )
        page.keyboard.press("Tab")
    assert {"rule", "problem", "steps", "x", "y", "h.lr", "h.b1", "h.b2", "play-ground", "play",
            "step", "end", "keep", "clear", "defaults", "time"} <= reached  # fmt: skip


def test_another_problem_changes_the_rate_alone(opened):
    page = opened("#rule=adam&problem=beale&h.b1=0.5&h.weight_decay=0.25&h.lr=0.125")
    page.select_option("[name=problem]", "saddle")
    found = {k: float(page.input_value(f"[name='h.{k}']")) for k in ("b1", "weight_decay", "lr")}
    assert found == {"b1": 0.5, "weight_decay": 0.25, "lr": run.tuned("adam", "saddle")}
    x, y = run.trajectory("adam", "saddle", 200, b1=0.5, weight_decay=0.25, lr=found["lr"])[-1]
    assert page.inner_text(".play-told").startswith(f"Step 200: x = {x:#.6g}, y = {y:#.6g}")


def test_a_click_sets_the_start_and_paths_are_kept(opened):
    page = opened("#rule=sgd&problem=quadratic&steps=25")
    box = page.locator(".play-ground").bounding_box()
    (left, right), (low, high) = problems.find("quadratic").box
    page.locator(".play-ground").click(position={"x": box["width"] / 4, "y": box["height"] / 2})
    x, y = (float(page.input_value(f"[name={k}]")) for k in "xy")
    assert x == pytest.approx(left + (right - left) / 4, abs=0.01)
    assert y == pytest.approx((low + high) / 2, abs=0.01)
    page.click("[name=keep]")
    page.select_option("[name=rule]", "adam")
    page.click("[name=keep]")
    rows = page.eval_on_selector_all(".play-kept tbody tr", "all => all.map(r => r.innerText)")
    assert ["sgd" in rows[0], "adam" in rows[1], len(rows)] == [True, True, 2]
    for row, rule in zip(rows, ("sgd", "adam"), strict=True):
        path = page.evaluate(f"trajectory('{rule}', 'quadratic', {{}}, 25, [{x}, {y}])")
        distance = math.dist(path[-1], problems.find("quadratic").minimum)
        assert float(row.split()[-1]) == pytest.approx(distance, rel=0.01)
    page.click("[name=clear]")
    assert page.is_hidden(".play-kept")
    page.click("[name=defaults]")
    assert float(page.input_value("[name=x]")) == problems.find("quadratic").start[0]
    page.wait_for_function("location.hash.includes('rule=adam&')")
    page.reload()
    assert page.input_value("[name=rule]") == "adam"


PIXEL = """([x, y]) => {
  const c = document.querySelector('.play-ground');
  return [...c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(opened, scheme):
    page = opened("#rule=sgd&problem=quadratic&steps=1&h.lr=0", color_scheme=scheme)
    edge, middle = page.evaluate(PIXEL, [0.02, 0.02]), page.evaluate(PIXEL, [0.66, 0.6])
    assert (sum(edge[:3]) > 3 * 128) == (scheme == "light")
    assert edge != middle  # the contours
    page.fill("[name='h.lr']", "1")
    (left, right), (low, high) = problems.find("quadratic").box
    a, b = run.trajectory("sgd", "quadratic", 1, lr=1.0)
    x, y = (a + b) / 2  # on the line that was not there
    place = [(x - left) / (right - left), (high - y) / (high - low)]
    on = page.evaluate(PIXEL, place)
    page.fill("[name='h.lr']", "0")
    assert np.abs(np.subtract(on, page.evaluate(PIXEL, place))).max() > 60


def test_on_a_phone(opened):
    page = opened(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.tap("[name=keep]")
    assert page.is_visible(".play-kept")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = page.eval_on_selector_all(
        ".play button", "all => all.filter(b => b.getBoundingClientRect().height < 24).length"
    )
    assert small == 0


def test_a_run_that_leaves_all_bounds_ends(opened):
    page = opened("#rule=sgd&problem=rosenbrock&h.lr=1")
    assert page.inner_text(".play-told").endswith("The next step is not finite.")
    assert int(json.loads(page.get_attribute("[name=time]", "max"))) < 200


def test_sliders_and_addresses(opened):
    page = opened("#rule=adam&problem=beale")
    first = page.inner_text(".play-told")
    slider = page.locator("[aria-label='b1, slider']")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    moved = float(page.input_value("[name='h.b1']"))
    assert 0.85 < moved < 0.9
    assert page.inner_text(".play-told") != first
    page.evaluate("location.hash = '#rule=lion&problem=saddle&steps=7'")
    page.wait_for_function("document.querySelector('[name=rule]').value === 'lion'")
    assert page.inner_text(".play-told").startswith("Step 7:")
    for broken in ("toString", "__proto__", "constructor", "<b>"):
        page = opened(f"#rule={broken}&problem={broken}&steps={broken}&x=NaN&h.b1=7")
        assert page.input_value("[name=rule]") == "adam"
        assert page.input_value("[name='h.b1']") == "0.9"
        assert page.inner_text(".play-told").startswith("Step 200:")


def test_ends_of_ranges(opened):
    page = opened("#rule=mada&problem=beale")
    for name, about in page.evaluate("RULES.mada.hyper").items():
        for end, closed in zip((about["low"], about["high"]), about["closed"], strict=True):
            if end is not None:
                assert page.evaluate(f"legal({end}, RULES.mada.hyper.{name})") is closed


def test_the_values_are_drawn(opened):
    page = opened("#rule=sgd&problem=quadratic")
    drawn = """() => {
      const c = document.querySelector('.play-values'), d = c.getContext('2d');
      return d.getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 == 3 && v).length;
    }"""
    assert page.evaluate(drawn) > 500


def test_a_rule_that_is_new_is_written_too(browser):
    """That of docs/own_rule.md, beside NumPy."""
    in_javascript = pytest.importorskip("in_javascript")
    code = re.search(
        r"```python\n# \w+\.py\n(.*?)```", (DOCS / "own_rule.md").read_text(), re.DOTALL
    )
    module = types.ModuleType("grams")
    exec(code[1], module.__dict__)
    page = browser.new_page()
    p = np.array([1.0, -2.0])
    opt = ao.Optimizer(module, lr=0.1)
    state, where = (
        opt.init(p),
        "h = Object.fromEntries(Object.entries(r.hyper).map(([k, v]) => [k, v.default]))",
    )
    script = f"""([g, lr]) => {{
      const r = {in_javascript.rule(module)}, {where};
      h.lr = lr;
      let s = r.init([1, -2], h);
      g.forEach((one, i) => {{ s = r.step(s, one, i + 1, h); }});
      return s.slice(0, 2);
    }}"""
    grads = np.random.default_rng(0).standard_normal((5, 2))
    found = page.evaluate(script, [grads.tolist(), 0.1])
    for g in grads:
        p, state = opt.step(p, g, state)
    np.testing.assert_allclose(found, p, rtol=1e-14)
    page.close()


FUNCTIONS = {
    "%": lambda xp, a, b: a % b,
    "//": lambda xp, a, b: a // b,
    "**": lambda xp, a, b: xp.abs(a) ** b,
    "truth": lambda xp, a, b: xp.astype(a > b, xp.float64) + xp.astype(xp.isfinite(a), xp.float64),
    "clip": lambda xp, a, b: xp.clip(a, -1.0, 1.5) + xp.sign(b) * xp.square(a),
    "where": lambda xp, a, b: xp.where((a < b) & ~(a == 1.0) | (b <= -2.0), a, -b),
    "max": lambda xp, a, b: a - xp.max(xp.maximum(a, b)) + xp.mean(b) + xp.sum(a),
    "exp": lambda xp, a, b: xp.log1p(xp.abs(a)) * xp.expm1(b) + xp.tanh(a),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_the_standards(browser, name):
    javascript = pytest.importorskip("javascript")
    a = np.array([-1.0, 1.0, 1.0, 5.5, -7.25, 0.0, 3.0])
    b = np.array([3.0, -2.0, np.nan, 2.0, -2.0, 4.0, 3.0])
    a, b = (x if name == "**" else x[~np.isnan(b)] for x in (a, b))
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name](np, a, b)
    script = javascript.Script()
    named = [[script.value(f"{n}[{i}]") for i in range(len(a))] for n in "ab"]
    got = FUNCTIONS[name](javascript.XP, *(javascript.Array(script, n) for n in named))
    results = list(got.items.flat)
    body = f"([a, b]) => {{ {script.text(results)} return [{', '.join(results)}]; }}"
    page = browser.new_page()
    found = np.array(page.evaluate(body, [a.tolist(), b.tolist()]), float)
    np.testing.assert_allclose(found, want, rtol=1e-14)
    page.close()


def test_what_cannot_be_written_is_told():
    javascript = pytest.importorskip("javascript")
    x = javascript.Array(javascript.Script(), ["x"])
    with pytest.raises(javascript.Unwritable, match="it calls argsort"):
        javascript.XP.argsort(x)
    with pytest.raises(javascript.Unwritable, match="it branches"):
        bool(x > 0)
