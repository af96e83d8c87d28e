"""The layer at which a model's maps open: ``l*``, whose attention weighted IVA in a distillation, where it is known.

A distilled run records the layer, and of which model it is, in its ``run_config.json``. So the teacher's own ``l*`` is
known once a student that it taught is shown beside it.
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
    """Where a slider starts.

    Attributes:
        layer: Number of the layer, from 0.
        kind: ``l*`` for IVA's layer, ``depth`` for one as deep as the ``l*`` of the other model; empty if ``l*`` is not
            known.
    """

    layer: int
    kind: Literal["", "l*", "depth"] = ""

    def seen_from(self, layer: int) -> str:
        """What the slider says about ``l*`` when it stands at a layer; empty if ``l*`` is not known."""
        if not self.kind:
            return ""
        if layer == self.layer:
            return "l*: IVA's layer" if self.kind == "l*" else "same depth as l*"
        return f"l* is {self.layer}" if self.kind == "l*" else f"same depth as l*: {self.layer}"


@dataclass(frozen=True)
class IvaRun:
    """What a distilled run tells about IVA's layer.

    Attributes:
        layer: ``l*``, from 0.
        whose: The model it is a layer of, ``teacher`` or ``student``.
        teacher: Path or hub name of the teacher.
        contents: The teacher's weights as the run recorded them; None in older runs.
        teacher_layers: Layers of the teacher; None if its folder is gone and the layer was not chosen by IRS.
    """

    layer: int
    whose: str
    teacher: str
    contents: str | None
    teacher_layers: int | None

    @classmethod
    def of(cls, path: str | None) -> "IvaRun | None":
        """The run that made a checkpoint; None where no run used attention for IVA, or none is recorded."""
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
        """Whether a checkpoint is this run's teacher: the same weights, or the same name where none were recorded."""
        if path is None:
            return False
        if self.contents is not None and self.contents.startswith("weights ") and Path(path).is_dir():
            return self.contents == f"weights {model_fingerprint(path)}"
        return Path(path).name == Path(self.teacher).name


def openings(shown: Sequence[tuple[str | None, int]]) -> list[Opening]:
    """Where the sliders of the shown models start.

    A model opens at its ``l*``; without one of its own, as deep as ``l*`` lies in the model that has it, or as deep as
    the other slider; all in the middle if no layer is known.

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
    """The layer of a model with ``other`` layers that is as deep as ``layer`` of ``layers``; first to first, last to
    last."""
    return round(layer * (other - 1) / (layers - 1)) if layers > 1 else other // 2


def _of_runs(number: int, shown: Sequence[tuple[str | None, int]], runs: Sequence[IvaRun | None]) -> Opening | None:
    """Where the runs of the shown models say that one of them opens."""
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
    """Layers of a run's teacher: from its folder, else from the scores by which its layer was chosen."""
    config = _json(Path(stage.get("distill", "teacher_path")) / "config.json")
    for part in (config, config.get("text_config")):
        layers = part.get("num_hidden_layers") if isinstance(part, dict) else None
        if isinstance(layers, int):
            return layers
    scores = _json(folder / "irs.json")
    chosen = stage.get("distill", "iva_layer") == "auto" and scores.get("layer") == layer
    return len(scores["scores"]) if chosen and isinstance(scores.get("scores"), list) else None


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where none can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
