"""Draw the method: teacher and student, and what each of the four losses compares.

python docs/figures/method.py
"""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from style import CANDIDATE, COLUMN, FAINT, INK, INSTRUCTION, RESPONSE, VISUAL, save

DESCRIPTION = "the method of Align-TI"
MAP = np.array([[0.05, 0.62, 0.24, 0.03], [0.10, 0.50, 0.30, 0.04]])
"""An example of l*'s attention from two instruction tokens to four visual tokens."""
WEIGHTS = MAP.mean(0)
SIDE = 0.4
"""Side of a token's square."""
VISUAL_X = (0.95, 1.48, 2.01, 2.54)
INSTRUCTION_X = (3.42, 3.95)
RESPONSE_X = (4.83, 5.36, 5.89)
CANDIDATE_X = (7.7, 8.23, 8.76)
TOKENS = (
    *((x, VISUAL, f"$v_{index + 1}$") for index, x in enumerate(VISUAL_X)),
    *((x, INSTRUCTION, f"$u_{index + 1}$") for index, x in enumerate(INSTRUCTION_X)),
    *((x, RESPONSE, f"$y_{index + 1}$") for index, x in enumerate(RESPONSE_X)),
    *((x, CANDIDATE, f"$y_{index + 1}^{{(u)}}$") for index, x in enumerate(CANDIDATE_X)),
)
TEACHER, STUDENT = 8.0, 1.75
"""Middle of the models' boxes."""
TEACHER_OUT, STUDENT_OUT = 6.75, 2.9
"""Middle of their outputs."""
IVA = 4.4
"""Middle of IVA's box."""


def box(axes: Axes, centre: tuple[float, float], size: tuple[float, float], text: str, face: str, **options) -> None:
    """A rounded box with text in its middle."""
    (x, y), (width, height) = centre, size
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=face,
            edgecolor=options.pop("edge", "none"),
            linewidth=0.8,
            zorder=3,
        )
    )
    axes.text(x, y, text, ha="center", va="center", zorder=4, **options)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], style: str = "-|>", **options) -> None:
    """An arrow between two points."""
    options = {"color": FAINT, "linewidth": 0.8, "zorder": 2, **options}
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=5, shrinkA=0, shrinkB=0, **options))


def squares(axes: Axes, y: float) -> None:
    """A model's outputs, one a token; of the candidates there are several at each step."""
    for x, colour, _ in TOKENS:
        for depth in (2, 1, 0) if colour == CANDIDATE else (0,):
            corner = (x - SIDE / 2 + 0.06 * depth, y - SIDE / 2 + 0.06 * depth)
            edge = "white" if colour == CANDIDATE else "none"
            axes.add_patch(Rectangle(corner, SIDE, SIDE, facecolor=colour, edgecolor=edge, linewidth=0.4, zorder=3))


def tokens(axes: Axes, y: float) -> None:
    """The inputs."""
    for x, _, name in TOKENS:
        axes.text(x, y, name, ha="center", va="center")


def captions(axes: Axes, y: float) -> None:
    """What the inputs are."""
    for xs, words in (
        (VISUAL_X, "image"),
        (INSTRUCTION_X, "instruction"),
        (RESPONSE_X, "response"),
        (CANDIDATE_X, "$d$ draws from $P_S$"),
    ):
        axes.text((xs[0] + xs[-1]) / 2, y, words, ha="center", va="center", fontsize=6, color=FAINT)


def models(axes: Axes) -> None:
    """Both models between their inputs and outputs, the teacher upside down."""
    middle, width = (VISUAL_X[0] + CANDIDATE_X[-1]) / 2, CANDIDATE_X[-1] - VISUAL_X[0] + 0.9
    tokens(axes, TEACHER + 1.15)
    tokens(axes, STUDENT - 0.95)
    captions(axes, STUDENT - 1.42)
    box(axes, (middle, TEACHER), (width, 1.5), "", "#eef1f6", edge="#c9d1de")
    box(axes, (middle, STUDENT), (width, 1.1), "", "#eef1f6", edge="#c9d1de")
    axes.text(middle, TEACHER + 0.38, "Teacher (frozen)", ha="center", va="center", fontsize=8, weight="bold")
    axes.text(middle, STUDENT, "Student", ha="center", va="center", fontsize=8, weight="bold")
    layer = TEACHER - 0.28
    axes.add_patch(
        Rectangle((middle - width / 2 + 0.2, layer - 0.2), width - 0.4, 0.4, facecolor="#d3dbea", linewidth=0, zorder=3)
    )
    axes.text(CANDIDATE_X[0] - 0.9, layer, "layer $l^*$: the highest IRS (Eq. 3)", ha="center", va="center", zorder=4)
    squares(axes, TEACHER_OUT)
    squares(axes, STUDENT_OUT)


def compare(
    axes: Axes,
    xs: tuple[float, ...],
    text: str,
    colour: str,
    y: float,
    widths: np.ndarray | None = None,
    gap: float = 0.0,
) -> None:
    """A loss between the outputs of both models at some tokens; line widths say how much each counts, and
    ``gap`` keeps them off what is above the student's outputs."""
    for x, width in zip(xs, np.full(len(xs), 0.9) if widths is None else widths, strict=True):
        ends = (x, TEACHER_OUT - SIDE / 2), (x, STUDENT_OUT + SIDE / 2 + gap)
        arrow(axes, *ends, style="<|-|>", color=colour, linewidth=float(width))
    box(axes, ((xs[0] + xs[-1]) / 2, y), (xs[-1] - xs[0] + 0.65, 0.85), text, "white", edge=colour)


def attention_map(axes: Axes) -> None:
    """The map of l*, from instruction (rows) to visual tokens (columns), and its way into IVA."""
    cell = 0.24
    middle = (INSTRUCTION_X[0] + INSTRUCTION_X[1]) / 2
    left, bottom = middle - 2 * cell, 5.3
    for row, values in enumerate(MAP):
        for column, value in enumerate(values):
            place = (left + column * cell, bottom + (1 - row) * cell)
            shade = Rectangle(place, cell, cell, facecolor=VISUAL, alpha=min(1.0, 0.12 + 1.4 * value), zorder=3)
            axes.add_patch(shade)
    axes.add_patch(Rectangle((left, bottom), 4 * cell, 2 * cell, fill=False, edgecolor=INK, linewidth=0.6, zorder=4))
    arrow(axes, (middle, TEACHER - 0.48), (middle, bottom + 2 * cell + 0.03), color=INK)
    axes.text(middle, bottom - 0.27, "$A^{(l^*)}(u, k)$", ha="center", va="center")
    elbow = "angle,angleA=90,angleB=0,rad=0"
    arrow(axes, (middle, bottom - 0.5), (VISUAL_X[-1] + 0.36, IVA), color=INK, connectionstyle=elbow)
    axes.text(middle + 0.1, IVA + 0.17, "$w_k$", ha="left", va="center")


def supervised(axes: Axes) -> None:
    """SFT: the student's outputs at the response against the data."""
    left, right = RESPONSE_X[0] - SIDE / 2 - 0.09, RESPONSE_X[-1] + SIDE / 2 + 0.09
    outline = Rectangle(
        (left, STUDENT_OUT - 0.3), right - left, 0.6, fill=False, edgecolor=INK, linewidth=0.7, zorder=4
    )
    axes.add_patch(outline)
    box(axes, (6.86, STUDENT_OUT), (0.82, 0.72), "SFT\ndata", "white", edge=INK)
    arrow(axes, (6.45, STUDENT_OUT), (right + 0.02, STUDENT_OUT), color=INK)


def draw() -> Figure:
    """The whole figure, at the width of a column."""
    figure = plt.figure(figsize=(COLUMN, COLUMN * 0.97))
    draw_into(figure.add_axes((0, 0, 1, 1)))
    return figure


def draw_into(axes: Axes) -> None:
    """The drawing, on axes of about that shape."""
    axes.set_xlim(0.3, 9.4)
    axes.set_ylim(0.1, 9.6)
    axes.axis("off")
    models(axes)
    compare(axes, VISUAL_X, "IVA\nEq. 4", VISUAL, IVA, 0.4 + 3.2 * WEIGHTS)
    attention_map(axes)
    compare(axes, RESPONSE_X, "KD\nEq. 2", RESPONSE, 4.85, gap=0.12)
    compare(axes, CANDIDATE_X, "TPA\nEq. 7", CANDIDATE, 4.85, gap=0.13)
    supervised(axes)


if __name__ == "__main__":
    save(draw(), "method", DESCRIPTION)
