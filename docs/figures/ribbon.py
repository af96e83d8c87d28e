"""Draw the ribbon: what every row of TPA's passes attends to, from the masks that the code uses.

    python docs/figures/ribbon.py

One sample, two draws per step: the first draw of step 1 is the label, the draws of step 2 are equal.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from style import CANDIDATE, COLUMN, HIDDEN, INK, INSTRUCTION, RESPONSE, VISUAL, save

from align_ti.attention.ribbon.geometry import ribbon_geometry
from align_ti.attention.ribbon.sdpa import SdpaRibbon
from align_ti.candidates.algorithm1 import ribbon_sequence
from align_ti.candidates.layout import CandidateLayout, candidate_layout, supervised_tokens
from llava.constants import IGNORE_INDEX

VISUAL_TOKENS, INSTRUCTION_TOKENS, STEPS = 3, 2, 3
PROMPT = VISUAL_TOKENS + INSTRUCTION_TOKENS
LABELS = (10, 11, 12)
DRAWS = ((10, 20), (21, 21), (22, 23))
KINDS = ("visual token", "instruction", "response", "candidate")
COLOURS = (HIDDEN, VISUAL, INSTRUCTION, RESPONSE, CANDIDATE)


@dataclass(frozen=True)
class Panel:
    """One mask.

    Attributes:
        title: Above it.
        mask: Bool ``[rows, columns]``, True where the row attends to the column.
        rows, columns: Labels.
        kinds: Of the columns, 1 to 4 as in ``KINDS``.
        weights: What each row counts in Eq. 7, if it is shown.
    """

    title: str
    mask: np.ndarray
    rows: list[str]
    columns: list[str]
    kinds: np.ndarray
    weights: list[str] | None = None


def layout(merge: bool) -> tuple[CandidateLayout, torch.Tensor, torch.Tensor]:
    """The example's candidates, its attention mask ``[1, S]`` and position ids ``[1, S]``."""
    labels = torch.tensor([[IGNORE_INDEX] * PROMPT + list(LABELS)])
    attention_mask = torch.ones_like(labels, dtype=torch.bool)
    position_ids = torch.arange(labels.shape[1])[None]
    supervised = supervised_tokens(labels, attention_mask)
    return (
        candidate_layout(supervised, torch.tensor(DRAWS), attention_mask, position_ids, merge=merge),
        attention_mask,
        position_ids,
    )


def main_names() -> list[str]:
    """Labels of the main path."""
    visual = [f"$v_{{{index + 1}}}$" for index in range(VISUAL_TOKENS)]
    instruction = [f"$u_{{{index + 1}}}$" for index in range(INSTRUCTION_TOKENS)]
    return [*visual, *instruction, *(f"$y_{{{index + 1}}}$" for index in range(STEPS))]


def main_kinds() -> np.ndarray:
    """Kinds of the main path's tokens."""
    return np.repeat([1, 2, 3], [VISUAL_TOKENS, INSTRUCTION_TOKENS, STEPS])


def candidate_names(candidates: CandidateLayout) -> list[str]:
    """Labels of the candidates: step, and which of its draws (the first of equal ones)."""
    names = []
    seen: dict[tuple[int, int], int] = {}
    for limit, token in zip(candidates.limit.tolist(), candidates.token.tolist(), strict=True):
        step = limit - PROMPT
        places = [place for place, drawn in enumerate(DRAWS[step]) if drawn == token]
        nth = seen.get((step, token), 0)
        seen[step, token] = nth + 1
        names.append(f"$y_{{{step + 1}}}^{{({places[nth] + 1})}}$")
    return names


def algorithm1() -> Panel:
    """Algorithm 1's interleaved mask, as ``ribbon_sequence`` makes it."""
    candidates, attention_mask, position_ids = layout(merge=False)
    sequence = ribbon_sequence(candidates, attention_mask, position_ids)
    mask = sequence.mask[0, 0].numpy()
    names, kinds = [""] * len(mask), np.full(len(mask), 4)
    for name, kind, place in zip(main_names(), main_kinds(), sequence.main[0].tolist(), strict=True):
        names[place], kinds[place] = name, kind
    for name, place in zip(candidate_names(candidates), sequence.candidate.tolist(), strict=True):
        names[place] = name
    return Panel("(a) Algorithm 1: one pass, interleaved", mask, names, names, kinds)


def prefix(merge: bool) -> Panel:
    """The candidate pass over the shared prefix, as the ``sdpa`` backend masks it."""
    candidates, attention_mask, _ = layout(merge)
    attention = SdpaRibbon(ribbon_geometry(candidates.sample, candidates.limit, attention_mask))
    (additive,) = attention.masks
    mask = (additive == 0).numpy()
    seen = mask.shape[1] - len(candidates)
    names = candidate_names(candidates)
    weights = [{0.5: "1/2", 1.0: "1"}[weight] for weight in candidates.weight.tolist()]
    title = "(c) Shared prefix, merged draws" if merge else "(b) Shared prefix: candidates only"
    kinds = np.concatenate([main_kinds()[:seen], np.full(len(names), 4)])
    return Panel(title, mask, names, [*main_names()[:seen], *names], kinds, weights)


def panels() -> list[Panel]:
    """All three, from top to bottom."""
    return [algorithm1(), prefix(merge=False), prefix(merge=True)]


def fingerprint() -> str:
    """Tells drawings of other masks apart; it is written into the files."""
    digest = hashlib.sha256()
    for panel in panels():
        digest.update(repr((panel.mask.shape, panel.rows, panel.columns, panel.weights)).encode())
        digest.update(np.packbits(panel.mask).tobytes())
    return f"masks {digest.hexdigest()[:16]}"


def draw_panel(axes: Axes, panel: Panel) -> None:
    """One mask: a cell is coloured by the kind of token that the row attends to."""
    rows, columns = panel.mask.shape
    axes.pcolormesh(
        np.where(panel.mask, panel.kinds, 0),
        cmap=ListedColormap(COLOURS),
        vmin=-0.5,
        vmax=len(COLOURS) - 0.5,
        edgecolors="white",
        linewidth=0.8,
    )
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_aspect("equal", anchor="NW")
    axes.set_xticks(np.arange(columns) + 0.5, panel.columns)
    axes.set_yticks(np.arange(rows) + 0.5, panel.rows)
    axes.tick_params(length=0, pad=2, top=False, labeltop=True, bottom=False, labelbottom=False, colors=INK)
    axes.set_title(panel.title, loc="left", fontsize=7.5, pad=16)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for row, weight in enumerate(panel.weights or []):
        axes.text(columns + 0.3, row + 0.5, weight, va="center")
    if panel.weights:
        axes.text(columns + 0.1, -0.5, "weight", va="center", fontsize=6)


def draw() -> Figure:
    """The whole figure, at the width of a column."""
    drawn = panels()
    cell, left, top, gap = 0.192, 0.4, 0.44, 0.57
    rows = [panel.mask.shape[0] for panel in drawn]
    height = top + cell * sum(rows) + gap * (len(rows) - 1) + 0.3
    figure = plt.figure(figsize=(COLUMN, height))
    y = height - top
    for panel, count in zip(drawn, rows, strict=True):
        y -= cell * count
        width = cell * panel.mask.shape[1]
        axes = figure.add_axes((left / COLUMN, y / height, width / COLUMN, cell * count / height))
        draw_panel(axes, panel)
        y -= gap
    handles = [Patch(color=colour, label=kind) for colour, kind in zip(COLOURS[1:], KINDS, strict=True)]
    figure.legend(
        handles=handles, loc="lower center", ncols=4, frameon=False, handlelength=1, handleheight=1, columnspacing=1.2
    )
    return figure


if __name__ == "__main__":
    save(draw(), "ribbon", fingerprint())
