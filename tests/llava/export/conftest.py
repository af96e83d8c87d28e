"""Tiny checkpoints of every kind, their exports, and what plain transformers makes of the exports."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from llava.export.to_hf import export_to_hf
from llava.model import language_model_class
from tests.llava.export.run_folders import run

SIDE = 32
VISION = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 15,  # does not divide the side, as 14 does not divide 384
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 40,
}
LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "max_position_embeddings": 512,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}
FAMILIES: dict[str, Any] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"attention_dropout": 0.0}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
    "llama": (LlamaConfig, LlamaForCausalLM, {"attention_bias": True}),
}


@dataclass(frozen=True)
class Case:
    """One kind of checkpoint."""

    name: str
    family: str = "qwen2"
    tied: bool = False
    spare_rows: int = 0
    tower: str = "siglip"
    layer: int = -2
    feature: str = "patch"
    aspect: str | None = "pad"
    version: str = "qwen"
    tokenizer: str = "qwen"
    start_end: bool = False


CASES = [
    Case("spare-rows", tied=True, spare_rows=9),
    Case("grown", family="qwen3", version="qwen_2", aspect="square"),
    Case("grown-tied", tied=True, version="qwen_bare"),
    Case("clip", family="llama", tower="clip", version="v1", tied=True),
    Case("clip-cls", family="qwen3", tower="clip", feature="cls_patch", layer=-1, aspect="square"),
    Case("two-tower", tower="siglip_full", layer=2, spare_rows=64, aspect=None),
    Case("embedding-layer", layer=0, start_end=True, spare_rows=4),
    Case("sentencepiece", family="llama", tower="clip", version="v1", tokenizer="metaspace", spare_rows=3),
]


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """Like Llama's: a BOS in front, and a space before the first word of a text only."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = ["What is in the picture? A red goat.", "USER: Hello.\n ASSISTANT: No, it is blue."]
    tokenizer.train_from_iterator(words, trainers.BpeTrainer(vocab_size=330, special_tokens=special[:3]))
    model = json.loads(tokenizer.to_str())
    vocabulary = model["model"]["vocab"]
    for token in special[3:]:
        vocabulary[token] = len(vocabulary)
    tokenizer = Tokenizer.from_str(json.dumps(model))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=2048
    )


def make_tower(folder: Path, kind: str) -> Path:
    torch.manual_seed(1)
    processor: Any = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    model: Any
    if kind == "siglip":
        model = SiglipVisionModel(SiglipVisionConfig(**VISION))
    elif kind == "siglip_full":
        model = SiglipModel(SiglipConfig(vision_config=VISION, text_config=TEXT))
    else:
        model = CLIPVisionModel(CLIPVisionConfig(**VISION))
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, resample=2
        )
    with torch.no_grad():
        for parameter in model.parameters():  # the library's own initialisation hardly tells pictures apart
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make_checkpoint(root: Path, case: Case, tokenizer: Any, **settings: Any) -> Path:
    """A finished checkpoint in this package's layout, its tower in a folder beside it."""
    tower = make_tower(root / f"tower-{case.tower}", case.tower)
    config_class, model_class, extra = FAMILIES[case.family]
    torch.manual_seed(2)
    rows = len(tokenizer) + case.spare_rows
    config = config_class(**LANGUAGE, **extra, vocab_size=rows, tie_word_embeddings=case.tied)
    config.eos_token_id = tokenizer.eos_token_id
    model_class(config).save_pretrained(root / "language-model")
    model = language_model_class(case.family).from_pretrained(root / "language-model", dtype=torch.float32)
    torch.manual_seed(3)
    model.initialize_vision_modules(
        str(tower),
        mm_projector_type=settings.pop("projector", "mlp2x_gelu"),
        mm_vision_select_layer=case.layer,
        mm_vision_select_feature=case.feature,
    )
    with torch.no_grad():
        for parameter in model.model.mm_projector.parameters():
            parameter.mul_(8)  # so that the answers depend on the picture
    if case.aspect is not None:
        model.config.image_aspect_ratio = case.aspect
    model.config.mm_template = case.version
    model.config.mm_use_im_patch_token = False
    model.config.mm_use_im_start_end = case.start_end
    model.config.tokenizer_model_max_length = 77
    for key, value in settings.items():
        setattr(model.config, key, value)
    model.generation_config.repetition_penalty = 1.1  # as chat models bring along
    model.save_pretrained(root / "run")
    tokenizer.save_pretrained(root / "run")
    return root / "run"


@pytest.fixture(scope="session")
def tokenizers(qwen_tokenizer) -> dict[str, Any]:
    return {"qwen": qwen_tokenizer, "metaspace": metaspace_tokenizer()}


@pytest.fixture
def checkpoint(tmp_path, tokenizers) -> Callable[..., Path]:
    """``checkpoint(case, **config)``: a checkpoint that a test may damage."""

    def make(case: Case = CASES[0], **settings: Any) -> Path:
        return make_checkpoint(tmp_path / "checkpoint", case, tokenizers[case.tokenizer], **settings)

    return make


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> list[Path]:
    """Files of three pictures: square, wide and high."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    paths = []
    for width, height in ((40, 40), (90, 31), (33, 70)):
        coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        paths.append(folder / f"{width}x{height}.png")
        Image.fromarray(coarse).resize((width, height)).save(paths[-1])
    return paths


QUESTIONS = [
    ["<image>\nWhat is in the picture?"],
    ["Is it red?\n<image>", "No, it is blue.", "Where is the goat?"],
    ["<image>\nA goat?", "Yes.", "<image>\nAnd here?"],
]
"""Turns of conversations, human and assistant alternating."""

STRANGER = """
import json, sys
for name in ("llava", "align_ti"):
    sys.modules[name] = None  # importing either raises ImportError
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
torch.set_num_threads(1)
job = json.load(open(sys.argv[1]))
results = {}
for name, folder in job["folders"].items():
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto").eval()
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    for index, (messages, system) in enumerate(job["conversations"]):
        inputs = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        with torch.no_grad():
            logits = model(**inputs).logits
            answer = model.generate(**inputs, max_new_tokens=12)[:, inputs["input_ids"].shape[1]:]
        results[name, index] = {"ids": inputs["input_ids"], "logits": logits, "answer": answer}
    results[name] = type(model).__name__
assert not [name for name in sys.modules if name.startswith(("llava.", "align_ti."))]
torch.save(results, sys.argv[2])
"""


def conversations(pictures: list[Path]) -> list[tuple[list[tuple[str, str]], list[Path], list[dict]]]:
    """Turns, the pictures in reading order, and the same as messages; every question on every picture."""
    made = []
    for start in range(len(pictures)):
        for texts in QUESTIONS:
            used, turns, messages = [], [], []
            for index, text in enumerate(texts):
                parts: list[dict[str, str]] = []
                if "<image>" in text:
                    used.append(pictures[(start + len(used)) % len(pictures)])
                    parts.append({"type": "image", "path": str(used[-1])})
                parts.append({"type": "text", "text": text.replace("<image>", "").strip()})
                turns.append((("human", "gpt")[index % 2], text))
                messages.append({"role": ("user", "assistant")[index % 2], "content": parts})
            made.append((turns, used, messages))
    return made


@dataclass(frozen=True)
class World:
    """All cases: checkpoints, exports, and what plain transformers answers."""

    runs: dict[str, Path]
    exports: dict[str, Path]
    results: dict[tuple[str, int], dict[str, Any]]


@pytest.fixture(scope="session")
def exported(tmp_path_factory, tokenizers, pictures) -> World:
    """Export every case, and ask the exports in a process that cannot import this package."""
    root = tmp_path_factory.mktemp("exported")
    runs, exports = {}, {}
    for case in CASES:
        runs[case.name] = make_checkpoint(root / case.name, case, tokenizers[case.tokenizer])
        exports[case.name] = root / case.name / "hf"
        export_to_hf(str(runs[case.name]), exports[case.name])
    job = {
        "folders": {name: str(folder) for name, folder in exports.items()},
        "conversations": [(messages, None) for _, _, messages in conversations(pictures)],
    }
    (root / "job.json").write_text(json.dumps(job))
    (root / "stranger.py").write_text(STRANGER)
    command = [sys.executable, "-I", str(root / "stranger.py"), str(root / "job.json"), str(root / "results.pt")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return World(runs, exports, torch.load(root / "results.pt"))


@pytest.fixture
def student(tmp_path) -> Path:
    """A student distilled on a projector pretrained before, the language model a Hub name."""
    run(
        tmp_path / "projector",
        "Qwen/Qwen2-0.5B",
        "/data/share-captioner_coco_lcs_sam_1246k_1107.json",
        steps=3,
        model={"tune_mm_mlp_adapter": True, "version": "plain"},
    )
    distill = {
        "teacher_path": "/secret/place/teacher-7b",
        "losses": "sft,kd,iva,tpa",
        **{f"{key}_weight": 1.0 for key in ("sft", "kd", "iva")},
        "tpa_weight": 0.5,
        "divergence": "forward_kl",
        "tpa_d": 4,
    }
    return run(
        tmp_path / "student-align-ti",
        "Qwen/Qwen2-0.5B",
        "/data/MobileVLM_V2_FT_Mix2M.json,/data/own.json",
        distill=distill,
        iva={"layer": 17},
        model={"pretrain_mm_mlp_adapter": str(tmp_path / "projector" / "mm_projector.bin")},
    )
