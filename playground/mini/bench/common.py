"""Code shared by the benchmarks: held-out scenes, balanced choice of questions, pictures, files, a summary."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from playground.mini.layout import Scene
from playground.mini.questions.base import Asker, Question
from playground.mini.render import render
from playground.mini.scenes import make_scenes

POOL = 20_000
"""Distance between the first test scenes of two benchmarks: no two benchmarks share a scene."""


@dataclass(frozen=True)
class Setting:
    """Output folder and settings of a benchmark; ``scale`` multiplies its number of questions."""

    folder: Path
    seed: int
    scale: float
    size: int

    def number(self, full: int, least: int = 1) -> int:
        """A number of questions at this scale."""
        return max(least, round(full * self.scale))


@dataclass(frozen=True)
class Item:
    """A question about a held-out scene; ``index`` is the scene's index within its benchmark."""

    index: int
    scene: Scene
    question: Question


@dataclass
class Summary:
    """What was written. ``chance`` is the score without using the picture, in percent, by name of the score."""

    questions: int = 0
    images: int = 0
    held_out_pair: int = 0
    chance: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values."""
        return asdict(self)


def scene_pool(seed: int, benchmark: int, number: int) -> list[Scene]:
    """``number`` test scenes that only this benchmark (0 to 5) uses."""
    return list(make_scenes(seed, "test", number, start=benchmark * POOL))


def candidates(scenes: Sequence[Scene], asker: Asker, rng: random.Random) -> list[Item]:
    """The questions of one kind that the scenes allow, one per scene, in random order."""
    found = ((index, scene, asker(scene, rng)) for index, scene in enumerate(scenes))
    items = [Item(index, scene, question) for index, scene, question in found if question is not None]
    rng.shuffle(items)
    return items


def balanced(items: Sequence[Item], number: int, key: Callable[[Item], str] | None = None) -> list[Item]:
    """Choose ``number`` items so that answers (or ``key``) are equally frequent, as far as possible.

    Scenes with and without a held-out pair alternate, so that about half of the questions are about each.
    """
    of = key or (lambda item: item.question.answer)
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(of(item), []).append(item)
    queues = [_alternate(group, position % 2) for position, (_, group) in enumerate(sorted(groups.items()))]
    chosen: list[Item] = []
    depth = 0
    while len(chosen) < number and any(depth < len(queue) for queue in queues):
        # The order of the groups rotates by round, so that stopping in the middle of a round does not favour the first
        # ones.
        order = queues[depth % len(queues) :] + queues[: depth % len(queues)]
        chosen += [queue[depth] for queue in order if depth < len(queue)]
        depth += 1
    return chosen[:number]


def _alternate(items: Sequence[Item], first: int) -> list[Item]:
    """Items with and without a held-out pair, alternating (``first`` is 1 to start with a pair), then the rest."""
    pairs = [item for item in items if item.scene.held_out_pair]
    plain = [item for item in items if not item.scene.held_out_pair]
    shared = min(len(pairs), len(plain))
    mixed = [two[(first + turn) % 2] for two in zip(plain, pairs, strict=False) for turn in (0, 1)]
    return mixed + pairs[shared:] + plain[shared:]


def blind_accuracy(items: Iterable[Item]) -> float:
    """Accuracy in percent of the best answers that need no picture.

    Yes/no and either-or questions count one half; for the others, the guess is the most frequent answer for the kind of
    question (for "which animal", for each category).
    """
    expected, total = 0.0, 0
    groups: dict[str, list[str]] = {}
    for item in items:
        total += 1
        question = item.question
        if question.answer in ("Yes", "No") or len(question.wrong) == 1:
            expected += 0.5
        else:
            group = question.text if question.kind == "which_of_category" else question.kind
            groups.setdefault(group, []).append(question.answer)
    expected += sum(Counter(answers).most_common(1)[0][1] for answers in groups.values())
    return round(100 * expected / max(total, 1), 1)


def summarise(items: Sequence[Item], images: int, chance: dict[str, float]) -> Summary:
    """The summary of a list of questions."""
    return Summary(
        questions=len(items),
        images=images,
        held_out_pair=sum(item.scene.held_out_pair for item in items),
        chance=chance,
        kinds=dict(sorted(Counter(item.question.kind for item in items).items())),
    )


def save_pictures(pictures: dict[Path, Scene], size: int) -> None:
    """Draw scenes to PNG files, creating their folders."""
    for path, scene in pictures.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        render(scene, size).save(path, compress_level=1)


def write_json(path: Path, content: object) -> None:
    """Write one JSON document, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line, creating the file's folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
