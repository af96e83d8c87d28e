"""Measure how fast samples are read, decoded and batched, to see whether data loading is the bottleneck.

    python -m llava.data.throughput --data_path data/mix.json --image_folder data/images \\
        --model_name_or_path Qwen/Qwen2-0.5B --vision_tower google/siglip-so400m-patch14-384 --version qwen \\
        --workers 8 --step_seconds 2.1

No model is needed. With ``--step_seconds``, the duration of a training step on the GPUs, the report says which share of
it the loading of one GPU's samples takes, and how many workers keep up with the model.
"""

import argparse
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from torch.utils.data import DataLoader, Subset
from tqdm import tqdm
from transformers import PreTrainedConfig

from llava.console import setup_console
from llava.conversation import get_template
from llava.data.annotations.table import open_annotations
from llava.data.collator import ConversationCollator
from llava.data.dataset import ConversationDataset
from llava.data.images import load_image
from llava.data.sampler import ShuffleSampler
from llava.data.tokenize import load_tokenizer, tokenize_conversation
from llava.errors import InputError, run_cli
from llava.files import write_json
from llava.model.vision_tower import build_vision_tower


@dataclass(frozen=True)
class Throughput:
    """Measured throughput.

    Attributes:
        samples: Number of samples read.
        workers: Number of worker processes of the DataLoader.
        samples_per_second: Samples per second through the DataLoader.
        read, tokenize, decode, preprocess: Seconds per sample in one process, by part.
    """

    samples: int
    workers: int
    samples_per_second: float
    read: float
    tokenize: float
    decode: float
    preprocess: float

    @property
    def one_process(self) -> float:
        """Seconds per sample in one process."""
        return self.read + self.tokenize + self.decode + self.preprocess

    def workers_needed(self, samples_a_step: int, step_seconds: float) -> int:
        """Number of worker processes per GPU that load ``samples_a_step`` samples while one step runs."""
        return max(1, math.ceil(samples_a_step * self.one_process / step_seconds))


def measure_parts(dataset: ConversationDataset, indices: list[int]) -> dict[str, float]:
    """Mean seconds per sample by part: reading the annotation, tokens and masks, decoding images, resizing them."""
    spent = dict.fromkeys(("read", "tokenize", "decode", "preprocess"), 0.0)
    for index in tqdm(indices, desc="one process", unit="sample", disable=None):
        started = time.perf_counter()
        entry = dataset.annotations[index]
        read = time.perf_counter()
        tokenize_conversation(entry["conversations"], dataset.tokenizer, dataset.template, len(entry["image"]))
        tokenized = time.perf_counter()
        folder = dataset.image_folder or dataset.annotations.folder(index)
        images = [load_image(folder / path) for path in entry["image"]]
        decoded = time.perf_counter()
        for image in images:
            dataset.pixels(image)
        done = time.perf_counter()
        for part, seconds in zip(
            spent, (read - started, tokenized - read, decoded - tokenized, done - decoded), strict=True
        ):
            spent[part] += seconds
    return {part: seconds / max(1, len(indices)) for part, seconds in spent.items()}


def measure(
    dataset: ConversationDataset, collator: ConversationCollator, workers: int, batch: int, samples: int
) -> Throughput:
    """Read samples in shuffled order, as in training: in one process part by part, and through a DataLoader.

    Args:
        dataset: The training dataset.
        collator: The training collator.
        workers: Worker processes of the DataLoader; 0 loads in this process.
        batch: Samples per batch.
        samples: Number of samples, at most the size of the dataset.
    """
    order = list(ShuffleSampler(len(dataset), 0))[: min(samples, len(dataset))]
    parts = measure_parts(dataset, order[: min(len(order), 200)])
    loader = DataLoader(Subset(dataset, order), batch_size=batch, num_workers=workers, collate_fn=collator)
    batches = iter(loader)
    next(batches)  # starting the workers is not counted
    started = time.perf_counter()
    shown = tqdm(batches, total=len(loader) - 1, desc="loader", unit="batch", disable=None)
    seen = sum(len(found["input_ids"]) for found in shown)
    elapsed = time.perf_counter() - started
    return Throughput(len(order), workers, seen / elapsed if seen else 0.0, **parts)


def report(found: Throughput, batch: int, step_seconds: float | None) -> str:
    """The measurement as text."""
    parts = ", ".join(
        f"{name} {1000 * getattr(found, name):.2f}" for name in ("read", "tokenize", "decode", "preprocess")
    )
    lines = [
        f"one process    {1000 * found.one_process:.2f} ms per sample ({parts})",
        f"loader         {found.samples_per_second:.0f} samples/s with {found.workers} workers, batches of {batch}",
    ]
    if step_seconds is not None:
        share = batch / found.samples_per_second / step_seconds if found.samples_per_second else math.inf
        lines.append(
            f"one step       {step_seconds:g} s for {batch} samples per GPU: loading takes {100 * share:.1f}% of it, "
            f"in parallel with the model; {found.workers_needed(batch, step_seconds)} worker(s) per GPU keep up"
        )
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_path", required=True, help="LLaVA-format JSON or JSONL")
    parser.add_argument("--image_folder", help="folder that image paths are relative to")
    parser.add_argument("--model_name_or_path", required=True, help="folder or hub name with the tokenizer")
    parser.add_argument("--vision_tower", required=True, help="folder or hub name with the image processor")
    parser.add_argument("--version", default="qwen", help="prompt template")
    parser.add_argument("--image_aspect_ratio", default="pad", help="pad or square")
    parser.add_argument("--workers", type=int, default=4, help="worker processes of the data loader")
    parser.add_argument("--batch", type=int, default=8, help="samples per GPU and step")
    parser.add_argument("--samples", type=int, default=2000, help="number of samples to read")
    parser.add_argument("--step_seconds", type=float, help="duration of a training step on the GPUs, in seconds")
    parser.add_argument("--json", type=Path, help="also write the measurement to this file")
    arguments = parser.parse_args()
    setup_console(times=False)
    if arguments.samples <= arguments.batch:
        raise InputError(f"--samples is {arguments.samples}, expected more than --batch ({arguments.batch})")
    tower = PreTrainedConfig.from_dict({"mm_vision_tower": arguments.vision_tower})
    tokenizer = load_tokenizer(arguments.model_name_or_path, 2048)
    dataset = ConversationDataset(
        open_annotations(arguments.data_path),
        tokenizer,
        get_template(arguments.version),
        image_processor=build_vision_tower(tower).image_processor,
        image_folder=arguments.image_folder,
        image_aspect_ratio=arguments.image_aspect_ratio,
    )
    found = measure(
        dataset, ConversationCollator(tokenizer.pad_token_id), arguments.workers, arguments.batch, arguments.samples
    )
    print(report(found, arguments.batch, arguments.step_seconds))
    if arguments.json:
        write_json(arguments.json, asdict(found))


if __name__ == "__main__":
    run_cli(main)
