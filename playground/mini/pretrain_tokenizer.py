"""The miniature's tokenizer: byte-level BPE like Qwen's, with Qwen's special tokens, trained on the miniature's
text."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llava.conversation import TEMPLATES

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenization: words with the space before them, single digits, punctuation, line breaks."""


def train_tokenizer(texts: Iterable[str], folder: Path, vocab_size: int = 1200) -> PreTrainedTokenizerFast:
    """Train the tokenizer and save it.

    Args:
        texts: Documents; the prompt templates are added to them.
        folder: Output folder.
        vocab_size: Maximum number of entries, including special tokens and the 256 bytes.

    Returns:
        The tokenizer. As in Qwen, the padding token is ``<|endoftext|>`` and there is no BOS token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    prompts = [TEMPLATES[name].prompt([("human", "Hello")]) for name in ("v1", "qwen", "qwen_2")] * 50
    tokenizer.train_from_iterator([*prompts, *texts], trainer)
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
    wrapped.save_pretrained(folder)
    return wrapped
