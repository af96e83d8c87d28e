"""The model card (``README.md``) of a finished model: base models, data, losses, scores."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from llava.eval.registry import BENCHMARKS
from llava.export.history import History, Stage, read_history
from llava.model.config import is_hub_name
from llava.model.zero import is_main_process

logger = logging.getLogger(__name__)

MARK = "<!-- written by llava.export.card; a README.md without this line is never overwritten -->"
PAPER = "arxiv:2602.09483"

HUB_DATA = {
    "blip_laion_cc_sbu_558k.json": "liuhaotian/LLaVA-Pretrain",
    "llava_v1_5_mix665k.json": "liuhaotian/LLaVA-Instruct-150K",
    "share-captioner_coco_lcs_sam_1246k_1107.json": "Lin-Chen/ShareGPT4V",
    "sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json": "Lin-Chen/ShareGPT4V",
    "MobileVLM_V2_FT_Mix2M.json": "mtgv/MobileVLM_V2_FT_Mix2M",
}
"""Well-known annotation files and their datasets on the Hub."""

METRICS = {"pope": "f1", "mme": "perception / 20"}
"""Metrics of benchmarks whose score is not an accuracy."""

SHOWN = {
    "learning_rate": "learning rate",
    "mm_projector_lr": "projector learning rate",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch size per device",
    "gradient_accumulation_steps": "gradient accumulation",
    "lr_scheduler_type": "schedule",
    "weight_decay": "weight decay",
    "model_max_length": "maximum sample length, tokens",
    "seed": "seed",
}
"""Training arguments that the card lists."""


def write_student_card(output_dir: str | Path) -> None:
    """Write the card of a finished student, on the main process only; errors never fail the run."""
    if not is_main_process():
        return
    try:
        write_card(Path(output_dir), read_history(Path(output_dir)))
    except Exception:  # training is done and saved: a missing card must not change the exit status
        logger.warning("no model card was written", exc_info=True)


def write_card(folder: Path, history: History, usage: str = "", name: str | None = None) -> Path | None:
    """Write ``README.md`` to a folder.

    Args:
        folder: Folder of the model.
        history: Training history of the model.
        usage: Markdown on how to use the model; if given, the card's library is transformers.
        name: Name of the model; by default that of the folder.

    Returns:
        The file, or None if there is a ``README.md`` that this program did not write.
    """
    path = folder / "README.md"
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        logger.warning("%s was not written by this program and is kept: no model card was written", path)
        return None
    name = name or folder.resolve().name
    data = metadata(history, name, "transformers" if usage else "align-ti")
    text = "\n\n".join(part for part in (MARK, f"# {name}", *sections(history, usage)) if part)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").save(path)
    return path


def metadata(history: History, name: str, library: str) -> ModelCardData:
    """The card's YAML header. The Hub accepts only its own names there, so local folders are left out."""
    files = [file for stage in history.stages for file in stage.data]
    base = [found for found in (history.base_model, history.vision_tower) if found and is_hub_name(found)]
    datasets = list(dict.fromkeys(HUB_DATA[file] for file in files if file in HUB_DATA))
    distilled = any(stage.kind == "distillation" for stage in history.stages)
    whole = {key: value for key, value in history.scores.items() if key in BENCHMARKS and key not in history.limits}
    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=key,
            dataset_name=BENCHMARKS[key].column,
            metric_type=METRICS.get(key, "accuracy"),
            metric_value=round(value, 2),
        )
        for key, value in whole.items()
    ]
    return ModelCardData(
        base_model=base or None,
        datasets=datasets or None,
        eval_results=results or None,
        model_name=name,
        library_name=library,
        pipeline_tag="image-text-to-text",
        tags=["llava", "multimodal", *(["distillation", "align-ti", PAPER] if distilled else [])],
    )


def sections(history: History, usage: str) -> list[str]:
    """The sections of the card's body."""
    return [_summary(history), usage, *_training(history), _scores(history), _licence()]


def _summary(history: History) -> str:
    last = history.last
    if last is None:
        return "A vision-language model in the LLaVA family; its training is not recorded with the weights."
    base, tower = _shown(history.base_model), _shown(history.vision_tower)
    text = f"A vision-language model in the LLaVA family: language model {base}, vision tower {tower}."
    if last.kind == "distillation":
        text += (
            f" Distilled from {_shown(last.get('distill', 'teacher_path'))} as in *Beyond Next-Token Alignment: "
            "Distilling Multimodal Large Language Models via Token Interactions* (arXiv 2602.09483)."
        )
    return text


def _training(history: History) -> list[str]:
    return ["## Training" if history.stages else ""] + [
        f"**{number}. {stage.kind[0].upper()}{stage.kind[1:]}**\n\n{_table(_facts(stage))}"
        for number, stage in enumerate(history.stages, 1)
    ]


def _facts(stage: Stage) -> dict[str, Any]:
    """The rows of one stage's table."""
    facts: dict[str, Any] = {"data": ", ".join(stage.data), "prompt template": stage.get("model", "version")}
    if stage.kind == "distillation":
        facts["teacher"] = _shown(stage.get("distill", "teacher_path"))
        facts["losses (Eq. 8)"] = " + ".join(f"{loss.weight} x {loss.title}" for loss in stage.losses)
        facts["divergence"] = stage.get("distill", "divergence")
        for loss in stage.losses:
            facts[loss.title] = ", ".join(f"{key} {value}" for key, value in loss.settings.items())
    for key, label in SHOWN.items():
        facts[label] = stage.get("training", key)
    facts["optimizer steps"] = stage.steps
    facts["commit of the code"] = stage.groups.get("commit")
    versions = stage.groups.get("versions")
    facts["versions"] = ", ".join(f"{key} {value}" for key, value in (versions or {}).items())
    return facts


def _scores(history: History) -> str:
    if not history.scores:
        return ""
    rows = {}
    for key, value in history.scores.items():
        heading = BENCHMARKS[key].column if key in BENCHMARKS else "mean"
        subset = f" (on about {history.limits[key]} of its questions)" if key in history.limits else ""
        rows[heading + subset] = f"{value:.1f}"
    note = "Greedy decoding. POPE: mean F1; MME: perception / 20; MMB: circular accuracy on the English dev set."
    return f"## Scores\n\n{_table(rows)}\n\n{note}"


def _licence() -> str:
    return "The licences of the base models and of the training data apply."


def _table(rows: dict[str, Any]) -> str:
    kept = {key: value for key, value in rows.items() if value not in (None, "", [])}
    lines = [f"| {key} | {str(value).replace('|', chr(92) + '|')} |" for key, value in kept.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _shown(name: object) -> str:
    """A model's name for display: a Hub name unchanged, or the last part of a local path."""
    if not name:
        return "(not recorded)"
    return f"`{name}`" if is_hub_name(str(name)) else f"`{Path(str(name)).name}`"
