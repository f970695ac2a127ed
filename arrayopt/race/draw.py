"""Pictures of a race: the ways over the contour of a problem, and the values step by step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import run
from .problems import Problem

COLORS = (  # told apart with any colour vision, and in grey: Okabe and Ito, 2008
    "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#8C6D00",
)  # fmt: skip
MOST = len(COLORS)  # rules in a picture
FRAMES = 80  # at most, of an animation
Paths = Mapping[str, NDArray[np.float64]]  # a trajectory for each label


def contour(problem: Problem, axes: Any) -> None:
    """The problem's level lines, so chosen that each has the same share of the picture inside."""
    from matplotlib.colors import BoundaryNorm

    (left, right), (low, high) = problem.box
    x, y = np.meshgrid(np.linspace(left, right, 240), np.linspace(low, high, 200))
    z = problem.value(x, y)
    levels = np.unique(np.quantile(z, np.linspace(0, 1, 19) ** 1.5))
    norm = BoundaryNorm(levels, 256)
    axes.contourf(x, y, z, levels=levels, norm=norm, cmap="Blues", alpha=0.45)
    axes.contour(x, y, z, levels=levels, colors="#5b7083", linewidths=0.4)
    axes.plot(*problem.minimum, "*", color="#111111", markersize=11, zorder=5)
    axes.set(xlim=problem.box[0], ylim=problem.box[1], xlabel="x", ylabel="y")
    axes.set_aspect("equal")


def race(paths: Paths, problem: Problem, figure: Any) -> list[Any]:
    """Every trajectory on the contour, and its values beside it; all lines are returned."""
    check_number(len(paths))
    ground, values = figure.subplots(1, 2, width_ratios=(3, 2))
    contour(problem, ground)
    ground.set_title(f"{problem.name}:  ${problem.formula}$", fontsize=9)
    lines, least = [], 1.0
    for (label, path), color in zip(paths.items(), COLORS, strict=False):
        lines += ground.plot(*path.T, ".-", color=color, markersize=3, linewidth=1.2, label=label)
        with np.errstate(all="ignore"):
            z = problem.value(*path.T)
        lines += values.plot(np.where(z > 0, z, np.nan), color=color, linewidth=1.4, label=label)
        least = min(least, np.nanmin(z))
    ground.plot(*problem.start, "o", color="white", markeredgecolor="#111111", zorder=5)
    values.set(xlabel="step", ylabel="value", yscale="log")
    values.set_ylim(max(1e-16, least / 3), 10 * problem.value(*problem.start))
    values.grid(alpha=0.3)
    values.legend(fontsize=8)
    return lines


def one(
    rule: str, problem: Problem, figure: Any, steps: int = run.STEPS, **options: Any
) -> NDArray[np.float64]:
    """One rule's trajectory alone, into an empty figure of matplotlib; returns it.

    ``options``: ``lr`` and the rule's own, as for :func:`arrayopt.race.run.trajectory`.
    """
    path = run.trajectory(rule, problem, steps, **options)
    axes = figure.subplots()
    contour(problem, axes)
    axes.plot(*path.T, ".-", color=COLORS[0], markersize=3, linewidth=1.2)
    axes.plot(*problem.start, "o", color="white", markeredgecolor="#111111", zorder=5)
    axes.set_title(f"{rule} on {problem.name}, {steps} steps", fontsize=9)
    return path


def picture(paths: Paths, problem: Problem, file: Path) -> None:
    """The race, as a .png, .pdf or .svg file."""
    figure = new_figure()
    race(paths, problem, figure)
    figure.savefig(file)


def animation(paths: Paths, problem: Problem, file: Path) -> None:
    """The race as it goes on, as an animated .gif or .webp file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure = new_figure(width=8.0, dpi=90)
    canvas = FigureCanvasAgg(figure)
    lines = race(paths, problem, figure)
    whole = [line.get_xydata() for line in lines]
    for line in lines:
        line.set_animated(True)  # all else is drawn once
    canvas.draw()
    ground = canvas.copy_from_bbox(figure.bbox)
    steps = max(map(len, paths.values())) - 1
    shown = np.unique(np.linspace(0, steps, FRAMES).astype(int))
    frames = []
    for step in shown:
        canvas.restore_region(ground)
        for line, points in zip(lines, whole, strict=True):
            line.set_data(*points[: step + 1].T)
            line.axes.draw_artist(line)
        frames.append(Image.fromarray(np.array(canvas.buffer_rgba())[..., :3]))
    if file.suffix == ".gif":  # one palette, so that only what changes is stored
        palette = frames[-1].quantize(128)
        frames = [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    times = [60] * (len(frames) - 1) + [2000]  # ms
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=times, loop=0)


def new_figure(width: float = 10.0, dpi: int = 120) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, 0.46 * width), dpi=dpi, layout="constrained")


def check_number(n: int) -> None:
    if n > MOST:
        raise ValueError(f"race: a picture holds at most {MOST} rules, got {n}")


def check_file(option: str, file: Path | None, suffixes: tuple[str, ...]) -> None:
    """Raise unless it can be written, before anything runs."""
    if file is None:
        return
    if file.suffix not in suffixes or not file.parent.is_dir():
        kinds = ", ".join(suffixes)
        raise ValueError(f"{option} needs a file in a folder that is there, {kinds}: {file}")
