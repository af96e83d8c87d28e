"""A table as a figure: points with their intervals, or lines over the figure's axis."""

import math
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from align_ti.studies.common.intervals import Estimate, estimate, find_outliers
from align_ti.studies.tables.catalogue import Table
from align_ti.studies.tables.rows import Line, find_baseline


def draw(table: Table, lines: Sequence[Line]) -> Figure:
    """The averages with their intervals: one point per row, or lines over the figure's axis. If held-out losses were
    measured, a second panel shows their differences to the baseline."""
    baseline = find_baseline(lines, table)
    known = {line.name: loss for line in lines if (loss := line.held_out_difference(baseline)) is not None}
    panels: list[tuple[str, Mapping[str, Estimate], int]] = [
        ("mean of the six benchmarks", {line.name: estimate(line.averages) for line in lines}, 1)
    ]
    if len(known) == len(lines):
        panels.append(("held-out loss, nats per token, minus the baseline's", known, 2))
    height = 4.0 if table.lines else 1.2 + 0.42 * len(lines)
    figure = Figure(figsize=((6 if table.lines else 7) * (0.4 + 0.6 * len(panels)), height), layout="constrained")
    cells = figure.subplots(1, len(panels), squeeze=False, sharey=not table.lines)[0]
    for axes, (label, values, digits) in zip(cells, panels, strict=True):
        if table.lines:
            _draw_lines(axes, table, values)
            axes.set(xlabel=table.axis, ylabel=textwrap.fill(label, 30))
        else:
            _draw_rows(axes, [line.label for line in lines], [values[line.name] for line in lines], digits)
            axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    figure.suptitle(table.title, fontsize="large")
    return figure


def _draw_lines(axes: Axes, table: Table, values: Mapping[str, Estimate]) -> None:
    places = list(table.lines[0][1])
    for number, (name, points) in enumerate(table.lines):
        means, widths = zip(*(_dot(values[run]) for run in points.values()), strict=True)
        aside = 0.012 * (places[-1] - places[0]) * (number - (len(table.lines) - 1) / 2)  # bars side by side
        axes.errorbar([place + aside for place in points], means, widths, marker="o", capsize=3, label=name)
    axes.set(xticks=places)
    axes.legend()


def _draw_rows(axes: Axes, labels: Sequence[str], values: Sequence[Estimate], digits: int) -> None:
    """A point with its interval for every row. Outliers that would squeeze the other rows together are drawn as arrows
    at the edge, labelled with their values to ``digits`` decimals."""
    outside = find_outliers([value.mean for value in values])
    for row, value in enumerate(values):
        if row in outside:
            continue
        mean, width = _dot(value)
        axes.errorbar(mean, row, xerr=width, fmt="o", capsize=3, color="C0")
    axes.margins(x=0.08)
    left, _ = axes.get_xlim()
    for row in outside:
        below = values[row].mean < left
        axes.annotate(
            values[row].text(digits),
            xy=(0.01 if below else 0.99, row),
            xytext=(12 if below else -12, 0),
            xycoords=blended_transform_factory(axes.transAxes, axes.transData),
            textcoords="offset points",
            ha="left" if below else "right",
            va="center",
            color="C0",
            arrowprops={"arrowstyle": "-|>", "color": "C0"},
        )
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6))


def _dot(value: Estimate) -> tuple[float, float]:
    """Mean and half-width; 0 if there is no interval."""
    return value.mean, 0.0 if math.isnan(value.half_width) else value.half_width
