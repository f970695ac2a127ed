r"""Functions of two variables to race over, with their gradients in closed form.

Each takes and gives floats, or arrays of one shape of any library with the Array API's functions;
NumPy's complex numbers too, so that the gradients can be checked. The least value is 0 in all.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .._found import unknown
from .._namespace import namespace

Point = tuple[float, float]


class Problem(NamedTuple):
    """One function, and where to look at it."""

    name: str
    formula: str  # in TeX, of x and y
    value: Callable[[Any, Any], Any]
    gradient: Callable[[Any, Any], tuple[Any, Any]]
    start: Point
    box: tuple[Point, Point]  # the ends of x and of y between which it is drawn
    minimum: Point  # the nearest to the start, where there are several
    rate: float  # 1 / largest curvature there: what plain gradient descent can take


def rosenbrock(x: Any, y: Any) -> Any:
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def rosenbrock_gradient(x: Any, y: Any) -> tuple[Any, Any]:
    r = y - x * x
    return -2 * (1 - x) - 400 * x * r, 200 * r


def beale(x: Any, y: Any) -> Any:
    a, b, c = (k - x + x * y**n for n, k in BEALE)
    return a * a + b * b + c * c


def beale_gradient(x: Any, y: Any) -> tuple[Any, Any]:
    r = [(n, k - x + x * y**n) for n, k in BEALE]
    dx = [2 * e * (y**n - 1) for n, e in r]
    dy = [2 * e * n * x * y ** (n - 1) for n, e in r]
    return dx[0] + dx[1] + dx[2], dy[0] + dy[1] + dy[2]


BEALE = ((1, 1.5), (2, 2.25), (3, 2.625))


def rastrigin(x: Any, y: Any) -> Any:
    return 20 + x * x - 10 * _cos(2 * math.pi * x) + y * y - 10 * _cos(2 * math.pi * y)


def rastrigin_gradient(x: Any, y: Any) -> tuple[Any, Any]:
    dx, dy = (2 * z + 20 * math.pi * _sin(2 * math.pi * z) for z in (x, y))
    return dx, dy


def quadratic(x: Any, y: Any) -> Any:
    return (x * x + y * y) / 2 - 0.9 * x * y


def quadratic_gradient(x: Any, y: Any) -> tuple[Any, Any]:
    return x - 0.9 * y, y - 0.9 * x


def saddle(x: Any, y: Any) -> Any:
    return x * x / 2 + (y * y - 1) ** 2 / 4


def saddle_gradient(x: Any, y: Any) -> tuple[Any, Any]:
    return x, y * (y * y - 1)


def _cos(x: Any) -> Any:
    return math.cos(x) if isinstance(x, int | float) else namespace(x).cos(x)


def _sin(x: Any) -> Any:
    return math.sin(x) if isinstance(x, int | float) else namespace(x).sin(x)


PROBLEMS = {
    p.name: p
    for p in (
        # a bent valley: Rosenbrock, The Computer Journal 3, 1960, from his own start
        Problem(
            "rosenbrock", r"(1-x)^2 + 100\,(y-x^2)^2", rosenbrock, rosenbrock_gradient,
            (-1.2, 1.0), ((-1.8, 1.8), (-0.8, 2.2)), (1.0, 1.0), 1 / 1001.6,
        ),
        # steep walls around a flat floor
        Problem(
            "beale", r"\Sigma_n (k_n - x + x y^n)^2,\quad k = 1.5,\ 2.25,\ 2.625",
            beale, beale_gradient,
            (1.0, 1.5), ((-0.5, 4.2), (-1.2, 1.8)), (3.0, 0.5), 1 / 48.98,
        ),
        # a minimum in every unit square
        Problem(
            "rastrigin", r"20 + x^2 - 10\cos 2\pi x + y^2 - 10\cos 2\pi y",
            rastrigin, rastrigin_gradient,
            (1.45, -1.4), ((-2.3, 2.3), (-2.0, 2.0)), (0.0, 0.0), 1 / 396.8,
        ),
        # a valley along the diagonal, 19 times as steep across as along
        Problem(
            "quadratic", r"(x^2+y^2)/2 - 0.9\,x y", quadratic, quadratic_gradient,
            (-2.0, -0.4), ((-2.4, 1.2), (-1.8, 1.2)), (0.0, 0.0), 1 / 1.9,
        ),
        # the start is beside the ridge that leads to the saddle at (0, 0)
        Problem(
            "saddle", r"x^2/2 + (y^2-1)^2/4", saddle, saddle_gradient,
            (-1.5, 0.01), ((-1.8, 0.9), (-0.9, 1.5)), (0.0, 1.0), 1 / 2,
        ),
    )
}  # fmt: skip


def find(name: str) -> Problem:
    """The problem of that name."""
    if name not in PROBLEMS:
        raise unknown("problem", name, PROBLEMS)
    return PROBLEMS[name]
