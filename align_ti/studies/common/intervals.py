"""Means over seeds with 95% confidence intervals, and differences paired by seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean and the half-width of its 95% interval (NaN for a single value)."""

    mean: float
    half_width: float

    def text(self, digits: int = 1) -> str:
        """``mean ± half-width`` with ``digits`` decimals; only the mean if there is no interval."""
        mean = f"{self.mean:z.{digits}f}"
        return mean if np.isnan(self.half_width) else f"{mean} ± {self.half_width:.{digits}f}"


def estimate(values: Sequence[float]) -> Estimate:
    """Student's t interval of the mean of independent values."""
    if len(values) == 1:
        return Estimate(float(values[0]), float("nan"))
    return Estimate(float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)))


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """``values`` minus ``baseline``, paired by seed, so that what a seed's runs share cancels."""
    return estimate([value - other for value, other in zip(values, baseline, strict=True)])


def find_outliers(values: Sequence[float], factor: float = 20) -> list[int]:
    """Indices of values more than ``factor`` median absolute deviations from the median; none if these would be a third
    of all values or more, or if most values are equal."""
    distances = np.abs(np.asarray(values, dtype=float) - np.median(values))
    scale = stats.median_abs_deviation(values)
    far = np.flatnonzero(distances > factor * scale).tolist()
    return far if scale > 0 and 3 * len(far) < len(values) else []
