"""Prompt templates: a conversation is rendered to a list of text segments with known roles.

A :class:`Template` is plain data (its strings). Rendered text is never searched: whether text is a target or the user's
own words is decided when the segments are made, and the tokenizer's offsets transfer it to tokens
(``llava.data.tokenize``). :class:`Conversation` is the mutable object that programs written for LLaVA expect; it
renders its prompt with a template.

To add a template, add a :class:`Template` to the table at the end of this file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import InputError

HUMAN = "human"
ASSISTANT = "gpt"

_CHAT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


class SeparatorStyle(Enum):
    """LLaVA's names of the layouts, for programs that read a conversation's ``sep_style``."""

    TWO = "two"
    CHATML = "chatml"
    PLAIN = "plain"


@dataclass(frozen=True)
class Segment:
    """A piece of a rendered conversation.

    Attributes:
        text: The text; ``<image>`` for an image.
        is_target: Whether the model is trained to produce this text.
        is_instruction: Whether it is the human's own words, not system text, a role tag, an image marker or the newline
            after an image. The space between a role tag and the first word belongs to the word, since tokenizers make
            one token of both.
        is_image: Whether it is an image marker.
        is_end_of_turn: Whether it is the string that closes an assistant turn, which is also a target.
    """

    text: str
    is_target: bool = False
    is_instruction: bool = False
    is_image: bool = False
    is_end_of_turn: bool = False


@dataclass(frozen=True)
class Template:
    """The strings around the turns of a conversation.

    One exchange is rendered as
    ``{user_role}{role_end}{gap}{question}{after_user}{assistant_role}{role_end}{gap}{answer}{end_of_turn}{after_turn}``;
    ``system``, which includes its own separator, precedes the first exchange.

    Attributes:
        name: The template's name, the value of ``--version``.
        system: System prompt.
        user_role, assistant_role: Role tags, without ``role_end``.
        role_end: Text after a role tag; a prompt for inference ends with it.
        gap: Text between ``role_end`` and a turn's text. In front of an answer it is a target.
        after_user: Text that closes a human turn.
        end_of_turn: Text that closes an assistant turn; a target, and the stop string of generation.
        after_turn: Text after ``end_of_turn``; not a target.
        captions_only: Whether the human's words are dropped and only the images kept (LLaVA's ``plain`` pretraining).
        style: LLaVA's name of the layout.
    """

    name: str
    system: str = ""
    user_role: str = ""
    assistant_role: str = ""
    role_end: str = ""
    gap: str = ""
    after_user: str = ""
    end_of_turn: str = ""
    after_turn: str = ""
    captions_only: bool = False
    style: SeparatorStyle = SeparatorStyle.TWO

    def render(self, turns: Sequence[tuple[str, str]]) -> list[Segment]:
        """Segments of a conversation, with the images first in each human turn.

        Args:
            turns: ``("human", text)`` and ``("gpt", text)`` alternating, beginning with the human. If the last human
                turn has no answer, the result is a prompt for inference.

        Raises:
            InputError: A speaker is neither ``human`` nor ``gpt``, or the order is wrong.
        """
        return self.compose([(who, images_first(text) if who == HUMAN else text) for who, text in turns])

    def compose(self, turns: Sequence[tuple[str, str]]) -> list[Segment]:
        """Like :meth:`render`, but every ``<image>`` stays where it is."""
        segments = [Segment(self.system)] if self.system else []
        for index, (who, text) in enumerate(turns):
            expected = (HUMAN, ASSISTANT)[index % 2]
            if who != expected:
                raise InputError(
                    f"turn {index} of the conversation is from {who!r}, expected {expected!r}: "
                    f"turns alternate between {HUMAN!r} and {ASSISTANT!r}, beginning with {HUMAN!r}"
                )
            segments += self._human(text) if who == HUMAN else self._answer(text)
        if turns and len(turns) % 2:
            segments.append(Segment(self.assistant_role + self.role_end))
        return [segment for segment in segments if segment.text]

    def prompt(self, turns: Sequence[tuple[str, str]]) -> str:
        """The rendered text, including ``<image>`` markers."""
        return "".join(segment.text for segment in self.render(turns))

    def _human(self, text: str) -> list[Segment]:
        pieces = text.split(DEFAULT_IMAGE_TOKEN)
        if self.captions_only:
            return [Segment(DEFAULT_IMAGE_TOKEN, is_image=True)] * (len(pieces) - 1)
        if len(pieces) == 1:
            words = [Segment(self.gap + text, is_instruction=True)]
        else:
            words = [Segment(self.gap)]
            for index, piece in enumerate(pieces):
                if index:
                    words.append(Segment(DEFAULT_IMAGE_TOKEN, is_image=True))
                if index and piece.startswith("\n"):
                    words.append(Segment("\n"))
                    piece = piece[1:]
                words.append(Segment(piece, is_instruction=bool(piece.strip())))
        return [Segment(self.user_role + self.role_end), *words, Segment(self.after_user)]

    def _answer(self, text: str) -> list[Segment]:
        return [
            Segment(self.assistant_role + self.role_end),
            Segment(self.gap + text, is_target=True),
            Segment(self.end_of_turn, is_target=True, is_end_of_turn=True),
            Segment(self.after_turn),
        ]


def images_first(text: str) -> str:
    """Move the ``<image>`` markers of a human turn to its front, each followed by a newline.

    LLaVA does this before training (but keeps only one marker per turn; here all are kept). Surrounding white space is
    stripped from text with images, so a turn with only an image is the bare marker; text without images is unchanged.
    """
    count = text.count(DEFAULT_IMAGE_TOKEN)
    if count == 0:
        return text
    words = text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
    return ((DEFAULT_IMAGE_TOKEN + "\n") * count + words).strip()


def turns_to_answer(
    question: str, history: Iterable[tuple[str, str]] = (), with_image: bool = False
) -> list[tuple[str, str]]:
    """The turns of a prompt: earlier exchanges and the question, with the image's marker in front of the first.

    Args:
        question: What is asked, without a marker.
        history: Earlier exchanges, each the user's text and the assistant's answer.
        with_image: Whether the conversation is about an image.
    """
    turns = [turn for asked, answered in history for turn in ((HUMAN, asked), (ASSISTANT, answered))]
    turns.append((HUMAN, question))
    if with_image:
        turns[0] = (HUMAN, f"{DEFAULT_IMAGE_TOKEN}\n{turns[0][1]}")
    return turns


@dataclass
class Conversation:
    """LLaVA's conversation object: append turns, then get the prompt.

    ``messages`` holds ``[role, text]`` lists; a text of None (or "") stands for the assistant's answer to come. Texts
    are not changed: ``<image>`` is not moved.
    """

    template: Template
    messages: list[list[Any]] = field(default_factory=list)
    system: str = ""
    tokenizer: Any = None

    @property
    def roles(self) -> tuple[str, str]:
        """Role tags of the human and of the assistant."""
        return (self.template.user_role, self.template.assistant_role)

    @property
    def version(self) -> str:
        """The template's name."""
        return self.template.name

    @property
    def sep_style(self) -> SeparatorStyle:
        """LLaVA's name of the layout."""
        return self.template.style

    @property
    def sep(self) -> str:
        """Text that closes a human turn."""
        return self.template.after_user

    @property
    def sep2(self) -> str:
        """Text that closes an assistant turn."""
        return self.template.end_of_turn

    @property
    def stop_str(self) -> str:
        """The stop string of generation."""
        return self.template.end_of_turn

    def append_message(self, role: str, message: str | None) -> None:
        """Add a turn; ``role`` is one of :attr:`roles`, ``message`` is None for the answer to come."""
        self.messages.append([role, message])

    def get_prompt(self) -> str:
        """The conversation as text.

        Raises:
            InputError: A text other than the last one is missing.
        """
        turns = []
        for index, (_, message) in enumerate(self.messages):
            if not message:
                if index + 1 < len(self.messages):
                    raise InputError(f"message {index} of the conversation is empty; only the last one may be")
                break
            turns.append((HUMAN if index % 2 == 0 else ASSISTANT, message))
        template = replace(self.template, system=self.system)
        return "".join(segment.text for segment in template.compose(turns))

    def copy(self) -> "Conversation":
        """An independent conversation with the same turns."""
        return replace(self, messages=[list(message) for message in self.messages])


def _two_separators(name: str, end_of_turn: str, system: str = _CHAT + " ") -> Template:
    return Template(
        name=name,
        system=system,
        user_role="USER",
        assistant_role="ASSISTANT",
        role_end=":",
        gap=" ",
        after_user=" ",
        end_of_turn=end_of_turn,
    )


_PLAIN = Template(name="plain", end_of_turn="\n", captions_only=True, style=SeparatorStyle.PLAIN)
_V1 = _two_separators("v1", "</s>")
_QWEN = _two_separators("qwen", "<|endoftext|>")
_QWEN_BARE = _two_separators("qwen_bare", "<|endoftext|>", system="")
_CHATML = Template(
    name="qwen_2",
    system="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
    user_role="<|im_start|>user",
    assistant_role="<|im_start|>assistant",
    role_end="\n",
    after_user="<|im_end|>\n",
    end_of_turn="<|im_end|>",
    after_turn="\n",
    style=SeparatorStyle.CHATML,
)

TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {
        "plain": _PLAIN,
        "v1": _V1,
        "vicuna_v1": _V1,
        "qwen": _QWEN,
        "qwen_bare": _QWEN_BARE,
        "qwen_2": _CHATML,
        "qwen_1_5": _CHATML,
        "chatml": _CHATML,
    }
)
"""All templates by name; a template may have several names."""

conv_templates: dict[str, Conversation] = {
    name: Conversation(template, system=template.system) for name, template in TEMPLATES.items()
}
"""An empty conversation for each template; copy it before use. The name is LLaVA's."""


USUAL_TEMPLATES = {"llava_llama": "v1"}
"""Template by model type, for checkpoints whose config names none (as LLaVA's own); otherwise ``qwen``."""


def get_template(name: str) -> Template:
    """The template called ``name``.

    Raises:
        InputError: There is no such template; the message lists the known ones.
    """
    if name not in TEMPLATES:
        raise InputError(f"unknown prompt template {name!r}; known templates: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[name]
