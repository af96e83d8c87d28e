"""Results of a study as files: JSON, Markdown, and a figure as PNG and PDF."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from llava.files import write_json, write_text


def write_report(
    folder: Path, name: str, content: Mapping[str, Any], markdown: str, figure: Figure | None = None
) -> None:
    """Write ``NAME.json`` and ``NAME.md``, and with a figure ``NAME.png`` and ``NAME.pdf``.

    Args:
        folder: Output folder; created if missing.
        name: Name of the files, without extension.
        content: Content of the JSON; numbers that are not finite become ``null``.
        markdown: Content of the Markdown file.
        figure: Saved at 150 dots per inch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", _finite(content))
    write_text(folder / f"{name}.md", markdown)
    if figure is not None:
        for ending in ("png", "pdf"):
            figure.savefig(folder / f"{name}.{ending}", dpi=150)


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first column is text; the other columns are numbers, aligned right."""
    lines = [f"| {' | '.join(headings)} |", "|---|" + "---:|" * (len(headings) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def markdown_page(title: str, parts: Sequence[str], facts: Mapping[str, str]) -> str:
    """A Markdown page: title, paragraphs and tables, and the provenance as a list at the end."""
    return "\n\n".join([f"# {title}", *parts, "\n".join(f"- {name}: {value}" for name, value in facts.items())]) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
