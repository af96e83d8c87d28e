"""LLaVA-style checkpoints as a model of lmms-eval, which has many more benchmarks than the paper's six.

    python -m lmms_eval --model align_ti --model_args pretrained=CHECKPOINT --tasks mme --batch_size 8

Prompts, image processing and greedy decoding are those of ``llava.eval``: the template is the one the checkpoint was
tuned with, and answers do not depend on the batch size. Use ``accelerate launch`` to distribute the questions over
several GPUs.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api import instance
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from llava.conversation import ASSISTANT, HUMAN
from llava.data.tokenize import tokenize_segments
from llava.errors import InputError
from llava.eval.likelihood import answer_losses
from llava.eval.lmms.requests import Limits, asks_for_sampling, human_turn, pictures_of
from llava.inference.checkpoint import ChatModel
from llava.inference.generate import Batch, Prompt, answer_batch
from llava.inference.question import Question
from llava.mm_utils import process_images, tokenizer_image_token

logger = logging.getLogger(__name__)


class AlignTI(lmms):
    """A vision-language checkpoint behind lmms-eval's interface.

    Args:
        pretrained: Checkpoint folder or hub name.
        model_base: The language model that a projector-only checkpoint belongs to.
        conv_template: Prompt template; the checkpoint's own by default.
        batch_size: Requests per batch; does not change the answers.
        device: Device; by default this process's GPU, or the CPU if there is none.
        dtype: Dtype of the weights; ``auto`` is bfloat16 on a GPU and float32 on a CPU.
        attn_implementation: As in transformers.
        max_batch_size: Not used; accepted because lmms-eval passes it.

    Raises:
        InputError: It is not a LLaVA-style checkpoint, the template is unknown, or the batch size is not a number.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        model_base: str | None = None,
        conv_template: str | None = None,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "auto",
        attn_implementation: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        self.pretrained = str(pretrained)  # the base class names its cache after it
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise InputError(f"--batch_size is {batch_size!r}, expected a number of at least 1")
        self.batch_size = int(batch_size)
        self.accelerator = Accelerator()
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        self.device = torch.device(device) if device and self._world_size == 1 else self.accelerator.device
        self.chat = ChatModel.load(
            self.pretrained,
            model_base,
            template=conv_template,
            device="cpu" if self.device.type == "cpu" else str(self.device),  # several processes share a "cpu:0"
            dtype=dtype,
            attn_implementation=attn_implementation,
        )
        self._warned_of_sampling = False

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Greedy answers in the order of the requests; a task's sampling options are ignored with a warning."""
        asked = [request.args for request in requests]
        self._warn_of_sampling(options for _, options, *_ in asked)
        limits = [Limits.of(options) for _, options, *_ in asked]
        order = sorted(range(len(asked)), key=lambda index: (limits[index], len(asked[index][0])))
        answers = [""] * len(asked)
        with self._progress(len(asked)) as bar:
            for limit, members in groupby(order, key=lambda index: limits[index]):
                for group in _chunks(list(members), self.batch_size):
                    batch = self._batch([asked[index] for index in group])
                    found = answer_batch(self.chat.loaded, batch, self.chat.end, limit.max_new_tokens)
                    for index, (text, _) in zip(group, found, strict=True):
                        answers[index] = limit.cut(text)
                    bar.update(len(group))
        return answers

    def loglikelihood(self, requests: list[Instance]) -> list[Any]:
        """Loss of each given answer, and whether greedy decoding would give it.

        Despite the method's name, lmms-eval's models return the mean negative log-likelihood, and the answer with the
        smallest value is chosen. The pairs are wrapped in ``GenerationResult`` where lmms-eval has it: version 0.7.3
        turns plain tuples into text and then cannot score them.
        """
        asked = [request.args for request in requests]
        order = sorted(range(len(asked)), key=lambda index: len(asked[index][0]))
        losses = [(0.0, False)] * len(asked)
        with self._progress(len(asked)) as bar:
            for group in _chunks(order, self.batch_size):
                for index, loss in zip(group, self._losses([asked[index] for index in group]), strict=True):
                    losses[index] = loss
                bar.update(len(group))
        wrap = getattr(instance, "GenerationResult", None)
        return losses if wrap is None else [wrap(loss) for loss in losses]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not supported.

        Raises:
            InputError: Always.
        """
        raise InputError("the align_ti model answers single questions; multi-round tasks are not supported")

    def _batch(self, asked: Sequence[tuple[Any, ...]]) -> Batch:
        """Prompts and pixel values of ``(context, options, doc_to_visual, doc_id, task, split)``."""
        prompts: list[Prompt] = []
        pictures: list[Image.Image] = []
        for context, _, doc_to_visual, doc_id, task, split in asked:
            own = pictures_of(doc_to_visual(self.task_dict[task][split][doc_id]))
            turn = human_turn(context, len(own), self.chat.loaded.model.config)
            text = "".join(segment.text for segment in self.chat.template.compose([(HUMAN, turn)]))
            ids = tokenizer_image_token(text, self.chat.loaded.tokenizer)
            assert isinstance(ids, list)
            prompts.append(Prompt(Question(doc_id, context), ids))
            pictures += own
        return Batch(prompts, self._pixels(pictures), list(range(len(pictures))))

    def _losses(self, asked: Sequence[tuple[Any, ...]]) -> list[tuple[float, bool]]:
        """Losses of ``(context, answer, doc_to_visual, doc_id, task, split)``."""
        samples = []
        pictures: list[Image.Image] = []
        for context, answer, doc_to_visual, doc_id, task, split in asked:
            document = self.task_dict[task][split][doc_id]
            own = pictures_of(doc_to_visual(document))
            target = str(answer(document) if callable(answer) else answer)
            turn = human_turn(context, len(own), self.chat.loaded.model.config)
            segments = self.chat.template.compose([(HUMAN, turn), (ASSISTANT, target.strip())])
            samples.append(tokenize_segments(segments, self.chat.loaded.tokenizer))
            pictures += own
        return answer_losses(self.chat.loaded.model, samples, self._pixels(pictures))

    def _pixels(self, pictures: Sequence[Image.Image]) -> Tensor | None:
        if not pictures:
            return None
        return process_images(pictures, self.chat.loaded.image_processor, self.chat.loaded.model.config)

    def _warn_of_sampling(self, all_options: Iterable[Any]) -> None:
        if not self._warned_of_sampling and any(asks_for_sampling(options) for options in all_options):
            self._warned_of_sampling = True
            logger.warning("the task asks for sampling or beam search; answers are greedy, as in llava.eval")

    def _progress(self, total: int) -> Any:
        return tqdm(total=total, desc="align_ti", unit="request", disable=None if self._rank == 0 else True)


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
