"""The training history of a model, read from run folders: stages, base models, data, losses, scores."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.eval.registry import BENCHMARKS
from llava.files import model_fingerprint

logger = logging.getLogger(__name__)

LONGEST = 8
"""Maximum number of stages to follow back to a base model."""

SCORES = ("scores.json", "eval/scores.json")
"""Locations of scores in a run's folder."""


@dataclass(frozen=True)
class LossFacts:
    """One loss of a distillation: its title, its factor, and its other settings."""

    title: str
    weight: float | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One run, described by its ``run_config.json``; ``groups`` is the content of that file."""

    groups: dict[str, Any]
    steps: int | None = None

    @property
    def kind(self) -> str:
        """The kind of training."""
        if "distill" in self.groups:
            return "distillation"
        return "projector pretraining" if self.get("model", "tune_mm_mlp_adapter") else "supervised fine-tuning"

    def get(self, group: str, key: str) -> Any:
        """One value, or None."""
        found = self.groups.get(group)
        return found.get(key) if isinstance(found, dict) else None

    @property
    def losses(self) -> list[LossFacts]:
        """The losses of a distillation, as its record describes them; an older record has only their flags."""
        recorded = self.groups.get("losses")
        if isinstance(recorded, dict):
            return [LossFacts(loss["title"], loss["weight"], loss["settings"]) for loss in recorded.values()]
        flags = self.groups.get("distill") or {}
        names = [part.strip() for part in str(flags.get("losses") or "").split(",") if part.strip()]
        return [LossFacts(name.upper(), flags.get(f"{name}_weight"), self._settings(name, flags)) for name in names]

    def _settings(self, name: str, flags: dict[str, Any]) -> dict[str, Any]:
        """A loss's settings from its flags, ``NAME_SETTING``, and from what became known in the run."""
        settings = {key.removeprefix(f"{name}_"): value for key, value in flags.items() if key.startswith(f"{name}_")}
        settings.pop("weight", None)
        return settings | (self.groups.get(name) or {})

    @property
    def data(self) -> list[str]:
        """File names of the training data."""
        path = self.get("data", "data_path") or ""
        return [Path(part).name for part in str(path).split(",") if part]


@dataclass(frozen=True)
class History:
    """A model's stages, in order.

    Attributes:
        stages: Training stages whose run folders exist.
        base_model: Language model that the first of them started from (name or path).
        vision_tower: Vision tower (name or path).
        scores: Scores by benchmark name.
        limits: Number of questions, for benchmarks that were not run in full.
    """

    stages: list[Stage] = field(default_factory=list)
    base_model: str | None = None
    vision_tower: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)

    @property
    def last(self) -> Stage | None:
        """The last stage."""
        return self.stages[-1] if self.stages else None


def read_history(folder: Path, scores: Path | None = None) -> History:
    """Follow a run back to its base model.

    Args:
        folder: Run folder; other folders have an empty history.
        scores: A ``scores.json`` or an evaluation folder; by default the run's own.
    """
    stages: list[Stage] = []
    base, tower, current = None, None, folder
    while len(stages) < LONGEST:
        stage = read_stage(current)
        if stage is None:
            break
        projector = stage.get("model", "pretrain_mm_mlp_adapter")
        pretraining = read_stage(Path(projector).parent) if projector else None
        stages[:0] = [pretraining, stage] if pretraining else [stage]
        base, tower = stage.get("model", "model_name_or_path"), tower or stage.get("model", "vision_tower")
        if not base or not Path(base).is_dir():
            break
        current = Path(base)
    return History(stages, base, tower, *read_scores(folder, scores))


def read_stage(folder: Path) -> Stage | None:
    """The stage of a run folder, or None if there is no readable ``run_config.json``."""
    groups = _read(folder / "run_config.json")
    if not groups:
        return None
    steps = _read(folder / "trainer_state.json").get("global_step")
    return Stage(groups, steps if isinstance(steps, int) else None)


def read_scores(folder: Path, scores: Path | None = None) -> tuple[dict[str, float], dict[str, int]]:
    """Scores by benchmark, and the question limits of some of them; empty if there are none.

    Scores recorded for other weights than the folder's (because it was trained again) are left out.

    Raises:
        InputError: ``scores`` was given but contains no scores.
    """
    if scores is None:
        places = [folder / name for name in SCORES]
    else:
        places = [scores / "scores.json" if scores.is_dir() else scores]
    for place in places:
        found = {
            key: float(value)
            for key, value in _read(place).items()
            if key in (*BENCHMARKS, "avg") and isinstance(value, int | float)
        }
        if found:
            return _checked(folder, found, {key: _read(place.parent / f"{key}.json") for key in found})
    if scores is not None:
        raise InputError(f"{places[0]} has no scores; expected the output of llava.eval.run ({', '.join(BENCHMARKS)})")
    return {}, {}


def _checked(
    folder: Path, scores: dict[str, float], details: dict[str, dict[str, Any]]
) -> tuple[dict[str, float], dict[str, int]]:
    """Drop scores of other weights than the folder's, and find the question limits of the rest."""
    made_with = {key: (detail.get("settings") or {}).get("weights") for key, detail in details.items()}
    own = model_fingerprint(str(folder)) if any(made_with.values()) else None
    stale = [key for key, weights in made_with.items() if weights is not None and weights != own]
    if stale:
        logger.warning("skipped scores of other weights than those in %s: %s", folder, ", ".join(stale))
        stale.append("avg")
    kept = {key: value for key, value in scores.items() if key not in stale}
    limits = {key: details[key].get("limit") for key in kept}
    return kept, {key: limit for key, limit in limits.items() if isinstance(limit, int)}


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, or an empty one: an unreadable file must not make the card fail."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
