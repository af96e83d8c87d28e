"""The distillation stage: ``python -m align_ti.training.train``, LLaVA's flags and those of ``arguments.py``."""

import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedTokenizerBase, set_seed

from align_ti.attention.interface import use_align_ti_attention
from align_ti.attention.ribbon.backends import resolve_backend
from align_ti.config import ObjectiveConfig
from align_ti.irs import LayerScores, instruction_relevance_scores
from align_ti.losses.forward_kl import check_compiler
from align_ti.objective import Objective
from align_ti.training.arguments import DistillArguments
from align_ti.training.match import check_input, check_loaded_processors, input_of_run, input_of_teacher
from align_ti.training.on_policy import StudentResponses
from align_ti.training.plan_facts import planned_method
from align_ti.training.teacher import (
    check_same_tokenizer,
    check_visual_tokens,
    load_teacher,
    resolve_layer,
    share_tower,
)
from align_ti.training.trainer import AlignTITrainer
from llava.console import setup_console
from llava.conversation import get_template
from llava.data.collator import ConversationCollator
from llava.data.dataset import ConversationDataset
from llava.data.tokenize import load_tokenizer
from llava.errors import InputError, run_cli
from llava.export.card import write_student_card
from llava.files import model_fingerprint, write_text
from llava.inference.end_of_turn import EndOfTurn
from llava.model.fused_layers import fuse_layers
from llava.model.protocol import VisionLanguageModel, vision_tower_of
from llava.model.zero import is_partitioned
from llava.train.arguments import (
    DataArguments,
    ModelArguments,
    TrainingArguments,
    check_model_arguments,
)
from llava.train.parsing import parse_arguments
from llava.train.plan import parse_plan, plan, plan_asked_for
from llava.train.run_folder import RunStart, begin_run, of_the_main_process
from llava.train.setup import (
    build_collator,
    build_datasets,
    compute_dtype,
    load_trainable_model,
    start_devices,
)
from llava.train.train import finish, leave_together

logger = logging.getLogger(__name__)

IRS_FILE = "irs.json"

FREE_TO_CHANGE = (
    *("ribbon", "ribbon_backend", "merge_draws", "packing", "compile_losses", "teacher_zero3"),
    "allow_teacher_mismatch",
)
"""Settings that a resumed run may change in addition to those of ``llava.train.run_record``: losses stay the same."""


def main() -> None:
    """Distil a teacher into a student; all input is checked before the first step."""
    if plan_asked_for():
        planned, model_arguments, data_arguments, distill = parse_plan(DistillArguments)
        print(plan(model_arguments, data_arguments, planned, planned_method(distill, planned)))
        return
    run(sys.argv[1:])


def run(argv: Sequence[str]) -> TrainingArguments:
    """Train with the flags of a command line, in this process (and in the others started with it).

    Args:
        argv: The flags.

    Returns:
        The training arguments; the student is in ``output_dir``.

    Raises:
        InputError: The flags, data or models are invalid.
        Stopped: A signal stopped the run; a checkpoint is saved.
    """
    distill, model_arguments, data_arguments, arguments = parse_arguments(
        DistillArguments, ModelArguments, DataArguments, TrainingArguments, argv=argv
    )
    setup_console(arguments.process_index == 0)
    start_devices(arguments)
    check_model_arguments(model_arguments)
    if distill.teacher_zero3 and not arguments.deepspeed:
        raise InputError("--teacher_zero3 splits the teacher with DeepSpeed: give --deepspeed CONFIG as well")
    resolve_backend(distill.objective.ribbon.backend, compute_dtype(arguments))
    if distill.objective.compile_losses:
        check_compiler(arguments.device)
    groups = {"distill": distill, "model": model_arguments, "data": data_arguments, "training": arguments}
    with begin_run(arguments, also_free=FREE_TO_CHANGE, **groups) as start:
        if start.finished:
            logger.info("%s", start.finished)
        else:
            distil(start, distill, model_arguments, data_arguments, arguments)
    return arguments


def distil(
    run: RunStart,
    distill: DistillArguments,
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: TrainingArguments,
) -> None:
    """Load data and models, and train; checks that need no weights come first."""
    tokenizer = load_tokenizer(model_arguments.model_name_or_path, arguments.model_max_length)
    inputs = input_of_run(model_arguments, data_arguments), input_of_teacher(distill.teacher_path)
    check_input(*inputs, distill.teacher_path, distill.allow_teacher_mismatch)
    data, held_out = build_datasets(tokenizer, model_arguments, data_arguments, arguments)
    teacher_tokenizer, teacher = load_teacher(
        distill.teacher_path, compute_dtype(arguments), arguments.device, distill.teacher_zero3
    )
    if arguments.fuse_layers:
        fuse_layers(teacher, arguments.device)
    check_same_tokenizer(tokenizer, teacher_tokenizer, model_arguments.model_name_or_path, distill.teacher_path)
    needed = distill.objective.attention
    if needed is not None and needed.of == "teacher":  # an invalid number is rejected before the student is loaded
        resolve_layer(needed.layer, teacher.config.num_hidden_layers)
    set_seed(arguments.seed)  # after the teacher: a new projector must not depend on how that was loaded
    student = load_trainable_model(model_arguments, data_arguments, arguments, tokenizer)
    check_loaded_processors(student, teacher, *inputs, distill.teacher_path, distill.allow_teacher_mismatch)
    check_visual_tokens(student, teacher)
    shared = share_tower(student, teacher)
    for model in (student, teacher):
        use_align_ti_attention(model)
    for dataset in filter(None, (data, held_out)):
        dataset.attach_tower(vision_tower_of(student))
    collator = build_collator(tokenizer)
    layer = None
    if needed is not None:
        looking = student if needed.of == "student" else teacher
        layer = resolve_layer(needed.layer, looking.config.num_hidden_layers, needed.of)
        if layer is None:
            start = model_arguments.model_name_or_path if needed.of == "student" else distill.teacher_path
            layer = choose_iva_layer(looking, start, data, collator, distill, arguments)
    config = build_config(distill, layer, tokenizer, model_arguments.version, arguments.seed)
    dtype = compute_dtype(arguments)
    config = config.replace(packing=config.packs(dtype))
    trainer = AlignTITrainer(
        model=student,
        args=arguments,
        train_dataset=data,
        eval_dataset=held_out,
        data_collator=collator,
        processing_class=tokenizer,
        objective=Objective(teacher, config, shared),
        responses=student_responses(distill, student, teacher, tokenizer, model_arguments.version, arguments),
        projector_only=model_arguments.tune_mm_mlp_adapter,
        skip_bad_samples=data_arguments.on_bad_sample == "skip",
    )
    if trainer.is_world_process_zero():
        backend = resolve_backend(config.ribbon.backend, dtype)
        resolved = {"packing": config.packing, "ribbon_backend": backend}
        run.write(iva={"layer": layer}, resolved=resolved, losses=config.record())
    trainer.train(resume_from_checkpoint=run.checkpoint)
    student.set_attn_implementation(model_arguments.attn_implementation)
    finish(trainer, student)
    write_student_card(run.folder)
    leave_together(trainer)


def build_config(
    distill: DistillArguments, layer: int | None, tokenizer: PreTrainedTokenizerBase, template: str, seed: int
) -> ObjectiveConfig:
    """The objective's configuration from the flags, completed with layer, end-of-turn tokens and seed."""
    config = distill.objective if layer is None else distill.objective.at_layer(layer)
    return config.replace(end_of_turn_ids=end_of_turn_ids(tokenizer, template), seed=seed)


def student_responses(
    distill: DistillArguments,
    student: VisionLanguageModel,
    teacher: VisionLanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    arguments: TrainingArguments,
) -> StudentResponses | None:
    """The sampler for on-policy steps; None without ``--on_policy_fraction``."""
    if distill.on_policy_fraction == 0:
        return None
    models: tuple[Any, Any] = student, teacher
    return StudentResponses(
        distill.on_policy(arguments.seed),
        EndOfTurn.of(get_template(template), tokenizer, student),
        vocabulary=min(model.lm_head.out_features for model in models),
        max_length=arguments.model_max_length,
    )


def end_of_turn_ids(tokenizer: PreTrainedTokenizerBase, template: str) -> frozenset[int]:
    """Tokens that end a generation: the tokenizer's end token, and the template's end of turn if it is one token."""
    ids = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
    closing = tokenizer(get_template(template).end_of_turn, add_special_tokens=False)["input_ids"]
    if len(closing) == 1:
        ids.add(closing[0])
    return frozenset(ids)


def choose_iva_layer(
    model: VisionLanguageModel,
    path: str,
    data: ConversationDataset,
    collator: ConversationCollator,
    distill: DistillArguments,
    arguments: TrainingArguments,
) -> int:
    """``--iva_layer auto``: the layer of a model with the highest IRS on training samples (Eq. 3).

    The scores are written to ``irs.json`` in the run's folder, where a resumed run finds them. Every process computes
    them from the same samples, since a sharded teacher needs all processes; all use the main process's choice. The
    student's scores are computed once, before its first step.

    Args:
        model: The teacher, or the student with ``--iva_weights student``.
        path: Checkpoint it was loaded from.

    Raises:
        InputError: The model is a sharded student (ZeRO-3), which cannot run before training starts.
    """
    needed = distill.objective.attention
    assert needed is not None
    whose = needed.of
    file = Path(str(arguments.output_dir)) / IRS_FILE
    known_by = [model_fingerprint(path), len(data), distill.irs_inputs, distill.irs_pairs, arguments.seed]
    key = hashlib.sha256(json.dumps(known_by).encode()).hexdigest()[:16]
    marker = file.with_suffix(".key")
    scores = None
    if arguments.process_index == 0 and marker.exists() and marker.read_text() == key and file.exists():
        scores = LayerScores.load(file)
    scores = of_the_main_process(scores, arguments)
    if scores is None:
        if whose == "student" and is_partitioned(model.parameters()):
            raise InputError(
                "--iva_layer auto scores the student's layers before training, which a student in pieces (ZeRO-3) "
                f"cannot do; give a layer number, 0 to {model.config.num_hidden_layers - 1}, or train with ZeRO-2"
            )
        if whose == "student":  # the trainer would move it later
            assert isinstance(model, torch.nn.Module)
            model.to(arguments.device)
        training = model.training
        scores = instruction_relevance_scores(
            model.eval(),
            irs_batches(data, collator, distill.irs_inputs, arguments),
            pairs=distill.irs_pairs,
            max_inputs=distill.irs_inputs,
            seed=arguments.seed,
            progress=arguments.process_index == 0 and not arguments.disable_tqdm,
        )
        model.train(training)
        if arguments.process_index == 0:
            file.parent.mkdir(parents=True, exist_ok=True)
            scores.save(file)
            write_text(marker, key)
        scores = of_the_main_process(scores, arguments)
    logger.info("IRS by layer: %s", ", ".join(f"{layer}: {score:.3f}" for layer, score in enumerate(scores.scores)))
    logger.info("IVA takes its weights from layer %d of the %s", scores.layer, whose)
    return scores.layer


def irs_batches(
    data: ConversationDataset, collator: ConversationCollator, inputs: int, arguments: TrainingArguments
) -> Iterator[Any]:
    """Batches of random training samples, with enough of them for ``inputs`` suitable ones."""
    generator = torch.Generator().manual_seed(arguments.seed)
    order = torch.randperm(len(data), generator=generator)[: 4 * inputs].tolist()
    return iter(DataLoader(Subset(data, order), batch_size=16, collate_fn=collator))


if __name__ == "__main__":
    run_cli(main)
