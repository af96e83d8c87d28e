"""The layer that a model's map shows first: ``l*``, whose attention weighted IVA during distillation, if known.

A distillation run records the layer and the model it belongs to in its ``run_config.json``. The teacher's ``l*`` is
therefore known if one of its students is shown next to it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from align_ti.losses.iva import IVA_WEIGHTS
from llava.export.history import Stage, read_stage
from llava.files import model_fingerprint


@dataclass(frozen=True)
class Opening:
    """Initial position of a layer slider.

    Attributes:
        layer: Index of the layer, from 0.
        kind: ``l*`` for IVA's layer, ``depth`` for the layer at the same relative depth as the other model's ``l*``;
            empty if ``l*`` is not known.
    """

    layer: int
    kind: Literal["", "l*", "depth"] = ""

    def seen_from(self, layer: int) -> str:
        """The slider's note about ``l*`` when it is at a given layer; empty if ``l*`` is not known."""
        if not self.kind:
            return ""
        if layer == self.layer:
            return "l*: IVA's layer" if self.kind == "l*" else "same depth as l*"
        return f"l* is {self.layer}" if self.kind == "l*" else f"same depth as l*: {self.layer}"


@dataclass(frozen=True)
class IvaRun:
    """What a distillation run records about IVA's layer.

    Attributes:
        layer: ``l*``, from 0.
        whose: The model that the layer belongs to, ``teacher`` or ``student``.
        teacher: Path or hub name of the teacher.
        contents: Fingerprint of the teacher's weights recorded by the run; None in older runs.
        teacher_layers: Number of the teacher's layers; None if its folder no longer exists and the layer was not
            chosen by IRS.
    """

    layer: int
    whose: str
    teacher: str
    contents: str | None
    teacher_layers: int | None

    @classmethod
    def of(cls, path: str | None) -> "IvaRun | None":
        """The run that trained a checkpoint; None if there is no record, or if the run used no attention for IVA."""
        folder = Path(path or "")
        if path is None or not folder.is_dir():
            return None
        folder = folder.resolve()
        if folder.name.startswith("checkpoint-") and not (folder / "run_config.json").is_file():
            folder = folder.parent
        stage = read_stage(folder)
        layer = stage.get("iva", "layer") if stage else None
        if stage is None or not isinstance(layer, int) or isinstance(layer, bool) or layer < 0:
            return None
        whose = IVA_WEIGHTS.get(stage.get("distill", "iva_weights") or "teacher")
        teacher = stage.get("distill", "teacher_path")
        if whose is None or not isinstance(teacher, str):
            return None
        return cls(layer, whose, teacher, stage.get("contents", "teacher_path"), _teacher_layers(folder, stage, layer))

    def taught_by(self, path: str | None) -> bool:
        """Whether a checkpoint is this run's teacher: the same weights, or the same name if no weights were
        recorded."""
        if path is None:
            return False
        if self.contents is not None and self.contents.startswith("weights ") and Path(path).is_dir():
            return self.contents == f"weights {model_fingerprint(path)}"
        return Path(path).name == Path(self.teacher).name


def openings(shown: Sequence[tuple[str | None, int]]) -> list[Opening]:
    """Initial slider positions of the shown models.

    A model starts at its ``l*``. A model without one starts at the relative depth of the other model's ``l*``, or of
    the other slider. If no layer is known, all start in the middle.

    Args:
        shown: Path (or hub name) and number of layers of each model.
    """
    runs = [IvaRun.of(path) for path, _ in shown]
    found = [_of_runs(number, shown, runs) for number in range(len(shown))]
    known = [(opening.layer, layers) for opening, (_, layers) in zip(found, shown, strict=True) if opening]
    return [
        opening or Opening(equal_depth(*known[0], layers) if known else layers // 2)
        for opening, (_, layers) in zip(found, shown, strict=True)
    ]


def equal_depth(layer: int, layers: int, other: int) -> int:
    """The layer of a model with ``other`` layers at the same relative depth as ``layer`` of ``layers``; the first maps
    to the first and the last to the last."""
    return round(layer * (other - 1) / (layers - 1)) if layers > 1 else other // 2


def _of_runs(number: int, shown: Sequence[tuple[str | None, int]], runs: Sequence[IvaRun | None]) -> Opening | None:
    """Initial position of one model according to the runs of the shown models."""
    path, layers = shown[number]
    own = runs[number]
    if own is not None and own.whose == "student" and own.layer < layers:
        return Opening(own.layer, "l*")
    taught = [
        (run, student)
        for index, (run, (_, student)) in enumerate(zip(runs, shown, strict=True))
        if index != number and run is not None and run.taught_by(path)
    ]
    for run, student in taught:
        if run.whose == "teacher" and run.layer < layers:
            return Opening(run.layer, "l*")
        if run.whose == "student" and run.layer < student:
            return Opening(equal_depth(run.layer, student, layers), "depth")
    if own is not None and own.whose == "teacher":
        teachers = [of for index, (other, of) in enumerate(shown) if index != number and own.taught_by(other)]
        depth = teachers[0] if teachers else own.teacher_layers
        if depth is not None and own.layer < depth:
            return Opening(equal_depth(own.layer, depth, layers), "depth")
    return None


def _teacher_layers(folder: Path, stage: Stage, layer: int) -> int | None:
    """Number of layers of a run's teacher: from its folder, otherwise from the IRS scores that selected the layer."""
    config = _json(Path(stage.get("distill", "teacher_path")) / "config.json")
    for part in (config, config.get("text_config")):
        layers = part.get("num_hidden_layers") if isinstance(part, dict) else None
        if isinstance(layers, int):
            return layers
    scores = _json(folder / "irs.json")
    chosen = stage.get("distill", "iva_layer") == "auto" and scores.get("layer") == layer
    return len(scores["scores"]) if chosen and isinstance(scores.get("scores"), list) else None


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
