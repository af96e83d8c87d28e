"""transformers' Trainer extended for the LLaVA stages: token-mean losses, grouping, projector checkpoints."""

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, ProgressCallback

from llava.data.sampler import ModalityLengthSampler, SetEpoch, ShuffleSampler
from llava.errors import InputError
from llava.model.checkpoint import load_projector, save_projector
from llava.model.lora import has_lora, load_lora, save_lora
from llava.model.weight_files import PROJECTOR_FILE
from llava.train.arguments import TrainingArguments
from llava.train.evaluation import BenchmarkProbe, HeldOutTerms, check_probe
from llava.train.interruptions import StopOnSignal, checkpoint_writing
from llava.train.micro_batches import MicroBatchTrainer, flat
from llava.train.progress import ProgressLines

logger = logging.getLogger(__name__)


class LlavaTrainer(MicroBatchTrainer):
    """Trainer of both LLaVA stages.

    - Losses are means over the supervised tokens of the *global* batch (all ranks, all accumulation steps): every
      micro-batch contributes its sum divided by that count, so that splitting a batch differently changes nothing.
    - Named loss terms are logged in addition to ``loss``.
    - With ``projector_only`` (stage 1) a checkpoint contains ``mm_projector.bin`` instead of the whole model, with LoRA
      the adapter and the projector; both with the optimizer, scheduler and random states needed for resuming.

    Args:
        projector_only: Whether only the projector is trained.
        skip_bad_samples: Whether a batch may have no supervised tokens because bad samples were skipped.
    """

    args: TrainingArguments
    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, projector_only: bool = False, skip_bad_samples: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True
        self.projector_only = projector_only
        self.skip_bad_samples = skip_bad_samples
        self.bad_samples = 0
        for printer in (PrinterCallback, ProgressCallback):
            self.remove_callback(printer)
        self.add_callback(ProgressLines(bar=not self.args.disable_tqdm))
        self.stopper = StopOnSignal()
        self.add_callback(self.stopper)
        self._terms: dict[str, Tensor] = {}
        self._term_steps: dict[str, set[int]] = {}
        self._held_out = HeldOutTerms()
        self.probe = None
        if self.args.eval_benchmarks:
            zero3 = self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.zero_stage == 3
            check_probe(self.args.eval_benchmarks, self.args.eval_benchmark_root, zero3)
            self.probe = BenchmarkProbe(
                self.args.eval_benchmarks,
                self.args.eval_benchmark_root,
                self.args.eval_benchmark_limit,
                self.args.per_device_eval_batch_size,
            )
        if self.args.n_gpu > 1:
            raise InputError(
                f"one process sees {self.args.n_gpu} GPUs; start one process per GPU with `deepspeed` or `torchrun` "
                "(or set CUDA_VISIBLE_DEVICES to a single one)"
            )

    # ---- data ----

    def _get_train_sampler(self, train_dataset: Any = None) -> ShuffleSampler | None:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        if dataset is None:
            return None
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        sampler = ShuffleSampler(len(dataset), seed)
        if self.args.group_by_modality_length:
            steps = self.args.world_size * self.args.gradient_accumulation_steps
            sampler = ModalityLengthSampler(
                dataset.lengths, self.args.train_batch_size, steps, seed, self.args.group_window
            )
        self.add_callback(SetEpoch(sampler))
        return sampler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list, Any]:
        """The micro-batches of one optimizer step, and the loss denominators over all of them on all ranks."""
        batches, counts = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            assert isinstance(counts, Tensor)
            self.check_counts(counts)
        return batches, counts

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | None:
        if not batch_samples:
            return None
        counts = self.global_counts(flat(batch_samples)).to(device)
        return self.accelerator.reduce(counts, reduction="sum") if self.args.world_size > 1 else counts

    def global_counts(self, batches: list[Mapping[str, Any]]) -> Tensor:
        """This rank's contribution to the loss denominators.

        Returns:
            Float tensor [1]: number of supervised tokens, not counting position 0, which nothing predicts.
        """
        return torch.stack([supervised_tokens(batch["labels"]) for batch in batches]).sum(0, keepdim=True).float()

    def check_counts(self, counts: Tensor) -> None:
        """Reject a step without supervised tokens.

        Raises:
            InputError: No token of the global batch is a target, and bad samples are not being skipped.
        """
        if counts[0] > 0:
            return
        message = f"step {self.state.global_step + 1}: no token of the batch is a target"
        if not self.skip_bad_samples:
            raise InputError(
                f"{message}. Run `python -m llava.data.check` on the data; targets are cut away if --model_max_length "
                "is too small or --version does not match the data"
            )
        logger.warning("%s; this step does not update the model", message)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """transformers' epoch; skipped when a run resumes after its last step, which would otherwise train one step
        too many."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    # ---- loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        inputs = dict(inputs)
        self.bad_samples += int(inputs.pop("skipped", 0))
        if num_items_in_batch is None:
            num_items_in_batch = self._get_num_items_in_batch([inputs], self.args.device)
        counts = num_items_in_batch.clamp(min=1)
        loss, terms, outputs = self.micro_batch_loss(model, inputs, counts)
        if model.training:
            self.record_terms(terms)
        else:
            self._held_out.add(terms, {name: self.denominator(name, counts) for name in terms})
        loss = loss * self.rank_scale
        return (loss, outputs) if return_outputs else loss

    def micro_batch_loss(
        self, model: nn.Module, inputs: dict[str, Any], counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Any]:
        """The loss of one micro-batch; subclasses override this.

        Args:
            model: The model, wrapped for training.
            inputs: A collated batch.
            counts: Denominators over the global batch, in the order of ``global_counts``, at least 1 each.

        Returns:
            The micro-batch's share of the loss, its named terms, and the outputs for evaluation.
        """
        inputs.pop("sample_index", None)  # used by losses that draw candidates; models do not take it
        outputs = model(**inputs, num_items_in_batch=counts[0])
        return outputs.loss, {"sft": outputs.loss}, outputs

    def denominator(self, term: str, counts: Tensor) -> Tensor:
        """The entry of ``counts`` that a named term is divided by."""
        return counts[0]

    @property
    def rank_scale(self) -> int:
        """Factor that undoes the mean over ranks in DDP's and DeepSpeed's gradient reduction."""
        return self.args.world_size

    def record_terms(self, terms: Mapping[str, Tensor]) -> None:
        """Add this micro-batch's share of the named losses to the next log line."""
        for name, value in terms.items():
            value = value.detach().double()
            self._terms[name] = self._terms[name] + value if name in self._terms else value
            self._term_steps.setdefault(name, set()).add(self.state.global_step)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log ``logs`` with the mean of every named loss, over the steps since the last log line that had it."""
        if "loss" in logs and self._terms:
            values = torch.stack(list(self._terms.values())).float()
            if self.args.world_size > 1:
                values = self.accelerator.reduce(values, reduction="sum")
            for name, value in zip(self._terms, values.tolist(), strict=True):
                self.check_finite(name, value)
                logs[name] = value / len(self._term_steps[name])
            self._terms, self._term_steps = {}, {}
            if self.bad_samples:
                logs["bad_samples"] = self.bad_samples
        super().log(logs, start_time)

    def check_finite(self, name: str, value: float) -> None:
        """Stop on a NaN or infinite loss.

        Raises:
            InputError: The loss is NaN or infinite; the message has the step and the term.
        """
        if not math.isfinite(value):
            raise InputError(
                f"step {self.state.global_step}: the loss term {name!r} is {value}. Lower --learning_rate, or "
                "resume from an earlier checkpoint with --resume FOLDER"
            )

    # ---- evaluation ----

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """transformers' loop; adds the loss terms on the held-out set to the metrics, and the scores with
        ``--eval_benchmarks``."""
        prefix = kwargs.get("metric_key_prefix", "eval")
        output = super().evaluation_loop(*args, **kwargs)
        metrics: dict[str, float] = {} if output.metrics is None else output.metrics
        metrics.update(self._held_out.means(self.accelerator, prefix))
        if self.probe is not None:
            model = self.accelerator.unwrap_model(self.model)
            tokenizer: Any = self.processing_class
            scores = self.probe.scores(model, tokenizer, self.args.process_index, self.args.world_size)
            metrics.update({f"{prefix}_{name}": score for name, score in scores.items()})
        return output

    # ---- optimizer ----

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer; with ``mm_projector_lr`` the projector's parameters have their own groups."""
        if self.optimizer is None and self.args.mm_projector_lr is not None:
            subject: Any = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(subject))
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in subject.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault(("mm_projector" in name, name in decayed), []).append(parameter)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, subject)
            parameter_groups = []
            for (projector, decay), parameters in groups.items():
                group = {"params": parameters, "weight_decay": self.args.weight_decay if decay else 0.0}
                if projector:
                    group["lr"] = self.args.mm_projector_lr
                parameter_groups.append(group)
            self.optimizer = optimizer_class(parameter_groups, **options)
        return super().create_optimizer(model)

    # ---- checkpoints ----

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        for name, value in self._terms.items():  # when training has diverged, keep the older, good checkpoint
            self.check_finite(name, float(value))
        with checkpoint_writing(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"):
            super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        model = self.accelerator.unwrap_model(self.model)
        folder = Path(output_dir or str(self.args.output_dir))
        if self.projector_only:
            save_projector(model, folder)
        elif has_lora(model):
            save_lora(model, folder)
        else:
            super()._save(output_dir, state_dict)
            return
        if self.args.should_save and self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        file = Path(resume_from_checkpoint) / PROJECTOR_FILE
        subject = self.model if model is None else model
        if self.projector_only and file.exists():
            load_projector(subject, file)
            return
        if has_lora(subject):
            load_lora(subject, resume_from_checkpoint)
            return
        super()._load_from_checkpoint(resume_from_checkpoint, model)


def supervised_tokens(labels: Tensor) -> Tensor:
    """Number of targets in a batch, not counting position 0, which nothing predicts.

    Args:
        labels: [B, T], -100 where a token is not a target.

    Returns:
        Integer scalar.
    """
    return (labels[:, 1:] != -100).sum()
