"""Distillation from Python: the same run as ``python -m align_ti.training.train``, in this process."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_ti.config import FLAGS, ObjectiveConfig
from align_ti.training import train
from align_ti.training.match import input_of_teacher
from llava.errors import InputError
from llava.train.run_folder import STATE_FILE
from llava.train.setup import read_model_config

StrPath = str | Path


@dataclass(frozen=True)
class Distilled:
    """A finished distillation.

    Attributes:
        path: Folder of the student.
        steps: Number of optimizer steps.
        metrics: The last logged value of every quantity: ``loss``, the terms by name, ``eval_loss``,
            ``train_runtime``, ...
        history: All log entries, in order.
    """

    path: Path
    steps: int
    metrics: Mapping[str, float]
    history: Sequence[Mapping[str, float]]


def distill(
    *,
    teacher: StrPath,
    student: StrPath,
    data: StrPath | Sequence[StrPath],
    output_dir: StrPath,
    images: StrPath | None = None,
    objective: ObjectiveConfig | None = None,
    **flags: Any,
) -> Distilled:
    """Distil a teacher into a student.

    This does the same as the command: it resumes an interrupted run, rejects a folder with another run, and writes
    checkpoints, logs, ``run_config.json`` and the model card. For several GPUs, start the program with ``torchrun`` or
    ``deepspeed``, one process per GPU.

    Args:
        teacher: A finished LLaVA-style checkpoint: folder or hub name.
        student: A language model, which gets the teacher's vision tower and an MLP projector, or a LLaVA checkpoint.
        data: LLaVA-format JSON or JSONL, one file or several.
        output_dir: Folder of the run and of the finished student.
        images: Folder that image paths are relative to.
        objective: The losses and their settings; by default the paper's. Its ``seed`` and ``end_of_turn_ids`` are set
            by the run, from ``seed`` and the tokenizer.
        flags: Any other flag of the command by its name, ``learning_rate=2e-5``. Prompt template, image aspect ratio
            and, for a language model, vision tower and projector follow the teacher unless they are given.

    Raises:
        InputError: The settings, data or models are invalid.
        Stopped: A signal stopped the run; a checkpoint is saved, and the same call resumes from it.
    """
    objective = ObjectiveConfig() if objective is None else objective
    if objective.seed or objective.end_of_turn_ids:
        raise InputError(
            "the objective's seed and end_of_turn_ids are set by the run; leave them out, and give seed=... to distill"
        )
    settings = [flag for flag in flags if flag in FLAGS or flag == "losses"]
    if settings:
        raise InputError(
            f"{', '.join(settings)}: settings of the objective; give them in objective=ObjectiveConfig(...)"
        )
    files = [data] if isinstance(data, str | Path) else list(data)
    words = {
        "teacher_path": teacher,
        "model_name_or_path": student,
        "data_path": ",".join(str(file) for file in files),
        "image_folder": images,
        "output_dir": output_dir,
        **_as_the_teacher(str(teacher), str(student)),
        **objective.flags(),
        **flags,
    }
    arguments = train.run([word for flag, value in words.items() for word in _words(flag, value)])
    folder = Path(str(arguments.output_dir))
    state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    history = state["log_history"]
    metrics = {name: value for line in history for name, value in line.items() if name not in ("step", "epoch")}
    return Distilled(folder, state["global_step"], metrics, history)


def _as_the_teacher(teacher: str, student: str) -> dict[str, Any]:
    """Flags with which the student prepares samples as the teacher does."""
    found = input_of_teacher(teacher)
    flags: dict[str, Any] = {"version": found.template, "image_aspect_ratio": found.aspect_ratio}
    if getattr(read_model_config(student), "mm_vision_tower", None) is None:
        flags |= {"vision_tower": found.tower, "mm_projector_type": "mlp2x_gelu"}
    return flags


def _words(flag: str, value: Any) -> list[str]:
    """A flag as words of a command line; empty for None."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [f"--{flag}", json.dumps(value)]
    values = value if isinstance(value, list | tuple) else [value]
    return [f"--{flag}", *map(str, values)]
