"""Prompt templates: a conversation becomes a list of text segments that know what they are.

A :class:`Template` is plain data (its strings). Rendering never looks into rendered text again: what is a
target and what is the user's own wording is decided while the segments are made, and the tokenizer's offsets
carry that over to tokens (``llava.data.tokenize``). :class:`Conversation` is the mutable object that programs
written for LLaVA expect; it prints its prompt through a template.

A new template is one more :class:`Template` in the table at the end of this file.
"""

from collections.abc import Mapping, Sequence
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
    """The layouts in LLaVA's words, for programs that ask a conversation for its ``sep_style``."""

    TWO = "two"
    CHATML = "chatml"
    PLAIN = "plain"


@dataclass(frozen=True)
class Segment:
    """A piece of a rendered conversation.

    Attributes:
        text: The characters, ``<image>`` for an image.
        is_target: The model learns to produce this text.
        is_instruction: The human's own words: no system text, no role tag, no image marker, not the newline
            after an image. The space that parts a role tag from the first word belongs to the word, since
            tokenizers make one token of both.
        is_image: An image stands here.
        is_end_of_turn: The string that closes an assistant turn; a target as well.
    """

    text: str
    is_target: bool = False
    is_instruction: bool = False
    is_image: bool = False
    is_end_of_turn: bool = False


@dataclass(frozen=True)
class Template:
    """The strings around the turns of a conversation.

    One exchange reads
    ``{user_role}{role_end}{gap}{question}{after_user}{assistant_role}{role_end}{gap}{answer}
    {end_of_turn}{after_turn}``, and ``system`` (its own separator included) stands in front of the first.

    Attributes:
        name: What users pass as ``--version``.
        system: Text in front of everything.
        user_role, assistant_role: Role tags, without ``role_end``.
        role_end: What follows a role tag; a prompt for inference ends in it.
        gap: What parts ``role_end`` from the text. In front of an answer it is a target.
        after_user: What closes a human turn.
        end_of_turn: What closes an assistant turn; a target, and the stop string of generation.
        after_turn: What follows ``end_of_turn``; not a target.
        captions_only: Human words are dropped, only their images stay (LLaVA's ``plain`` pretraining).
        style: The layout's name in LLaVA.
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
        """Segments of a conversation, images first within each human turn.

        Args:
            turns: ``("human", text)`` and ``("gpt", text)`` in turn, beginning with the human. Without an
                answer to the last human turn the result is a prompt for inference.

        Raises:
            InputError: Another speaker than ``human`` and ``gpt``, or the wrong order.
        """
        return self.compose([(who, images_first(text) if who == HUMAN else text) for who, text in turns])

    def compose(self, turns: Sequence[tuple[str, str]]) -> list[Segment]:
        """As :meth:`render`, but every ``<image>`` stays where it stands."""
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
        """The rendered text, ``<image>`` markers included."""
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

    This is what LLaVA does before training (it keeps one marker; here a turn with several keeps them all, in
    order). Text with images is stripped of surrounding white space, so a turn of nothing but an image is the
    bare marker; text without images is left alone.
    """
    count = text.count(DEFAULT_IMAGE_TOKEN)
    if count == 0:
        return text
    words = text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
    return ((DEFAULT_IMAGE_TOKEN + "\n") * count + words).strip()


@dataclass
class Conversation:
    """LLaVA's conversation object: append turns, read the prompt.

    ``messages`` holds ``[role, text]`` lists, and a text of ``None`` (or "") asks for the assistant's turn.
    Texts are taken as they are: ``<image>`` is not moved.
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
        """The layout in LLaVA's words."""
        return self.template.style

    @property
    def sep(self) -> str:
        """What closes a human turn."""
        return self.template.after_user

    @property
    def sep2(self) -> str:
        """What closes an assistant turn."""
        return self.template.end_of_turn

    @property
    def stop_str(self) -> str:
        """The string at which generation is over."""
        return self.template.end_of_turn

    def append_message(self, role: str, message: str | None) -> None:
        """Add a turn; ``role`` is one of :attr:`roles`, ``message`` is None for the answer to come."""
        self.messages.append([role, message])

    def get_prompt(self) -> str:
        """The conversation as text.

        Raises:
            InputError: Turns that do not alternate, or a missing text anywhere but in the last turn.
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
"""All templates by name; several names may mean the same template."""

conv_templates: dict[str, Conversation] = {
    name: Conversation(template, system=template.system) for name, template in TEMPLATES.items()
}
"""A fresh conversation for each template, to be copied before use (LLaVA's name for it)."""


USUAL_TEMPLATES = {"llava_llama": "v1"}
"""Template of a checkpoint whose config names none (LLaVA's own do not), by model type; otherwise ``qwen``."""


def get_template(name: str) -> Template:
    """The template called ``name``.

    Raises:
        InputError: No such template; the message lists the known ones.
    """
    if name not in TEMPLATES:
        raise InputError(f"unknown prompt template {name!r}; known templates: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[name]
