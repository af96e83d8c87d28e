"""Stage 1 (projector) and stage 2 (instruction tuning): ``python -m llava.train.train``, LLaVA's flags."""

import logging
import sys

from transformers import PreTrainedModel, set_seed

from llava.errors import run_cli
from llava.train.arguments import (
    DataArguments,
    ModelArguments,
    TrainingArguments,
    check_model_arguments,
    parse_arguments,
)
from llava.train.plan import parse_plan, plan, plan_asked_for
from llava.train.run_folder import find_checkpoint, write_run_config
from llava.train.setup import (
    build_collator,
    build_dataset,
    load_tokenizer,
    load_trainable_model,
    setup_logging,
    start_deepspeed,
)
from llava.train.trainer import LlavaTrainer

logger = logging.getLogger(__name__)


def main() -> None:
    """Train one stage; the finished model, or with ``--tune_mm_mlp_adapter`` the projector, is in the output folder."""
    if plan_asked_for():
        planned, model_arguments, data_arguments = parse_plan()
        print(plan(model_arguments, data_arguments, planned))
        return
    model_arguments, data_arguments, arguments = parse_arguments(ModelArguments, DataArguments, TrainingArguments)
    setup_logging(arguments)
    start_deepspeed(arguments)
    check_model_arguments(model_arguments)
    set_seed(arguments.seed)
    resume = find_checkpoint(arguments.output_dir, arguments.resume)
    tokenizer = load_tokenizer(model_arguments.model_name_or_path, arguments.model_max_length)
    model = load_trainable_model(model_arguments, data_arguments, arguments, tokenizer)
    data, held_out = (
        build_dataset(path, model, tokenizer, model_arguments, data_arguments, arguments) if path else None
        for path in (data_arguments.data_path, data_arguments.eval_data_path)
    )
    trainer = LlavaTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=held_out,
        data_collator=build_collator(tokenizer),
        processing_class=tokenizer,
        projector_only=model_arguments.tune_mm_mlp_adapter,
        skip_bad_samples=data_arguments.on_bad_sample == "skip",
    )
    if trainer.is_world_process_zero():
        write_run_config(arguments.output_dir, model=model_arguments, data=data_arguments, training=arguments)
    trainer.train(resume_from_checkpoint=resume)
    finish(trainer, model)
    leave_together(trainer)


def finish(trainer: LlavaTrainer, model: PreTrainedModel) -> None:
    """Save the finished model and, last, the trainer's state into the output folder.

    After a signal nothing is finished: the process ends with the status that shells give to the signal.
    """
    if trainer.stopper.received:
        logger.warning("stopped by %s; give the same command again to go on", trainer.stopper.name)
        sys.exit(128 + trainer.stopper.received)
    model.config.use_cache = True
    trainer.save_model()
    trainer.save_state()
    if trainer.bad_samples:
        logger.warning("%d bad samples were left out on this process; see the log for the first", trainer.bad_samples)


def leave_together(trainer: LlavaTrainer) -> None:
    """End the processes' common group once all are done: one that exits earlier can break off in the middle of it."""
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    run_cli(main)
