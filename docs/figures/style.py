"""What the site's drawings share: size of a paper's column, colours, and files that come out the same every time."""

import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
COLUMN = 3.4
"""Width of a column, in inches."""

INK, FAINT, HIDDEN = "#2b2f36", "#8b929c", "#f1f2f4"
VISUAL, INSTRUCTION, RESPONSE, CANDIDATE = "#6d9bd1", "#7fbfa3", "#8a8f98", "#e8964a"
"""Colours of the kinds of tokens."""

plt.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 6.5,
        "text.color": INK,
        "mathtext.fontset": "dejavusans",
        "svg.fonttype": "path",
        "svg.hashsalt": "align-ti",
    }
)


def save(figure: Figure, name: str, description: str) -> None:
    """Write ``NAME.svg`` and ``NAME.png`` beside this file.

    Args:
        figure: The drawing.
        name: Of the files, without ending.
        description: What it was drawn from; a test compares it with what the code says today.
    """
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    figure.savefig(HERE / f"{name}.svg", metadata={"Date": None, "Description": description})
    figure.savefig(HERE / f"{name}.png", dpi=300, metadata={"Software": None, "Description": description})
    plt.close(figure)
