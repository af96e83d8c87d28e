"""Pretrain a small language model on the miniature's text, in place of Qwen2-7B or Qwen2-0.5B (or Llama)."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase, Trainer, TrainingArguments

from llava.console import on_a_terminal

logger = logging.getLogger(__name__)


class PackedText(Dataset):
    """Documents joined by the end token and cut into blocks of equal length.

    Args:
        documents: Texts.
        tokenizer: Tokenizer; its end token separates documents.
        block: Tokens per block; the remainder at the end is dropped.
    """

    def __init__(self, documents: Iterable[str], tokenizer: PreTrainedTokenizerBase, block: int = 256) -> None:
        ids: list[int] = []
        for encoding in tokenizer(list(documents), add_special_tokens=False)["input_ids"]:
            ids.extend(encoding)
            ids.append(tokenizer.eos_token_id)
        count = len(ids) // block
        self.blocks = torch.tensor(ids[: count * block], dtype=torch.long).view(count, block)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.blocks[index], "labels": self.blocks[index]}


def pretrain_lm(
    data: PackedText,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    kv_heads: int,
    vocab_multiple: int,
    architecture: str = "qwen2",
    batch_size: int = 8,
    epochs: float = 1.0,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> dict[str, float]:
    """Train and save one language model.

    Args:
        data: Packed text.
        tokenizer: Tokenizer, saved with the model.
        folder: Output folder.
        hidden_size, layers, heads, kv_heads: Model size; the feed-forward layer is 3 x ``hidden_size`` wide.
        vocab_multiple: The number of embedding rows is the tokenizer's size rounded up to a multiple of this (it
            differs between teacher and student, as for Qwen2-7B and Qwen2-0.5B).
        architecture: Transformers' ``model_type``: ``qwen2``, ``qwen3`` or ``llama``.
        batch_size: Blocks per step.
        epochs, learning_rate, seed: Training settings (cosine schedule, 3% warm-up).

    Returns:
        ``parameters`` and the mean training ``loss`` (nats per token).
    """
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=-(-len(tokenizer) // vocab_multiple) * vocab_multiple,
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=hidden_size**-0.5,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        num_train_epochs=epochs,
        seed=seed,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        logging_steps=50,
        save_strategy="no",
        report_to="none",
        disable_tqdm=not on_a_terminal(),
        use_cpu=not torch.cuda.is_available(),
        weight_decay=0.01,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    result = trainer.train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"parameters": float(model.num_parameters()), "loss": result.training_loss}
