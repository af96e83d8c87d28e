"""Fixtures shared by all tests: a small real tokenizer, and one thread so that timings stay steady."""

import logging
import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
import random
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests.runs import COMMON

# A shell's background job ignores Ctrl-C, and so would the programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "USER: What is at the top left? ASSISTANT: A red apple is at the top left.",
    "There are three animals in the picture: a goat, a cat and a dog.",
    "Is there a lion in the image? Yes. No. Answer with the option's letter from the given choices directly.",
]


@pytest.fixture(scope="session")
def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Qwen's pre-tokenization and special tokens, trained on the spot."""
    tokenizer = Tokenizer(models.BPE())
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=special,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=2048,
    )


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors run fastest, and most repeatably, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def quiet_root_logger():
    """Entry points set the root logger's level; the next test starts from the usual one."""
    yield
    logging.getLogger().setLevel(logging.WARNING)


@dataclass(frozen=True)
class World:
    """A tiny world on disk: models of real classes with random weights, pictures and conversations."""

    tower: Path
    teacher_lm: Path
    student_lm: Path
    images: Path
    data: Path
    captions: Path


COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "white": (250, 250, 250)}


@pytest.fixture(scope="session")
def world(tmp_path_factory, qwen_tokenizer) -> World:
    """Tower, two language models, 24 conversations (some text-only, some of two turns) and 16 captions."""
    root = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    tower = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
        )
    )
    tower.save_pretrained(root / "tower")
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(root / "tower")
    for name, hidden, layers, rows in (("teacher-lm", 48, 3, 416), ("student-lm", 32, 2, 408)):
        config = Qwen2Config(
            vocab_size=rows,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=0.2,
            bos_token_id=qwen_tokenizer.eos_token_id,
            eos_token_id=qwen_tokenizer.eos_token_id,
        )
        Qwen2ForCausalLM(config).save_pretrained(root / name)
        qwen_tokenizer.save_pretrained(root / name)
    (root / "images").mkdir()
    rng = random.Random(0)
    for name, colour in COLOURS.items():
        Image.new("RGB", (40, 30), colour).save(root / "images" / f"{name}.png")
    entries = []
    for index in range(24):
        colour = rng.choice(list(COLOURS))
        turns = [
            {"from": "human", "value": "<image>\nWhat is in the picture?"},
            {
                "from": "gpt",
                "value": f"A {colour} picture" + " with a goat and a dog" * rng.randrange(3) + ".",
            },
        ]
        if index % 3 == 0:
            turns += [
                {"from": "human", "value": f"Is there a {colour} goat?"},
                {"from": "gpt", "value": "No."},
            ]
        entry = {"id": str(index), "image": f"{colour}.png", "conversations": turns}
        if index % 6 == 5:
            turns[0] = {"from": "human", "value": "Is there a lion?"}
            del entry["image"]
        entries.append(entry)
    (root / "data.json").write_text(json.dumps(entries))
    captions = [
        {
            "id": str(index),
            "image": f"{colour}.png",
            "conversations": [
                {"from": "human", "value": "Describe.\n<image>"},
                {"from": "gpt", "value": f"a {colour} picture"},
            ],
        }
        for index, colour in enumerate(list(COLOURS) * 4)
    ]
    (root / "captions.json").write_text(json.dumps(captions))
    return World(
        root / "tower",
        root / "teacher-lm",
        root / "student-lm",
        root / "images",
        root / "data.json",
        root / "captions.json",
    )


@pytest.fixture(scope="session")
def tuned_teacher(world, tmp_path_factory) -> Path:
    """A teacher tuned for a few steps on the tiny world."""
    from llava.train import train as supervised  # here, since few tests need it

    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    patch = pytest.MonkeyPatch()
    flags = [
        "--model_name_or_path", str(world.teacher_lm), "--vision_tower", str(world.tower),
        "--data_path", str(world.data), "--image_folder", str(world.images), "--output_dir", str(folder),
        "--per_device_train_batch_size", "8", "--num_train_epochs", "4",
    ]  # fmt: skip
    patch.setattr("sys.argv", ["train", *COMMON, *flags])
    supervised.main()
    patch.undo()
    return folder
