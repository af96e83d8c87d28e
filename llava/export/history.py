"""What a run folder tells about how its model came about: stages, base models, data, losses, scores."""

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
"""A chain of this many stages is followed back to its base model, no further."""

SCORES = ("scores.json", "eval/scores.json")
"""Where scores of a run lie, in its folder."""


@dataclass(frozen=True)
class LossFacts:
    """One loss of a distillation: its title, its factor, and its other settings."""

    title: str
    weight: float | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One run, as its ``run_config.json`` describes it; ``groups`` is that file."""

    groups: dict[str, Any]
    steps: int | None = None

    @property
    def kind(self) -> str:
        """What was done."""
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
    """A model's stages, the first one first.

    Attributes:
        stages: The training stages whose run folders are there.
        base_model: the language model that the first of them began with (name or path).
        vision_tower: its tower (name or path).
        scores: Scores by benchmark name.
        limits: how many questions were asked, for the benchmarks that were not asked whole.
    """

    stages: list[Stage] = field(default_factory=list)
    base_model: str | None = None
    vision_tower: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)

    @property
    def last(self) -> Stage | None:
        """The stage that made the model."""
        return self.stages[-1] if self.stages else None


def read_history(folder: Path, scores: Path | None = None) -> History:
    """Follow a run back to its base model.

    Args:
        folder: a run folder; a folder of another kind has an empty history.
        scores: a ``scores.json`` or the folder of an evaluation; the run's own if absent.
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
    """A run folder's own stage, or None where there is no readable ``run_config.json``."""
    groups = _read(folder / "run_config.json")
    if not groups:
        return None
    steps = _read(folder / "trainer_state.json").get("global_step")
    return Stage(groups, steps if isinstance(steps, int) else None)


def read_scores(folder: Path, scores: Path | None = None) -> tuple[dict[str, float], dict[str, int]]:
    """Scores by benchmark, and the limits under which some were made; empty where there are none.

    Scores that say they were made with other weights than the folder's (it was trained again) are left out.

    Raises:
        InputError: ``scores`` was given and holds none.
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
        raise InputError(f"{places[0]} holds no scores; expected what llava.eval.run writes ({', '.join(BENCHMARKS)})")
    return {}, {}


def _checked(
    folder: Path, scores: dict[str, float], details: dict[str, dict[str, Any]]
) -> tuple[dict[str, float], dict[str, int]]:
    """Leave out scores of other weights than the folder's, and find the limits of the rest."""
    made_with = {key: (detail.get("settings") or {}).get("weights") for key, detail in details.items()}
    own = model_fingerprint(str(folder)) if any(made_with.values()) else None
    stale = [key for key, weights in made_with.items() if weights is not None and weights != own]
    if stale:
        logger.warning("scores of other weights than those in %s are left out: %s", folder, ", ".join(stale))
        stale.append("avg")
    kept = {key: value for key, value in scores.items() if key not in stale}
    limits = {key: details[key].get("limit") for key in kept}
    return kept, {key: limit for key, limit in limits.items() if isinstance(limit, int)}


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, or nothing: a card must not fail because of an odd file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
