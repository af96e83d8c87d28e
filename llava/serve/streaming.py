"""An answer that is streamed and can be stopped."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from llava.inference.checkpoint import ChatModel
from llava.inference.end_of_turn import EndOfTurn
from llava.inference.sampling import Sampling
from llava.serve.timing import Timing


class AnswerStream:
    """An answer being generated. Iterate over it for pieces of text; together they are ``text``.

    Generation runs in its own thread during the iteration. It ends early if ``stop`` is called or the iteration is
    left.

    Attributes:
        text: The answer so far, stripped; complete once the iteration is over.
        finish: ``stop``, ``length`` or ``interrupted``; empty before the end.
        timing: Speed of the answer; None before the end, and if no token was generated.
    """

    def __init__(
        self, model: ChatModel, ids: list[int], features: Tensor | None, sampling: Sampling, asked: float
    ) -> None:
        """
        Args:
            model: The model.
            ids: Token ids of the prompt, -200 for each image.
            features: Features of the images, ``[N, Nv, Dv]``.
            sampling: Sampling settings and maximum number of tokens.
            asked: Time of the question, from ``time.perf_counter``.
        """
        self.model, self.ids, self.features, self.sampling, self.asked = model, ids, features, sampling, asked
        self.text, self.finish = "", ""
        self.timing: Timing | None = None
        self._stopped = False  # no Event: its lock must not be taken in a signal handler

    def stop(self) -> None:
        """End the answer after the current token; may be called from another thread or a signal handler."""
        self._stopped = True

    def __iter__(self) -> Iterator[str]:
        streamer = _SettledText(self.model.end, self.sampling.max_new_tokens)
        failures: list[BaseException] = []
        thread = threading.Thread(target=self._generate, args=(streamer, failures), daemon=True)
        thread.start()
        try:
            for piece in streamer:
                if piece:
                    self.text += piece
                    yield piece
            interrupted = self._stopped
        except BaseException:
            interrupted = True
            raise
        finally:
            self._stopped = True
            thread.join()
            self.finish = "interrupted" if interrupted else streamer.finish
            if streamer.times:
                first, last = (moment - self.asked for moment in (streamer.times[0], streamer.times[-1]))
                self.timing = Timing(first, last, len(streamer.tokens))
        if failures:
            raise failures[0]
        if not interrupted:
            self.text = streamer.text

    def _generate(self, streamer: "_SettledText", failures: list[BaseException]) -> None:
        model, end = self.model.loaded.model, self.model.end
        home = model.get_input_embeddings().weight.device
        pictures = {} if self.features is None else {"vision_features": self.features}
        ids = torch.tensor([self.ids], device=home)
        try:
            with torch.inference_mode():
                model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    **pictures,
                    **self.sampling.arguments(),
                    eos_token_id=end.ids or None,
                    pad_token_id=end.pad_id,
                    stopping_criteria=StoppingCriteriaList([*(end.criteria() or []), _Stopped(lambda: self._stopped)]),
                    streamer=streamer,
                )
        except BaseException as error:  # raised again in the thread that reads the pieces
            failures.append(error)
        finally:
            streamer.end()


class _SettledText(TextIteratorStreamer):
    """Emits text as soon as later tokens cannot change it.

    All tokens so far are decoded again with each new one, and cut as in evaluation. Incomplete characters, trailing
    white space and a possible beginning of the end-of-turn string are held back.
    """

    def __init__(self, end: EndOfTurn, max_new_tokens: int) -> None:
        super().__init__(end.tokenizer, skip_prompt=True)
        self.end_of_turn, self.max_new_tokens = end, max_new_tokens
        self.tokens: list[int] = []
        self.times: list[float] = []  # arrival time of each token
        self.text, self.finish, self.shown = "", "", ""

    def put(self, value: Tensor) -> None:
        """Add the next tokens; the first call is the prompt."""
        if self.next_tokens_are_prompt:
            self.next_tokens_are_prompt = False
            return
        self.tokens += value.flatten().tolist()
        self.times.append(time.perf_counter())
        self._read()
        self._show(self._settled(), stream_end=False)

    def end(self) -> None:
        """Emit the rest."""
        self._read()
        self._show(self.text, stream_end=True)

    def _read(self) -> None:
        self.text, self.finish = self.end_of_turn.read(self.tokens, self.max_new_tokens)

    def _settled(self) -> str:
        text, mark = self.text.rstrip("\ufffd"), self.end_of_turn.text
        for length in range(min(len(mark), len(text)), 0, -1):
            if text.endswith(mark[:length]):
                text = text[:-length]
                break
        return text.rstrip()

    def _show(self, text: str, stream_end: bool) -> None:
        piece = text[len(self.shown) :] if text.startswith(self.shown) else ""
        self.shown += piece
        self.on_finalized_text(piece, stream_end=stream_end)


class _Stopped(StoppingCriteria):
    """True once ``stopped`` returns True."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self.stopped = stopped

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:  # type: ignore[override]
        return torch.full((input_ids.shape[0],), self.stopped(), dtype=torch.bool, device=input_ids.device)
