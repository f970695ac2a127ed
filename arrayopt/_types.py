"""Types shared by every rule. A hyperparameter's type carries its legal range."""

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np

Array: TypeAlias = Any  # any array with the operators of the Array API
Namespace: TypeAlias = Any  # the module that array came from, as array_namespace() gives it
Scalar: TypeAlias = Any  # a Python number, a 0-d array, or an array that broadcasts
Off: TypeAlias = tuple[()]  # in the place of a slot that the options at hand do not need


@dataclass(frozen=True)
class Range:
    """An interval written as in mathematics: ``Range("[0, 1)")``; or the whole numbers in it."""

    text: str
    whole: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        low, high = self.text[1:-1].split(",")
        return float(low), float(high)

    def __contains__(self, value: Any) -> bool:
        """Whether a number, or every element of a NumPy array, lies inside; NaN never does."""
        low, high = self.bounds
        above = value >= low if self.text[0] == "[" else value > low
        below = value <= high if self.text[-1] == "]" else value < high
        inside = bool(np.all(above & below))
        return inside and (not self.whole or bool(np.all(np.floor(value) == value)))

    def __str__(self) -> str:
        return f"{self.text}, whole numbers" if self.whole else self.text


Rate: TypeAlias = Annotated[Scalar, Range("[0, inf)")]  # step size
Decay: TypeAlias = Annotated[Scalar, Range("[0, 1)")]  # weight of the past in a running mean
Fraction: TypeAlias = Annotated[Scalar, Range("[0, 1]")]  # a mixture of two quantities
Epsilon: TypeAlias = Annotated[Scalar, Range("[0, inf)")]  # guard of a division
Weight: TypeAlias = Annotated[Scalar, Range("[0, inf)")]  # factor of a term
Positive: TypeAlias = Annotated[Scalar, Range("(0, inf)")]
EACH_STEP = "given to each step"
Loss: TypeAlias = Annotated[Scalar, Range("(-inf, inf)"), EACH_STEP]  # at the parameters as given
Portion: TypeAlias = Annotated[Scalar, Range("(0, 1]")]  # a mixture, and what it is divided by
Real: TypeAlias = Annotated[Scalar, Range("(-inf, inf)")]
Bound: TypeAlias = Annotated[Scalar, Range("(0, inf]")]  # inf turns the clipping off
Count: TypeAlias = Annotated[Scalar, Range("[1, inf)", whole=True)]
Seed: TypeAlias = Annotated[Scalar, Range("[0, 4294967295]", whole=True)]
