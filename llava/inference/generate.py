"""Batched generation of answers, greedy or sampled; all benchmarks use it.

Answers do not depend on the batch size: prompts are padded on the left and masked, and positions are counted from the
mask.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from transformers import LogitsProcessorList, PreTrainedConfig

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN
from llava.conversation import Template, turns_to_answer
from llava.errors import InputError
from llava.inference.checkpoint import LoadedModel
from llava.inference.draws import Draws
from llava.inference.end_of_turn import EndOfTurn
from llava.inference.greedy import GREEDY
from llava.inference.question import Question
from llava.mm_utils import process_images, tokenizer_image_token

logger = logging.getLogger(__name__)

BUCKET = 16
"""Lengths of prompts are rounded down to a multiple of this when sorting, so that questions about one image stay
together."""

PREFETCH = 2
"""Number of batches prepared ahead of the model."""


@dataclass(frozen=True)
class Prompt:
    """A tokenised question; ``ids`` has -200 for the image."""

    question: Question
    ids: list[int]


@dataclass(frozen=True)
class Batch:
    """Prompts and the pixel values of their images, each image once.

    Attributes:
        prompts: The prompts.
        pixels: Pixel values ``[N, 3, H, W]``; None if there are no images.
        picture_of: For each image marker in reading order, its index in ``pixels``.
    """

    prompts: list[Prompt]
    pixels: Tensor | None
    picture_of: list[int]


def prompt_text(question: Question, template: Template, config: PreTrainedConfig | None) -> str:
    """The text that the model continues: LLaVA's image marker, a newline, earlier turns and the question, in the
    template."""

    def unmarked(text: str) -> str:
        return text.replace(DEFAULT_IMAGE_TOKEN, "")

    history = [(unmarked(asked), unmarked(answered)) for asked, answered in question.history]
    turns = turns_to_answer(unmarked(question.text), history, with_image=question.picture is not None)
    text = "".join(segment.text for segment in template.compose(turns))
    if getattr(config, "mm_use_im_start_end", False):
        marked = DEFAULT_IM_START_TOKEN + DEFAULT_IMAGE_TOKEN + DEFAULT_IM_END_TOKEN
        text = text.replace(DEFAULT_IMAGE_TOKEN, marked)
    return text


def generate_answers(
    loaded: LoadedModel,
    questions: Sequence[Question],
    template: Template,
    *,
    max_new_tokens: int,
    batch_size: int,
    on_answer: Callable[[Question, str, str], None],
    description: str = "",
    done: int = 0,
    draws: Draws | None = None,
) -> None:
    """Answer every question once, sorted by length and image for speed.

    Args:
        loaded: The model, its tokenizer and its image processor.
        questions: The questions.
        template: The prompt template.
        max_new_tokens: Maximum length of an answer in tokens.
        batch_size: Questions per batch.
        on_answer: Called with the question, the answer and ``stop`` or ``length`` when its batch is finished.
        description: Text of the progress bar.
        done: Number of questions answered in an earlier run, for the progress bar.
        draws: How answers are sampled; greedy by default.

    Raises:
        InputError: An image cannot be read.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size is {batch_size}; it must be at least 1")
    prompts = [Prompt(q, _encode(q, template, loaded)) for q in questions]
    prompts.sort(key=lambda p: (len(p.ids) // BUCKET, p.question.picture.identity if p.question.picture else ""))
    _warn_of_long_prompts(prompts, loaded)
    groups = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    stop = EndOfTurn.of(template, loaded.tokenizer, loaded.model)
    with tqdm(total=done + len(prompts), initial=done, desc=description, unit="question", disable=None) as bar:
        for batch in _prefetched(lambda group: _prepare(group, loaded), groups):
            for prompt, (text, finish) in zip(
                batch.prompts, answer_batch(loaded, batch, stop, max_new_tokens, draws), strict=True
            ):
                on_answer(prompt.question, text, finish)
            bar.update(len(batch.prompts))


@torch.inference_mode()
def answer_batch(
    loaded: LoadedModel, batch: Batch, stop: EndOfTurn, max_new_tokens: int, draws: Draws | None = None
) -> list[tuple[str, str]]:
    """Answers of one batch, each with the reason why it ended (``stop`` or ``length``)."""
    model = loaded.model
    home = model.get_input_embeddings().weight
    longest = max(len(prompt.ids) for prompt in batch.prompts)
    ids = torch.full((len(batch.prompts), longest), stop.pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(batch.prompts):
        ids[row, longest - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask[row, longest - len(prompt.ids) :] = 1
    pictures = {}
    if batch.pixels is not None:
        features = model.vision_features(batch.pixels.to(device=home.device, dtype=home.dtype))
        pictures["vision_features"] = features[torch.tensor(batch.picture_of, device=features.device)]
    drawn = [draws.processor([prompt.question.key for prompt in batch.prompts])] if draws is not None else []
    tokens = model.generate(
        input_ids=ids.to(home.device),
        attention_mask=mask.to(home.device),
        logits_processor=LogitsProcessorList(drawn),
        **pictures,
        **GREEDY,
        max_new_tokens=max_new_tokens,
        eos_token_id=stop.ids or None,
        pad_token_id=stop.pad_id,
        stopping_criteria=stop.criteria(),
    )
    return [stop.read(row, max_new_tokens) for row in tokens.tolist()]


def _encode(question: Question, template: Template, loaded: LoadedModel) -> list[int]:
    ids = tokenizer_image_token(prompt_text(question, template, loaded.model.config), loaded.tokenizer)
    assert isinstance(ids, list)
    return ids


def _warn_of_long_prompts(prompts: Sequence[Prompt], loaded: LoadedModel) -> None:
    """Warn if prompts, including their images, are longer than the model's context."""
    tower = loaded.model.get_vision_tower()
    visual = tower.num_patches - 1 if tower is not None else 0
    lengths = [len(p.ids) + (visual if p.question.picture is not None else 0) for p in prompts]
    too_long = sum(length > loaded.context_length for length in lengths)
    if too_long:
        logger.warning(
            "%d prompts are longer than the model's context of %d tokens (the longest: %d); their answers may suffer",
            too_long,
            loaded.context_length,
            max(lengths),
        )


def _prepare(group: list[Prompt], loaded: LoadedModel) -> Batch:
    """Read and preprocess the images of a batch, each image once."""
    distinct: dict[str, int] = {}
    pictures: list[Image.Image] = []
    picture_of: list[int] = []
    for prompt in group:
        picture = prompt.question.picture
        if picture is None:
            continue
        if picture.identity not in distinct:
            distinct[picture.identity] = len(pictures)
            pictures.append(picture.load())
        picture_of.append(distinct[picture.identity])
    pixels = process_images(pictures, loaded.image_processor, loaded.model.config) if pictures else None
    return Batch(group, pixels, picture_of)


def _prefetched(prepare: Callable[[list[Prompt]], Batch], groups: Iterable[list[Prompt]]) -> Iterator[Batch]:
    """Yield batches in order; the next few are prepared in threads while the model runs."""
    remaining = iter(groups)
    with ThreadPoolExecutor(max_workers=PREFETCH) as pool:
        waiting: list[Future[Batch]] = [pool.submit(prepare, group) for group in islice(remaining, PREFETCH)]
        while waiting:
            batch = waiting.pop(0).result()
            waiting += [pool.submit(prepare, group) for group in islice(remaining, 1)]
            yield batch
