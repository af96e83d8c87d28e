"""A trained model for asking questions from Python."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import PreTrainedTokenizerBase

from llava.data.images import load_image, to_rgb
from llava.inference.checkpoint import ChatModel
from llava.inference.sampling import Sampling
from llava.model.protocol import VisionLanguageModel
from llava.serve.chat import Chat


@dataclass(frozen=True)
class Checkpoint:
    """A model ready for use.

    Attributes:
        chat: The model, its tokenizer, image processor and prompt template.
    """

    chat: ChatModel

    def ask(
        self,
        image: str | Path | Image.Image | None,
        question: str,
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
    ) -> str:
        """The model's answer to one question.

        Args:
            image: A file, a PIL image, or None for a question without one.
            question: The question as plain text.
            max_new_tokens: Maximum length of the answer in tokens.
            temperature: 0 for greedy decoding; above 0, tokens are sampled (seed: ``torch.manual_seed``).
            top_p: Sample from the most likely tokens that together reach this probability.

        Raises:
            InputError: The file is not an image, or the question is empty or too long.
        """
        picture = load_image(image) if isinstance(image, str | Path) else None if image is None else to_rgb(image)
        sampling = Sampling(temperature, top_p, max_new_tokens)
        return "".join(Chat(self.chat, picture).ask(question, sampling))

    @property
    def model(self) -> VisionLanguageModel:
        """The model itself, in evaluation mode."""
        return self.chat.loaded.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self.chat.loaded.tokenizer


def load(path: str | Path, base: str | None = None, **options: Any) -> Checkpoint:
    """Load a LLaVA-style checkpoint, ready for questions.

    Args:
        path: Folder of a run or a checkpoint, or a hub name.
        base: The language model that a projector-only checkpoint belongs to.
        options: ``device``, ``dtype``, ``template``, ``load_4bit`` and so on, see
            ``llava.inference.checkpoint.ChatModel.load``.

    Raises:
        InputError: It is not a LLaVA-style checkpoint.
    """
    return Checkpoint(ChatModel.load(str(path), base, **options))
