"""The answer generator: batches of questions in, greedy answers (or drawn ones) out; the same for every benchmark.

Answers do not depend on the batch size: prompts are padded on the left and masked, and positions are counted
from PIL import Image
from transformers import PreTrainedConfig
from the mask.
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
from llava.conversation import HUMAN, Template
from llava.errors import InputError
from llava.inference.checkpoint import LoadedModel
from llava.inference.draws import Draws
from llava.inference.end_of_turn import EndOfTurn
from llava.inference.greedy import GREEDY
from llava.inference.question import Question
from llava.mm_utils import process_images, tokenizer_image_token

logger = logging.getLogger(__name__)

BUCKET = 16
"""Prompts whose lengths differ by fewer tokens count as equally long, so that questions about one picture
stay together."""

PREFETCH = 2
"""Batches prepared ahead of the model."""


@dataclass(frozen=True)
class Prompt:
    """A question ready for the model; ``ids`` hold -200 for the picture."""

    question: Question
    ids: list[int]


@dataclass(frozen=True)
class Batch:
    """Prompts and the pixel values of their distinct pictures; ``picture_of`` points from picture markers in
    reading order into ``pixels``."""

    prompts: list[Prompt]
    pixels: Tensor | None
    picture_of: list[int]


def prompt_text(question: Question, template: Template, config: PreTrainedConfig | None) -> str:
    """The text the model continues: LLaVA's image marker and a newline, then the question, in the
    template."""
    words = question.text.replace(DEFAULT_IMAGE_TOKEN, "")
    if question.picture is not None:
        words = f"{DEFAULT_IMAGE_TOKEN}\n{words}"
    text = "".join(segment.text for segment in template.compose([(HUMAN, words)]))
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
    """Ask every question once, in an order that suits the machine.

    Args:
        loaded: The model and what belongs to it.
        questions: What to ask.
        template: The prompt template.
        max_new_tokens: Limit of an answer.
        batch_size: Questions a batch.
        on_answer: Called with question, answer and ``stop`` or ``length`` as soon as a batch is finished.
        description: Shown with the progress bar.
        done: Questions answered in an earlier run, for the progress bar.
        draws: How answers are drawn; greedy without.

    Raises:
        InputError: A picture cannot be read.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size is {batch_size}; it must be at least 1")
    prompts = [Prompt(q, _encode(q, template, loaded)) for q in questions]
    prompts.sort(key=lambda p: (len(p.ids) // BUCKET, p.question.picture.identity if p.question.picture else ""))
    _warn_of_long_prompts(prompts, loaded)
    groups = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    stop = EndOfTurn.of(template, loaded.tokenizer, loaded.model)
    with tqdm(total=done + len(prompts), initial=done, desc=description, unit="question") as bar:
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
    """Answers of one batch, each with how it ended (``stop`` or ``length``)."""
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
    """Say how many prompts, pictures included, are longer than the context the model was trained with."""
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
    """Read and preprocess each distinct picture of a batch once."""
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
    """Prepare batches in threads while the model works, in order and only a few ahead."""
    remaining = iter(groups)
    with ThreadPoolExecutor(max_workers=PREFETCH) as pool:
        waiting: list[Future[Batch]] = [pool.submit(prepare, group) for group in islice(remaining, PREFETCH)]
        while waiting:
            batch = waiting.pop(0).result()
            waiting += [pool.submit(prepare, group) for group in islice(remaining, 1)]
            yield batch
