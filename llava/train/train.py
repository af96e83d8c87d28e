"""Stage 1 (projector) and stage 2 (instruction tuning): ``python -m llava.train.train``, LLaVA's flags."""

import logging

from transformers import PreTrainedModel, set_seed

from llava.console import setup_console
from llava.data.tokenize import load_tokenizer
from llava.errors import Stopped, run_cli
from llava.model.protocol import vision_tower_of
from llava.train.arguments import (
    DataArguments,
    ModelArguments,
    TrainingArguments,
    check_model_arguments,
)
from llava.train.parsing import parse_arguments
from llava.train.plan import parse_plan, plan, plan_asked_for
from llava.train.run_folder import begin_run
from llava.train.setup import (
    build_collator,
    build_datasets,
    load_trainable_model,
    start_devices,
)
from llava.train.trainer import LlavaTrainer

logger = logging.getLogger(__name__)


def main() -> None:
    """Train one stage and save the model, or with ``--tune_mm_mlp_adapter`` the projector, to the output folder."""
    if plan_asked_for():
        planned, model_arguments, data_arguments = parse_plan()
        print(plan(model_arguments, data_arguments, planned))
        return
    model_arguments, data_arguments, arguments = parse_arguments(ModelArguments, DataArguments, TrainingArguments)
    setup_console(arguments.process_index == 0)
    start_devices(arguments)
    check_model_arguments(model_arguments)
    groups = {"model": model_arguments, "data": data_arguments, "training": arguments}
    with begin_run(arguments, **groups) as run:
        if run.finished:
            logger.info("%s", run.finished)
            return
        set_seed(arguments.seed)
        tokenizer = load_tokenizer(model_arguments.model_name_or_path, arguments.model_max_length)
        data, held_out = build_datasets(tokenizer, model_arguments, data_arguments, arguments)
        model = load_trainable_model(model_arguments, data_arguments, arguments, tokenizer)
        for dataset in filter(None, (data, held_out)):
            dataset.attach_tower(vision_tower_of(model))
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
            run.write()
        trainer.train(resume_from_checkpoint=run.checkpoint)
        finish(trainer, model)
        leave_together(trainer)


def finish(trainer: LlavaTrainer, model: PreTrainedModel) -> None:
    """Save the finished model and, last, the trainer's state to the output folder.

    Raises:
        Stopped: A signal stopped training, so there is nothing to finish. All processes exit together: if one exits
            earlier, the launcher may kill the others while they write.
    """
    stopper = trainer.stopper
    if stopper.received:
        leave_together(trainer)
        steps = f"{trainer.state.global_step} of {trainer.state.max_steps} steps"
        raise Stopped(
            f"stopped by {stopper.name} after {steps}; a checkpoint is saved. Run the same command again to resume",
            128 + stopper.received,
        )
    model.config.use_cache = True
    trainer.save_model()
    trainer.save_state()
    if trainer.bad_samples:
        logger.warning("%d bad samples were skipped on this process; see the log for the first", trainer.bad_samples)


def leave_together(trainer: LlavaTrainer) -> None:
    """Destroy the process group once all processes are done: if one exits earlier, the others can fail.

    The model's wrapper is dropped first: it holds the group as well, which would otherwise end with the program. In two
    of some fifty runs of a test a process then never ended.
    """
    trainer.accelerator.wait_for_everyone()
    trainer.model_wrapped = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    trainer.accelerator.free_memory()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    run_cli(main)
