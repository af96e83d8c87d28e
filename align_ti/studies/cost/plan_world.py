"""Small models and data on disk for the plan check; all samples have the same, known length."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from llava.constants import IGNORE_INDEX
from llava.conversation import get_template
from llava.data.annotations.table import open_annotations
from llava.data.dataset import ConversationDataset

SAMPLES = 16
SHORTER = 3

TEACHER = {"hidden": 384, "layers": 8, "heads": 6, "kv_heads": 2, "intermediate": 1152, "vocabulary": 8192}
STUDENT = {"hidden": 192, "layers": 8, "heads": 6, "kv_heads": 2, "intermediate": 512, "vocabulary": 8064, "tied": True}
TOWER = {"hidden": 96, "layers": 3, "heads": 4, "intermediate": 288, "image": 224, "patch": 14}


class PlanWorld(NamedTuple):
    """Folders and files; in ``mixed_data`` the answer of every other sample is shorter by ``SHORTER`` words."""

    teacher_lm: Path
    student_lm: Path
    tower: Path
    data: Path
    mixed_data: Path
    images: Path


def make_world(folder: Path, prompt: int = 24, response: int = 100) -> PlanWorld:
    """Write models with random weights, an image, and samples.

    Args:
        folder: Output folder.
        prompt, response: Number of words of each question and each answer.
    """
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    world = PlanWorld(
        folder / "teacher-lm",
        folder / "student-lm",
        folder / "tower",
        folder / "data.json",
        folder / "mixed.json",
        folder / "images",
    )
    for place, shape in ((world.teacher_lm, TEACHER), (world.student_lm, STUDENT)):
        language_model(shape, tokenizer.eos_token_id).save_pretrained(place)
        tokenizer.save_pretrained(place)
    side = TOWER["image"]
    vision = SiglipVisionConfig(
        hidden_size=TOWER["hidden"],
        intermediate_size=TOWER["intermediate"],
        num_hidden_layers=TOWER["layers"],
        num_attention_heads=TOWER["heads"],
        image_size=side,
        patch_size=TOWER["patch"],
    )
    SiglipVisionModel(vision).save_pretrained(world.tower)
    SiglipImageProcessorPil(size={"height": side, "width": side}).save_pretrained(world.tower)
    world.images.mkdir(exist_ok=True)
    Image.new("RGB", (side, side), (90, 120, 200)).save(world.images / "picture.png")
    for file, shorter in ((world.data, 0), (world.mixed_data, SHORTER)):
        entries = [_entry(index, prompt, response - shorter * (index % 2)) for index in range(SAMPLES)]
        file.write_text(json.dumps(entries))
    return world


def _entry(index: int, prompt: int, response: int) -> dict[str, Any]:
    turns = [
        {"from": "human", "value": "<image>\n" + " ".join(["what"] * prompt)},
        {"from": "gpt", "value": " ".join(["apple"] * response)},
    ]
    return {"id": str(index), "image": "picture.png", "conversations": turns}


def language_model(shape: dict[str, Any], end: int) -> Qwen2ForCausalLM:
    """A Qwen2 model with random weights."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=shape["vocabulary"],
            hidden_size=shape["hidden"],
            intermediate_size=shape["intermediate"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["kv_heads"],
            tie_word_embeddings=shape.get("tied", False),
            max_position_embeddings=4096,
            bos_token_id=end,
            eos_token_id=end,
        )
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with all bytes and the words of the data."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["what what apple apple"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def visual_tokens() -> int:
    """Number of visual tokens of an image."""
    return (TOWER["image"] // TOWER["patch"]) ** 2


def sample_lengths(world: PlanWorld, longest: int) -> tuple[int, int]:
    """Numbers of tokens of a sample, including visual tokens, and of its supervised tokens.

    Args:
        world: Models and data.
        longest: ``--model_max_length`` of the run.
    """
    dataset = ConversationDataset(
        open_annotations(world.data),
        AutoTokenizer.from_pretrained(world.student_lm),
        get_template("qwen"),
        image_processor=SiglipImageProcessorPil.from_pretrained(world.tower),
        image_folder=str(world.images),
        model_max_length=longest,
        visual_tokens=visual_tokens(),
    )
    sample: Any = dataset[0]
    return len(sample["input_ids"]) + visual_tokens() - 1, int((sample["labels"] != IGNORE_INDEX).sum())
