"""Helpers for data tests: a private annotation cache, Llama-like tokenizers, small data sets on disk."""

import json
import random

import pytest
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "USER: What is at the top left? ASSISTANT: A red apple is at the top left.",
    "There are three animals in the picture: a goat, a cat and a dog. Is there a lion? Yes. No.",
    "USER: Is there a goat? ASSISTANT: Yes.",  # "USER" only at the front: no piece has it with a space
]


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """Converted annotations go to a folder of this test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LLAVA_CACHE", str(folder))
    return folder


def _llama_like(legacy: bool) -> PreTrainedTokenizerFast:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={name: index for index, name in enumerate(names)},
            merges=[tuple(pair) for pair in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        legacy=legacy,
    )


@pytest.fixture(scope="session")
def llama_tokenizer() -> PreTrainedTokenizerFast:
    """BOS, byte fallback, and a dummy space at the front of the text only."""
    return _llama_like(legacy=False)


@pytest.fixture(scope="session")
def legacy_llama_tokenizer() -> PreTrainedTokenizerFast:
    """BOS, byte fallback, and a dummy space after every special token, like Llama's older files."""
    return _llama_like(legacy=True)


@pytest.fixture(scope="session")
def trimming_tokenizer(qwen_tokenizer) -> PreTrainedTokenizerFast:
    """The Qwen-like tokenizer with offsets that leave out white space (as Llama 3's do)."""
    tokenizer = Tokenizer.from_str(qwen_tokenizer.backend_tokenizer.to_str())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="session")
def siglip_processor() -> SiglipImageProcessorPil:
    """SigLIP's processor for pictures of 32 pixels."""
    return SiglipImageProcessorPil(size={"height": 32, "width": 32})


@pytest.fixture
def talk():
    """Make turns: ``talk("q", "a", "q", "a")``."""

    def make(*texts):
        return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]

    return make


@pytest.fixture
def write_json(tmp_path):
    """Write entries to ``name`` (a list, or one a line for ``.jsonl``) and return the path."""

    def write(entries, name="data.json"):
        path = tmp_path / name
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        else:
            path.write_text(json.dumps(entries, indent=1))
        return path

    return write


@pytest.fixture
def pictures(tmp_path):
    """A folder with ``a.png`` (red, wide), ``b.png`` (blue, tall) and ``c.jpg`` (noise)."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (40, 20), (255, 0, 0)).save(folder / "a.png")
    Image.new("RGB", (20, 40), (0, 0, 255)).save(folder / "b.png")
    noise = random.Random(0).randbytes(64 * 64 * 3)
    Image.frombytes("RGB", (64, 64), noise).save(folder / "c.jpg")
    return folder
