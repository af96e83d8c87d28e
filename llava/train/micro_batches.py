"""transformers' Trainer with any number of micro-batches in an item of its data loader.

``Trainer`` runs ``gradient_accumulation_steps`` items in every optimizer step. From that number it derives the steps of
an epoch, the items to skip when a run resumes, and when gradients are synchronised. With ``--max_tokens_per_batch`` the
number of micro-batches differs from step to step. So an item is a list of micro-batches, possibly an empty one, and the
number of items stays fixed.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import seed_worker

from llava.data.lengths import token_lengths
from llava.data.sampler import ShuffleSampler
from llava.data.token_budget import CollateEach, MicroBatches, TokenBudgetBatches
from llava.train.arguments import TrainingArguments


def flat(items: Iterable[Any]) -> list[Any]:
    """The micro-batches of a data loader's items, each of them a micro-batch or a list of any number."""
    return [batch for item in items for batch in (item if isinstance(item, list) else [item])]


class MicroBatchTrainer(Trainer):
    """Trainer whose data loader gives micro-batches, or with ``--max_tokens_per_batch`` lists of them."""

    args: TrainingArguments

    @property
    def pads(self) -> bool:
        """Whether the samples of a micro-batch are padded to the longest, so that padding counts as tokens."""
        return True

    def get_train_dataloader(self) -> DataLoader:
        """transformers' loader; with ``--max_tokens_per_batch`` one whose items are lists of micro-batches."""
        args = self.args
        if not args.max_tokens_per_batch:
            return super().get_train_dataloader()
        dataset: Any = self.train_dataset
        sampler = self._get_train_sampler(dataset)
        assert isinstance(sampler, ShuffleSampler) and self.data_collator is not None
        workers = args.dataloader_num_workers
        loader = DataLoader(
            MicroBatches(dataset),
            batch_sampler=TokenBudgetBatches(
                sampler,
                token_lengths(dataset),
                args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
                args.world_size,
                args.gradient_accumulation_steps,
                budget=args.max_tokens_per_batch,
                padded=self.pads,
                drop_last=args.dataloader_drop_last,
            ),
            collate_fn=CollateEach(self.data_collator),
            num_workers=workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            worker_init_fn=partial(seed_worker, num_workers=workers, rank=args.process_index),
        )
        return self.accelerator.prepare_data_loader(loader)

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of the micro-batches of an item; returns the sum of their losses.

        The gradients of several are synchronised with the last one's, if this is the last item of the step.
        """
        batches = flat([inputs])
        state = self.accelerator.gradient_state
        step_ends = state.sync_gradients
        losses = []
        for batch in batches[:-1]:
            state._set_sync_gradients(False)
            # DeepSpeed's engine is told by `sync_gradients`, as in Trainer; its own `no_sync` is not for ZeRO-2 and 3.
            deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
            with nullcontext() if deepspeed else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, batch, num_items_in_batch))
        state._set_sync_gradients(step_ends)
        if not batches:
            return torch.zeros((), device=self.args.device)
        last = super().training_step(model, batches[-1], num_items_in_batch)
        return torch.stack([*losses, last]).sum() if losses else last

    def floating_point_ops(self, inputs: Any) -> int:
        """transformers' estimate, summed over the micro-batches of an item."""
        return sum(super(MicroBatchTrainer, self).floating_point_ops(batch) for batch in flat([inputs]))

    def _track_num_input_tokens(self, inputs: Any) -> None:
        for batch in flat([inputs]):
            super()._track_num_input_tokens(batch)
