"""A conversation with one model about one image: its history, and the prompt of the next answer."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.conversation import Segment, turns_to_answer
from llava.errors import InputError
from llava.inference.checkpoint import ChatModel
from llava.inference.sampling import Sampling
from llava.mm_utils import process_images, tokenizer_image_token
from llava.serve.streaming import AnswerStream
from llava.serve.timing import Timing


class Chat:
    """Alternating questions and answers. The image, if any, comes first in the first question, as in training;
    another image therefore needs another ``Chat``.

    Attributes:
        exchanges: ``(question, answer)`` pairs so far.
        finish: How the last answer ended: ``stop``, ``length`` or ``interrupted``.
        timing: Speed of the last answer; None before the first, and if no token was generated.
    """

    def __init__(self, model: ChatModel, picture: Image.Image | None = None) -> None:
        self.model, self.picture = model, picture
        self.exchanges: list[tuple[str, str]] = []
        self.finish = ""
        self.timing: Timing | None = None
        self._features: Tensor | None = None
        self._stream: AnswerStream | None = None
        self._halted = False

    def ask(self, question: str, sampling: Sampling) -> Iterator[str]:
        """Stream the answer to a question, and add both to the history.

        If an answer is stopped, or its iteration is left, the part that was shown is kept; a question without any
        answer is dropped.

        Raises:
            InputError: The question is empty, it contains ``<image>`` without an image, or the context is full.
        """
        asked = time.perf_counter()
        self._halted = False
        question = self.clean(question)
        ids = self.ids(self.segments(question))
        sampling = self._within_context(ids, sampling)
        self._stream = stream = AnswerStream(self.model, ids, self.features(), sampling, asked)
        if self._halted:  # stopped while the image was prepared
            stream.stop()
        try:
            with closing(iter(stream)) as pieces:  # type: ignore[type-var]
                yield from pieces
        finally:
            self.finish, self.timing, self._stream = stream.finish, stream.timing, None
            if stream.text or stream.finish in ("stop", "length"):
                self.exchanges.append((question, stream.text))

    def stop(self) -> None:
        """Stop the answer in progress, if there is one; may be called from another thread."""
        self._halted = True
        stream = self._stream
        if stream is not None:
            stream.stop()

    def clean(self, question: str) -> str:
        """The question to ask: stripped, without LLaVA's ``<image>`` marker.

        Raises:
            InputError: Nothing is left, or there is an ``<image>`` without an image.
        """
        if DEFAULT_IMAGE_TOKEN in question and self.picture is None:
            raise InputError(f"the question contains {DEFAULT_IMAGE_TOKEN}, but no picture is loaded")
        question = question.replace(DEFAULT_IMAGE_TOKEN, "").strip()
        if not question:
            raise InputError("the question is empty")
        return question

    def segments(self, question: str, history: Sequence[tuple[str, str]] | None = None) -> list[Segment]:
        """The prompt of an answer in the model's template; only the words of the last question are marked as
        instruction.

        Args:
            question: A cleaned question.
            history: The exchanges before it; all so far by default.
        """
        earlier = self.exchanges if history is None else history
        turns = turns_to_answer(question, earlier, with_image=self.picture is not None)
        template = self.model.template
        before = len(template.compose(turns[:-1])) if len(turns) > 1 else 0
        segments = [
            replace(segment, is_instruction=False) if index < before else segment
            for index, segment in enumerate(template.compose(turns))
        ]
        if not getattr(self.model.loaded.model.config, "mm_use_im_start_end", False):
            return segments
        start, end = Segment(DEFAULT_IM_START_TOKEN), Segment(DEFAULT_IM_END_TOKEN)
        return [part for segment in segments for part in ((start, segment, end) if segment.is_image else (segment,))]

    def ids(self, segments: Sequence[Segment]) -> list[int]:
        """Token ids of a prompt, -200 for the image."""
        ids = tokenizer_image_token("".join(segment.text for segment in segments), self.model.loaded.tokenizer)
        assert isinstance(ids, list)
        return ids

    def features(self) -> Tensor | None:
        """The vision tower's features of the image ``[1, Nv, Dv]``, computed once."""
        if self._features is None and self.picture is not None:
            loaded = self.model.loaded
            home = loaded.model.get_input_embeddings().weight
            pixels = process_images([self.picture], loaded.image_processor, loaded.model.config)
            with torch.no_grad():
                self._features = loaded.model.vision_features(pixels.to(device=home.device, dtype=home.dtype))
        return self._features

    def _within_context(self, ids: list[int], sampling: Sampling) -> Sampling:
        """The sampling settings, with the number of new tokens limited to the remaining context."""
        features = self.features()
        visual = 0 if features is None else features.shape[1] - 1
        used = len(ids) + visual * ids.count(IMAGE_TOKEN_INDEX)
        room = self.model.loaded.context_length - used
        if room < 1:
            raise InputError(
                f"the conversation is {used} tokens long, and {self.model.name} has a context of "
                f"{self.model.loaded.context_length}: start a new conversation"
            )
        return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))
