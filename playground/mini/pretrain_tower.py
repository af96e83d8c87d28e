"""Pretrain a small SigLIP on the miniature's pictures and labels with the sigmoid loss (Zhai et al., 2023).

The loss is computed twice: between whole pictures and labels, as published, and between the places of a picture and the
names of objects and places. The second makes patch features, which a vision-language model reads, encode which object
is there and where it is.
"""

import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import (
    PreTrainedTokenizerBase,
    SiglipConfig,
    SiglipModel,
    Trainer,
    TrainingArguments,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from llava.console import on_a_terminal
from llava.files import write_json
from playground.mini.layout import PATCHES
from playground.mini.wording import PLACES, SIDE, at

logger = logging.getLogger(__name__)

TEXT_LENGTH = 10
"""Number of tokens that a label is padded or truncated to."""

POSITION_STD = 0.5
"""Initial standard deviation of the position embeddings, of the order of the patch embeddings'. With transformers'
0.09, the place accounted for 2% of the variance of the trained patch features, and a language model took long to learn
to read it."""


class LabelledPictures(Dataset):
    """Pictures with the labels that are true of each, decoded once and kept as bytes.

    Args:
        records: ``(file, labels)`` pairs; all files have the processor's size.
        processor: Image processor; its mean and standard deviation are used to normalise the pictures.
    """

    def __init__(self, records: Sequence[tuple[Path, Sequence[str]]], processor: SiglipImageProcessorPil) -> None:
        self.labels = [labels for _, labels in records]
        self.mean = torch.tensor(processor.image_mean).view(3, 1, 1)
        self.std = torch.tensor(processor.image_std).view(3, 1, 1)
        pictures = []
        for file, _ in tqdm(records, desc="pictures", unit="picture", disable=None):
            with Image.open(file) as image:
                pictures.append(torch.from_numpy(np.array(image.convert("RGB"))))
        self.pictures = torch.stack(pictures).permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels = (self.pictures[index].float() / 255 - self.mean) / self.std
        return {"pixel_values": pixels, "labels": self.labels[index]}


class LabelCollator:
    """Collates a batch of pictures against all labels, and their places against the names of objects and places.

    A label "a goat at the top left" is split: the whole picture and its top left both match "a goat". Each place
    matches its own name ("at the top left"), whatever is there.

    Args:
        labels: All labels.
        names: Names of objects; labels that name no object are matched with whole pictures only.
        tokenizer: Tokenizer of the labels; gives ids ``[T, 10]``.
    """

    def __init__(self, labels: Sequence[str], names: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        self.parts = {
            f"{name} {at(place)}": (row, column)
            for column, name in enumerate(names)
            for row, place in enumerate(PLACES)
        }
        self.names = list(names)
        of_picture = [*names, *sorted(set(labels) - set(self.parts) - set(names))]
        self.column = {text: index for index, text in enumerate(of_picture)}
        texts = [*of_picture, *(at(place) for place in PLACES)]
        self.ids = tokenizer(texts, padding="max_length", truncation=True, max_length=TEXT_LENGTH, return_tensors="pt")[
            "input_ids"
        ]

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        picture = torch.full((len(items), len(self.column)), -1.0)
        things = torch.full((len(items), len(PLACES), len(self.names)), -1.0)
        for index, item in enumerate(items):
            for label in item["labels"]:
                if label in self.parts:
                    row, column = self.parts[label]
                    things[index, row, column] = picture[index, column] = 1.0
                else:
                    picture[index, self.column[label]] = 1.0
        own_place = (2 * torch.eye(len(PLACES)) - 1).expand(len(items), -1, -1)
        return {
            "pixel_values": torch.stack([item["pixel_values"] for item in items]),
            "input_ids": self.ids,
            "picture_targets": picture,
            "place_targets": torch.cat([things, own_place], dim=-1),
        }


def place_weights(side: int) -> Tensor:
    """The share of each place that each patch covers.

    Args:
        side: Number of patches along a side of the picture.

    Returns:
        ``[places, side * side]``; rows sum to 1, places and patches in reading order.
    """
    edges = torch.arange(side + 1) / side
    borders = torch.arange(SIDE + 1) / SIDE
    shared = torch.minimum(borders[1:, None], edges[1:]) - torch.maximum(borders[:-1, None], edges[:-1])
    share = SIDE * shared.clamp(min=0)
    return torch.einsum("ap,bq->abpq", share, share).reshape(SIDE**2, side * side)


def sigmoid_logits(model: SiglipModel, embeddings: Tensor, texts: Tensor) -> Tensor:
    """SigLIP's scaled and shifted cosines of visual ``[..., D]`` and text embeddings ``[T, D]`` -> ``[..., T]``."""
    cosines = F.normalize(embeddings, dim=-1) @ F.normalize(texts, dim=-1).T
    return cosines * model.logit_scale.exp() + model.logit_bias


class SigmoidTrainer(Trainer):
    """Trainer with the pairwise sigmoid loss over pictures and over places; several labels may be true of one
    picture."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        texts = model.text_model(input_ids=inputs["input_ids"]).pooler_output
        vision = model.vision_model(pixel_values=inputs["pixel_values"])
        patches = vision.last_hidden_state
        places = place_weights(int(patches.shape[1] ** 0.5)).to(patches) @ patches
        things = inputs["place_targets"].shape[-1] - len(PLACES)
        of_picture = inputs["picture_targets"] * sigmoid_logits(model, vision.pooler_output, texts[: -len(PLACES)])
        place_texts = torch.cat([texts[:things], texts[-len(PLACES) :]])
        of_places = inputs["place_targets"] * sigmoid_logits(model, places, place_texts)
        loss = -(F.logsigmoid(of_picture).sum(-1) + F.logsigmoid(of_places).sum((-1, -2))).mean()
        return (loss, vision) if return_outputs else loss


def pretrain_tower(
    records: Sequence[tuple[Path, Sequence[str]]],
    names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    image_size: int,
    hidden_size: int = 128,
    layers: int = 4,
    epochs: float = 1.0,
    batch_size: int = 64,
    learning_rate: float = 1.5e-3,
    held_out: int = 500,
    seed: int = 0,
) -> dict[str, float]:
    """Train and save a SigLIP model (both towers, the image processor and the tokenizer).

    Args:
        records: ``(file, labels)`` pairs; the last ``held_out`` are held out for the recall.
        names: Labels that name objects; the recall is over these.
        tokenizer: Tokenizer of the text tower.
        folder: Output folder.
        image_size: Side of the pictures in pixels; there are ``PATCHES`` x ``PATCHES`` patches.
        hidden_size, layers: Size of the vision tower (the text tower has one layer).
        epochs, batch_size, learning_rate, seed: Training settings.

    Returns:
        ``parameters`` of the vision tower; ``recall``, the share of a held-out picture's n objects among the n names
        with the highest scores; and the mean training ``loss``.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    sizes = {
        "hidden_size": hidden_size,
        "intermediate_size": 4 * hidden_size,
        "num_attention_heads": hidden_size // 32,
    }
    config = SiglipConfig(
        text_config={
            **sizes,
            "num_hidden_layers": 1,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": TEXT_LENGTH,
            "projection_size": hidden_size,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.eos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            **sizes,
            "num_hidden_layers": layers,
            "image_size": image_size,
            "patch_size": image_size // PATCHES,
        },
    )
    model = SiglipModel(config)
    model.logit_scale.data.fill_(2.3)
    model.logit_bias.data.fill_(-6.0)
    model.vision_model.embeddings.position_embedding.weight.data.normal_(std=POSITION_STD)
    processor = SiglipImageProcessorPil(size={"height": image_size, "width": image_size})
    training = LabelledPictures(records[:-held_out], processor)
    collator = LabelCollator([label for _, labels in records for label in labels], names, tokenizer)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        num_train_epochs=epochs,
        seed=seed,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        logging_steps=50,
        weight_decay=0.01,
        save_strategy="no",
        report_to="none",
        disable_tqdm=not on_a_terminal(),
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
    )
    trainer = SigmoidTrainer(model=model, args=arguments, train_dataset=training, data_collator=collator)
    result = trainer.train()
    figures = {
        "parameters": float(sum(parameter.numel() for parameter in model.vision_model.parameters())),
        "recall": label_recall(model, LabelledPictures(records[-held_out:], processor), collator),
        "loss": result.training_loss,
    }
    normalise_scale(model, torch.stack([training[index]["pixel_values"] for index in range(min(64, len(training)))]))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / "metrics.json", figures, indent=2)
    return figures


@torch.no_grad()
def normalise_scale(model: SiglipModel, pixels: Tensor) -> None:
    """Give the last hidden state unit mean square without changing what the model computes.

    Every block reads the residual stream through a layer norm, so the stream can be rescaled by scaling everything that
    is added to it. A projector then starts with inputs of ordinary scale.

    Args:
        model: Model, changed in place.
        pixels: Pictures to measure the scale on, ``[N, 3, H, W]``.
    """
    vision = model.vision_model
    states = vision(pixel_values=pixels.to(model.device), output_hidden_states=True).hidden_states
    factor = states[-1].pow(2).mean().rsqrt()
    embeddings = vision.embeddings
    added = [embeddings.patch_embedding.weight, embeddings.patch_embedding.bias, embeddings.position_embedding.weight]
    for layer in vision.encoder.layers:
        for linear in (layer.self_attn.out_proj, layer.mlp.fc2):
            added += [linear.weight, linear.bias]
    for parameter in added:
        parameter.mul_(factor)


@torch.no_grad()
def label_recall(model: SiglipModel, pictures: LabelledPictures, collator: LabelCollator) -> float:
    """Share of the n objects in a picture that are among the n names with the highest scores, averaged over objects."""
    model.eval()
    names = len(collator.names)
    texts = model.text_model(input_ids=collator.ids[:names].to(model.device)).pooler_output
    found = total = 0
    for start in range(0, len(pictures), 100):
        batch = collator([pictures[index] for index in range(start, min(start + 100, len(pictures)))])
        pooled = model.vision_model(pixel_values=batch["pixel_values"].to(model.device)).pooler_output
        logits = sigmoid_logits(model, pooled, texts).cpu()
        for row, targets in zip(logits, batch["picture_targets"][:, :names], strict=True):
            true = set((targets > 0).nonzero().flatten().tolist())
            found += len(true & set(row.topk(len(true)).indices.tolist()))
            total += len(true)
    return found / max(total, 1)
