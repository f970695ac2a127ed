"""Pictures made while the site is built, where one is missing or older than what it shows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import arrayopt as ao
from arrayopt import schedules
from arrayopt.race import _rates, problems, run
from arrayopt.race import draw as race

PROBLEM = "rosenbrock"
GRAY = "#808080"  # seen on a white page and on a black one
SCHEDULES = {  # what is drawn of each: the picture's caption
    "ademamix_alpha": "ademamix_alpha(5.0, 100)",
    "ademamix_beta3": "ademamix_beta3(0.999, 100)",
    "constant": "constant(0.1)",
    "cosine": "cosine(0.1, 100)",
    "cyclic": "cyclic(0.01, 0.1, 20, decay=0.7)",
    "delay": "delay(30, cosine(0.1, 70))",
    "exponential": "exponential(0.1, 0.5, steps=20, staircase=True)",
    "half_life": "half_life(0.9, 100, 0.999)",
    "interpolate": 'interpolate({0: 0.0, 20: 0.1, 70: 0.04, 100: 0.0}, "cosine")',
    "inverse_sqrt": "inverse_sqrt(0.1, 20)",
    "join": "join([linear(0.1, 40, end=0.02), cosine(0.05, 60)], [40])",
    "linear": "linear(0.1, 80)",
    "one_cycle": "one_cycle(0.1, 100)",
    "polynomial": "polynomial(0.1, 100, power=3)",
    "product": "warmup(20, 1.0) * exponential(0.1, 0.98)",
    "restart": "restart(20, cosine(0.1, 20), stretch=2)",
    "step": "step(0.1, {30: 0.5, 70: 0.2})",
    "warmup": "warmup(20, cosine(0.1, 80))",
    "wsd": "wsd(0.1, rise=15, hold=55, fall=30)",
}


def rule(name: str, folder: Path) -> str:
    """The rule's way over a problem, as reStructuredText."""
    file = folder / f"{name}.png"
    problem = problems.find(PROBLEM)
    lr = run.tuned(name, problem)

    def draw(figure: Figure) -> None:
        race.one(name, problem, figure, lr=lr)

    drawn(file, draw, (4.6, 3.8), ao.rules.find(name), _rates, problems, race, run)
    return (
        f".. figure:: {file.name}\n   :alt: The way of {name} over the contour of {PROBLEM}\n\n"
        f"   From the white point; the star is the minimum. The learning rate, {lr:g}, is the best "
        f"of a grid: ``arrayopt race --rules {name} --problem {PROBLEM}``.\n"
    )


def schedule(name: str, folder: Path) -> str:
    """The schedule's value step by step, as reStructuredText."""
    if name not in SCHEDULES:
        return ""
    file, call = folder / f"{name}.svg", SCHEDULES[name]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        t = np.arange(121)
        curve = eval(call, vars(schedules).copy())
        axes.plot(t, [curve(int(k)) for k in t], color="#2a86c8", linewidth=2)
        axes.set_xlabel("steps taken", color=GRAY)
        axes.tick_params(colors=GRAY)
        axes.spines[:].set_color(GRAY)
        axes.spines[["top", "right"]].set_visible(False)

    drawn(file, draw, (4.6, 1.7), schedules._shapes, schedules._combine)
    return f".. figure:: {file.name}\n   :alt: {name}\n\n   ``{call}``\n"


def drawn(file: Path, draw: Callable[[Figure], None], size: Any, *modules: Any) -> None:
    """Draw into the file, unless it is newer than this module and those."""
    newest = max(Path(name).stat().st_mtime for name in (__file__, *(m.__file__ for m in modules)))
    if file.exists() and file.stat().st_mtime > newest:
        return
    file.parent.mkdir(exist_ok=True)
    with rc_context({"svg.hashsalt": file.name, "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        if file.suffix == ".svg":
            figure.savefig(file, transparent=True)
        else:  # in 128 colours, a third of the size
            canvas = FigureCanvasAgg(figure)
            figure.set_dpi(110)
            canvas.draw()
            picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
            picture.quantize(128, Image.Quantize.FASTOCTREE).save(file, optimize=True)
