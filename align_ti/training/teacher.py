"""Load the frozen teacher, and check before training that it fits the student."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llava.errors import InputError
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_pretrained_model
from llava.model.language import LlavaForCausalLM
from llava.model.protocol import VisionLanguageModel, vision_tower_of
from llava.model.vision import share_vision_tower

logger = logging.getLogger(__name__)


def load_teacher(
    path: str, dtype: torch.dtype, device: torch.device, sharded: bool = False
) -> tuple[PreTrainedTokenizerBase, LlavaForCausalLM]:
    """A finished checkpoint as a frozen teacher.

    Args:
        path: Folder or hub name.
        dtype: Dtype of the weights.
        device: Device of the teacher.
        sharded: Whether the weights are sharded over the ranks and gathered when used (ZeRO-3); otherwise every rank
            has a complete copy, even if the student is sharded.

    Returns:
        Its tokenizer, and the model in eval mode with all parameters frozen.

    Raises:
        InputError: It is not a LLaVA-style checkpoint.
    """
    config = zero3_config(dtype) if sharded else None
    with deepspeed_config(config):
        tokenizer, model, image_processor, _ = load_pretrained_model(
            path, None, get_model_name_from_path(path), device_map=None, torch_dtype=dtype
        )
    if image_processor is None:
        raise InputError(f"the teacher at {path!r} has no vision tower; expected a finished LLaVA-style checkpoint")
    model.requires_grad_(False)
    if config is not None:
        import deepspeed

        return tokenizer, deepspeed.initialize(model=model.eval(), config=config)[0].module
    return tokenizer, model.eval().to(device)


def zero3_config(dtype: torch.dtype) -> dict[str, Any]:
    """DeepSpeed's settings for a frozen, sharded model: no optimizer, only gathering."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "fp16": {"enabled": dtype == torch.float16},
        "zero_optimization": {"stage": 3},
    }


@contextmanager
def deepspeed_config(config: dict[str, Any] | None) -> Iterator[None]:
    """Context in which transformers loads models with these DeepSpeed settings (None: without any).

    transformers shards every model that is loaded while ZeRO-3 settings exist; the student's must not affect the
    teacher.
    """
    from transformers.integrations import deepspeed as integration

    reference = integration._hf_deepspeed_config_weak_ref
    former = reference() if reference is not None else None
    integration.unset_hf_deepspeed_config()
    kept_alive = None if config is None else integration.HfDeepSpeedConfig(config)
    try:
        yield
    finally:
        del kept_alive
        integration.unset_hf_deepspeed_config()
        if former is not None:
            integration.set_hf_deepspeed_config(former)


def check_same_tokenizer(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, student_path: str, teacher_path: str
) -> None:
    """Check that every token id means the same to both models, since their distributions are compared entry by entry.

    Raises:
        InputError: They differ; the message names both tokenizers and the first ids that differ.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    differing = [
        (token, index, theirs.get(token))
        for token, index in sorted(ours.items(), key=lambda item: item[1])
        if theirs.get(token) != index
    ]
    missing = [token for token in theirs if token not in ours]
    if differing or missing:
        examples = ", ".join(f"{token!r} is {index} and {other}" for token, index, other in differing[:3])
        examples = examples or f"the teacher's {missing[0]!r} is unknown to the student"
        raise InputError(
            f"the tokenizers of student {student_path!r} ({len(ours)} entries) and teacher {teacher_path!r} "
            f"({len(theirs)} entries) differ in {len(differing) + len(missing)} entries ({examples}). Distillation "
            "compares distributions over the same tokens: choose a student of the teacher's family"
        )


def share_tower(student: LlavaForCausalLM, teacher: LlavaForCausalLM) -> bool:
    """Let the teacher use the student's frozen tower if its own gives the same features; it then runs once per step.

    Under ZeRO-3 every rank must call it.

    Returns:
        Whether the tower is shared.
    """
    try:
        share_vision_tower(teacher, student, ("teacher", "student"))
    except InputError as error:
        logger.info("both vision towers run in every step: %s", error)
        return False
    logger.info("teacher and student share one vision tower")
    return True


def check_visual_tokens(student: VisionLanguageModel, teacher: VisionLanguageModel) -> None:
    """Check that both models represent an image by the same number of tokens, since losses compare them by position.

    Raises:
        InputError: The numbers differ; the message has both.
    """
    ours, theirs = vision_tower_of(student).num_patches, vision_tower_of(teacher).num_patches
    if ours != theirs:
        raise InputError(
            f"an image is {theirs} visual tokens to the teacher and {ours} to the student, and the two models are "
            "compared position by position: give the student the teacher's vision tower (--vision_tower and "
            "--mm_vision_select_feature as the teacher was trained with), or choose another teacher"
        )


def resolve_layer(choice: int | str, layers: int, model: str = "teacher") -> int | None:
    """The layer number of an ``--iva_layer`` value; None for ``auto``.

    Args:
        choice: Value of the flag: a number; a depth in percent, of 28 layers ``0%``, ``75%`` and ``100%`` are 0, 21
            and 27, as in the paper's Table 7; ``auto``.
        layers: Number of layers of the model whose attention is used.
        model: Its role, ``teacher`` or ``student``.

    Raises:
        InputError: The model has no such layer.
    """
    if choice == "auto":
        return None
    if isinstance(choice, str) and choice.endswith("%"):
        return min(layers - 1, layers * int(choice[:-1]) // 100)
    layer = int(choice)
    if layer >= layers:
        raise InputError(f"--iva_layer {layer} is out of range: the {model} has {layers} layers, 0 to {layers - 1}")
    return layer
