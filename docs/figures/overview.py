"""Draw the README's figure: the method on the left, the ribbon mask of its candidate pass on the right.

python docs/figures/overview.py
"""

import method
import ribbon
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from style import COLUMN, FAINT, save

HEIGHT = COLUMN * 0.97
RIBBON = 3.55
"""Width of the right half, in inches."""


def draw() -> Figure:
    """Both halves, at the width of a page."""
    width = COLUMN + RIBBON
    figure = plt.figure(figsize=(width, HEIGHT))
    left = figure.add_axes((0, 0, COLUMN / width, 1))
    method.draw_into(left)
    panel = ribbon.prefix(merge=False)
    rows, columns = panel.mask.shape
    cell = 0.2
    right = figure.add_axes(
        ((COLUMN + 0.42) / width, 0.36, cell * columns / width, cell * rows / HEIGHT),
    )
    ribbon.draw_panel(right, panel)
    right.set_title("TPA's candidate pass: the ribbon mask", loc="left", fontsize=8, weight="bold", pad=18)
    note = "Rows: $d = 2$ draws at each step of the response.\nNo token attends to a draw but the draw itself."
    figure.text((COLUMN + 0.42) / width, 0.27, note, fontsize=6.5, color=FAINT, va="center", linespacing=1.5)
    handles = [Patch(color=colour, label=kind) for colour, kind in zip(ribbon.COLOURS[1:], ribbon.KINDS, strict=True)]
    place = ((COLUMN + 0.4) / width, 0.14)
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=place, ncols=4, frameon=False, handlelength=1, handleheight=1,
        columnspacing=0.9, handletextpad=0.4, fontsize=6, borderpad=0,
    )  # fmt: skip
    return figure


if __name__ == "__main__":
    save(draw(), "overview", ribbon.fingerprint())
