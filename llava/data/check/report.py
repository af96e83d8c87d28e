"""The checker's findings: counts by kind, first examples, length statistics."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llava.data.annotations.entry import EMPTY_TEXT, MALFORMED_CONVERSATION, MALFORMED_ENTRY, MARKER_COUNT
from llava.data.tokenize import ANSWER_CUT, IMAGE_CUT

BROKEN_JSON = "broken JSON"
NO_ENTRIES = "no entries"
MISSING_IMAGE = "missing image"
UNREADABLE_IMAGE = "unreadable image"
TOO_LONG = "longer than the limit"
UNANSWERED = "last question unanswered"
GPT_FIRST = "assistant speaks first"
DUPLICATE_ID = "duplicate id"

ERRORS = (
    BROKEN_JSON,
    NO_ENTRIES,
    MALFORMED_ENTRY,
    MALFORMED_CONVERSATION,
    EMPTY_TEXT,
    MARKER_COUNT,
    MISSING_IMAGE,
    UNREADABLE_IMAGE,
    IMAGE_CUT,
    ANSWER_CUT,
)
WARNINGS = (TOO_LONG, UNANSWERED)
NOTES = (GPT_FIRST, DUPLICATE_ID)
EXAMPLES_KEPT = 5


@dataclass(frozen=True)
class Finding:
    """One finding: its kind (one of ``ERRORS``, ``WARNINGS``, ``NOTES``), location and details."""

    kind: str
    where: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}" if self.detail else self.where


@dataclass
class Report:
    """Counts over the whole dataset; memory grows by a few bytes per entry.

    Attributes:
        entries: Number of entries read, including broken ones.
        text_only: Number of entries without an image.
        images: Number of different image files that were checked.
        words: Number of words of every usable entry.
        tokens: Number of positions of every usable entry, with its images spliced in; empty without a tokenizer.
        counts: Number of findings by kind.
        examples: The first findings of each kind.
    """

    entries: int = 0
    text_only: int = 0
    images: int = 0
    words: array = field(default_factory=lambda: array("i"))
    tokens: array = field(default_factory=lambda: array("i"))
    counts: Counter = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Count a finding; the first of each kind are kept as examples."""
        self.counts[finding.kind] += 1
        kept = self.examples.setdefault(finding.kind, [])
        if len(kept) < EXAMPLES_KEPT:
            kept.append(str(finding))

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(self.counts[kind] for kind in ERRORS)

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON value."""
        return {
            "entries": self.entries,
            "text_only": self.text_only,
            "images_checked": self.images,
            "errors": {kind: self.counts[kind] for kind in ERRORS if self.counts[kind]},
            "warnings": {kind: self.counts[kind] for kind in WARNINGS if self.counts[kind]},
            "notes": {kind: self.counts[kind] for kind in NOTES if self.counts[kind]},
            "examples": self.examples,
            "words": _statistics(self.words),
            "positions": _statistics(self.tokens),
        }

    def as_text(self) -> str:
        """The report as a table for a terminal."""
        rows = [("", "finding", "count", "first examples")]
        for severity, kinds in (("error", ERRORS), ("warning", WARNINGS), ("note", NOTES)):
            for kind in kinds:
                for number, example in enumerate(self.examples.get(kind, [])[:3]):
                    head = (severity, kind, f"{self.counts[kind]:,}") if number == 0 else ("", "", "")
                    rows.append((*head, example))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows
        ]
        if len(rows) == 1:
            lines = ["nothing found"]
        share = 100 * self.text_only / max(self.entries, 1)
        lines += ["", f"{self.entries:,} entries, {self.text_only:,} of them text only ({share:.1f}%); "
                  f"{self.images:,} different images checked"]  # fmt: skip
        for name, values in (("words", self.words), ("positions", self.tokens)):
            if values:
                line = ", ".join(f"{key} {value:,}" for key, value in _statistics(values).items())
                lines.append(f"{name} per entry: {line}")
        return "\n".join(lines)


def _statistics(values: array) -> dict[str, float]:
    if not values:
        return {}
    numbers = np.asarray(values)
    middle, p95, p99 = np.percentile(numbers, [50, 95, 99]).round().astype(int).tolist()
    return {
        "min": int(numbers.min()),
        "mean": round(float(numbers.mean()), 1),
        "median": middle,
        "p95": p95,
        "p99": p99,
        "max": int(numbers.max()),
    }
