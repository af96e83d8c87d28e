"""Pretrain a small SigLIP on the miniature's pictures and labels with the sigmoid loss (Zhai et al., 2023)."""

import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    Trainer,
    TrainingArguments,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

logger = logging.getLogger(__name__)

TEXT_LENGTH = 12
"""Tokens a label is padded or cut to."""


class LabelledPictures(Dataset):
    """Pictures with the set of labels that are true of each.

    Args:
        records: ``(file, labels)`` pairs.
        processor: turns a picture into pixel values.
    """

    def __init__(self, records: Sequence[tuple[Path, Sequence[str]]], processor: SiglipImageProcessorPil) -> None:
        self.records = records
        self.processor = processor

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file, labels = self.records[index]
        with Image.open(file) as image:
            pixels = self.processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": labels}


class LabelCollator:
    """A batch of pictures against the names of things, their own other labels, and some labels of nobody.

    Args:
        texts: every label there is.
        always: labels that are in every batch.
        tokenizer: makes the label's ids, [T, 12].
        extra: number of labels drawn besides.
    """

    def __init__(
        self, texts: Sequence[str], always: Sequence[str], tokenizer: PreTrainedTokenizerFast, extra: int = 160
    ) -> None:
        self.always = list(always)
        self.others = sorted(set(texts) - set(always))
        self.extra = extra
        everything = [*self.always, *self.others]
        ids = tokenizer(
            everything, padding="max_length", truncation=True, max_length=TEXT_LENGTH, return_tensors="pt"
        )["input_ids"]
        self.ids = dict(zip(everything, ids, strict=True))

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        own = {label for item in items for label in item["labels"]}
        drawn = random.sample(self.others, min(self.extra, len(self.others)))
        texts = list(dict.fromkeys([*self.always, *sorted(own), *drawn]))
        column = {text: index for index, text in enumerate(texts)}
        targets = torch.full((len(items), len(texts)), -1.0)
        for row, item in enumerate(items):
            targets[row, [column[label] for label in item["labels"]]] = 1.0
        return {
            "pixel_values": torch.stack([item["pixel_values"] for item in items]),
            "input_ids": torch.stack([self.ids[text] for text in texts]), "targets": targets,
        }


class SigmoidTrainer(Trainer):
    """Trainer with the pairwise sigmoid loss; a picture may have several true labels."""

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Any:
        outputs = model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"])
        loss = -F.logsigmoid(inputs["targets"] * outputs.logits_per_image).sum(-1).mean()
        return (loss, outputs) if return_outputs else loss


def pretrain_tower(
    records: Sequence[tuple[Path, Sequence[str]]], names: Sequence[str], tokenizer: PreTrainedTokenizerFast, folder: Path, *,
    image_size: int, hidden_size: int = 128, layers: int = 4, epochs: float = 1.0, batch_size: int = 64,
    learning_rate: float = 2e-3, held_out: int = 500, seed: int = 0,
) -> dict[str, float]:
    """Train and save a SigLIP model (both towers, the image processor and the tokenizer).

    Args:
        records: ``(file, labels)`` pairs; the last ``held_out`` are kept for the recall.
        names: labels that name things; the recall is over these.
        tokenizer: of the text tower.
        folder: where the model goes.
        image_size: side of the pictures in pixels; patches are 16 x 16.
        hidden_size, layers: of the vision tower (the text tower has one layer).
        epochs, batch_size, learning_rate, seed: of training.

    Returns:
        ``parameters`` of the vision tower, ``recall``: share of a held-out picture's n things among the n best-scored
        names, and the last training ``loss``.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    sizes = {"hidden_size": hidden_size, "intermediate_size": 4 * hidden_size, "num_attention_heads": hidden_size // 32}
    config = SiglipConfig(
        text_config={
            **sizes, "num_hidden_layers": 1, "vocab_size": len(tokenizer), "max_position_embeddings": TEXT_LENGTH,
            "projection_size": hidden_size, "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**sizes, "num_hidden_layers": layers, "image_size": image_size, "patch_size": 16},
    )
    model = SiglipModel(config)
    model.logit_scale.data.fill_(2.3)
    model.logit_bias.data.fill_(-6.0)
    processor = SiglipImageProcessorPil(size={"height": image_size, "width": image_size})
    training = LabelledPictures(records[:-held_out], processor)
    collator = LabelCollator([label for _, labels in records for label in labels], names, tokenizer)
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=batch_size, num_train_epochs=epochs, seed=seed,
        learning_rate=learning_rate, lr_scheduler_type="cosine", warmup_steps=0.05, logging_steps=50, weight_decay=0.01,
        save_strategy="no", report_to="none", use_cpu=not torch.cuda.is_available(), remove_unused_columns=False,
        dataloader_num_workers=1,
    )
    trainer = SigmoidTrainer(model=model, args=arguments, train_dataset=training, data_collator=collator)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    figures = {
        "parameters": float(sum(parameter.numel() for parameter in model.vision_model.parameters())),
        "recall": label_recall(model, LabelledPictures(records[-held_out:], processor), names, collator.ids),
        "loss": losses[-1] if losses else float("nan"),
    }
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


@torch.no_grad()
def label_recall(
    model: SiglipModel, pictures: LabelledPictures, names: Sequence[str], ids: dict[str, Tensor]
) -> float:
    """Share of the n things in a picture that are among the n names scored highest, averaged over things."""
    model.eval()
    name_ids = torch.stack([ids[name] for name in names]).to(model.device)
    found = total = 0
    for start in range(0, len(pictures), 100):
        items = [pictures[index] for index in range(start, min(start + 100, len(pictures)))]
        pixels = torch.stack([item["pixel_values"] for item in items]).to(model.device)
        logits = model(input_ids=name_ids, pixel_values=pixels).logits_per_image
        for row, item in zip(logits, items, strict=True):
            true = {name for name in item["labels"] if name in set(names)}
            best = {names[index] for index in row.topk(len(true)).indices.tolist()}
            found += len(true & best)
            total += len(true)
    return found / max(total, 1)
