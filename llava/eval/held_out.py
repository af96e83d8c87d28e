"""Cross-entropy on held-out conversations: a finer measure than the share of correct answers.

    python -m llava.eval.held_out --model-path RUN --data held_out.json --image-folder images --out held_out.json

The data has LLaVA's format, as for training. The given answers are scored; nothing is generated.
"""

import argparse
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import cast

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from llava.console import setup_console
from llava.constants import IGNORE_INDEX
from llava.conversation import Template, get_template
from llava.data.annotations.table import Annotations, open_annotations
from llava.data.dataset import ConversationDataset
from llava.data.tokenize import TokenizedSample
from llava.errors import InputError, run_cli
from llava.eval.likelihood import answer_losses
from llava.files import write_json
from llava.flags import add_device_flags, add_flag
from llava.inference.checkpoint import load, own_template
from llava.model.protocol import VisionLanguageModel
from llava.model.vision_tower.processors import ImageProcessor


@dataclass(frozen=True)
class HeldOut:
    """A model's likelihood of held-out conversations.

    Attributes:
        cross_entropy: Mean over all target tokens in nats per token, including the ends of turns.
        greedy: Percentage of conversations in which every target token is the model's most likely one.
        conversations: Number of conversations.
        tokens: Number of target tokens.
    """

    cross_entropy: float
    greedy: float
    conversations: int
    tokens: int


def measure(
    model: VisionLanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    image_processor: ImageProcessor,
    template: Template,
    annotations: Annotations,
    image_folder: Path | None = None,
    *,
    batch_size: int = 8,
) -> HeldOut:
    """Score all conversations of a file.

    Args:
        model: A vision-language model in evaluation mode.
        tokenizer, image_processor, template: The model's tokenizer, image processor and prompt template.
        annotations: The conversations.
        image_folder: Folder that image paths are relative to; the annotation file's folder by default.
        batch_size: Conversations per batch; does not change the result.

    Raises:
        InputError: The file is empty, an entry is malformed, an image cannot be read, or ``batch_size < 1``.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size is {batch_size}; it must be at least 1")
    if not len(annotations):
        raise InputError("the held-out data has no conversations")
    data = ConversationDataset(
        annotations,
        tokenizer,
        template,
        image_processor=image_processor,
        image_folder=image_folder,
        image_aspect_ratio=getattr(model.config, "image_aspect_ratio", None),
    )
    nats, greedy, tokens = 0.0, 0, 0
    for start in tqdm(range(0, len(data), batch_size), desc="held out", unit="batch", leave=False, disable=None):
        indices = range(start, min(start + batch_size, len(data)))
        items = [cast(dict[str, torch.Tensor], data[index]) for index in indices]  # bad samples are errors here
        pixels = [item["images"] for item in items if len(item["images"])]
        samples = [TokenizedSample(*(item[field.name] for field in fields(TokenizedSample))) for item in items]
        sizes = [int((sample.labels[1:] != IGNORE_INDEX).sum()) for sample in samples]
        losses = answer_losses(model, samples, torch.cat(pixels) if pixels else None)
        nats += sum(loss * size for (loss, _), size in zip(losses, sizes, strict=True))
        greedy += sum(same for _, same in losses)
        tokens += sum(sizes)
    return HeldOut(nats / tokens, 100 * greedy / len(annotations), len(annotations), tokens)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    add_flag(parser, "--model-path", required=True, help="checkpoint folder or hub name")
    add_flag(parser, "--data", required=True, help="annotation file")
    add_flag(parser, "--image-folder", type=Path, help="folder of the images (default: the annotation file's folder)")
    add_flag(parser, "--batch-size", type=int, default=8, help="conversations per batch; does not change the result")
    add_flag(parser, "--conv-mode", help="prompt template (default: the one the checkpoint was tuned with)")
    add_flag(parser, "--out", type=Path, required=True, help="output file (JSON)")
    add_device_flags(parser)
    arguments = parser.parse_args()
    setup_console(times=False)
    annotations = open_annotations(arguments.data)
    template = get_template(arguments.conv_mode or own_template(arguments.model_path))
    loaded = load(arguments.model_path, device=arguments.device, dtype=arguments.dtype)
    found = measure(
        loaded.model,
        loaded.tokenizer,
        loaded.image_processor,
        template,
        annotations,
        arguments.image_folder,
        batch_size=arguments.batch_size,
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, asdict(found), indent=None)
    print(
        f"{found.cross_entropy:.4f} nats per token; greedy decoding gives the whole answer in {found.greedy:.1f}% of "
        f"{found.conversations} conversations"
    )


if __name__ == "__main__":
    run_cli(main)
