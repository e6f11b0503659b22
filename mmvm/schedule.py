"""Numbers that move over the updates of a run: alpha, beta, a temperature, the learning rate."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

from mmvm.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """A number that moves from `start` to `end` in `steps` updates and then stays.

    `form="exponential"` is the released code's: start * (1e-10 / start)^(t / steps) on the way to an `end` of 0,
    that is 0.1 after a tenth of the way and 1e-3 after three tenths when it starts at 1.

    Calling it with the number of updates so far gives the value. Raises `UserError` for an unknown form, or no step.

    >>> rising = Schedule(0.0, 1.0, steps=100, form="linear")
    >>> rising(50), rising(1000)
    (0.5, 1.0)
    """

    start: float
    end: float
    steps: int
    form: Literal["exponential", "linear", "cosine"] = "exponential"

    def __post_init__(self) -> None:
        if self.form not in ("exponential", "linear", "cosine"):
            raise UserError(f"unknown schedule form {self.form!r}: use 'exponential', 'linear' or 'cosine'")
        if self.steps < 1:
            raise UserError(f"a schedule needs at least one step, got {self.steps}")

    def __call__(self, step: int) -> float:
        if (t := min(max(step / self.steps, 0.0), 1.0)) == 1.0:
            return self.end
        if self.form == "linear":
            return self.start + (self.end - self.start) * t
        if self.form == "cosine":
            return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * t))
        start, end = max(self.start, 1e-10), max(self.end, 1e-10)
        return start * (end / start) ** t


def at(value: float | Schedule, step: int) -> float:
    """A number or the present value of a schedule."""
    return value(step) if isinstance(value, Schedule) else value


def bounds_of(value: float | Schedule) -> tuple[float, ...]:
    """The values between which a number or a schedule moves, for checks."""
    return (value.start, value.end) if isinstance(value, Schedule) else (value,)


def plain(value: Any) -> Any:
    """A number of NumPy's as Python's, which a file can hold; anything else as it is."""
    return value.item() if isinstance(value, Real) and hasattr(value, "item") else value


def check_number(name: str, value: Any, positive: bool = True, whole: bool = False) -> None:
    """Raises `UserError` for what is no number, as texts and bools, or not finite and positive, or at least 0."""
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        raise UserError(f"{name} must be a {'whole ' * whole}number, got {value!r}")
    number = float(value)
    if number == math.inf or not (number > 0 or number == 0 and not positive):
        range_ = "finite" if number == math.inf else "positive" if positive else "at least 0"
        raise UserError(f"{name} must be {range_}, got {value}")
