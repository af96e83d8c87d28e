"""A prompt template as Jinja, for ``processor.apply_chat_template`` and for servers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from transformers import ProcessorMixin

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import ASSISTANT, HUMAN, TEMPLATES, SeparatorStyle, Template

ORDER = "The roles must alternate between 'user' and 'assistant', beginning with 'user'; 'system' may only stand first."

_BODY = """\
{%- set ns = namespace(turns=0, text='') -%}
{%- if not messages or messages[0]['role'] != 'system' -%}{{- @system -}}{%- endif -%}
{%- for message in messages -%}
{%- set ns.text = '' -%}
{%- if message['content'] is string -%}{%- set ns.text = message['content'] -%}
{%- else -%}{%- for part in message['content'] -%}
{%- if part['type'] in ['image', 'image_url'] -%}{%- set ns.text = ns.text + @image -%}
{%- elif part['type'] == 'text' -%}{%- set ns.text = ns.text + part['text'] -%}{%- endif -%}
{%- endfor -%}{%- endif -%}
{%- if message['role'] == 'system' and loop.first -%}
{{- @before_system + ns.text + @after_system if ns.text else '' -}}
{%- elif message['role'] == 'user' and ns.turns % 2 == 0 -%}
{%- set ns.turns = ns.turns + 1 -%}
{%- set images = ns.text.split(@image) | length - 1 -%}
@words
{{- @before_user + @user -}}
{%- elif message['role'] == 'assistant' and ns.turns % 2 == 1 -%}
{%- set ns.turns = ns.turns + 1 -%}
{{- @before_answer + ns.text + @after_answer -}}
{%- else -%}{{- raise_exception(@order) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- @prompt -}}{%- endif -%}"""

_IMAGES_FIRST = """\
{%- if images -%}
{%- set ns.text = (@image_line * images + ns.text.replace(@image, '').strip()).strip() -%}
{%- endif -%}"""

_IMAGES_ONLY = "{%- set ns.text = @image * images -%}"

_USER = "ns.text + @after_user"
_MARKED = "((ns.text + @after_user) | replace(@image, @marker))"
_SPACED = "((ns.text + @after_user) | replace(@image, @image + ' ') | replace(@image + '  ', @image + ' '))"


def system_frame(template: Template) -> tuple[str, str]:
    """The text before and after the system text in a template."""
    if template.style is SeparatorStyle.CHATML:
        return "<|im_start|>system" + template.role_end, template.after_user
    return "", template.after_user


def chat_template(template: Template, marker: str = DEFAULT_IMAGE_TOKEN, spaced: bool = False) -> str:
    """Jinja that renders the same as ``template.prompt``; a system message replaces the template's own.

    A message's content is a string (``<image>`` for an image) or a list of ``{"type": "image"}`` and
    ``{"type": "text", "text": ...}``, whose texts are concatenated. Images come first in their turn, each followed by a
    newline.

    Args:
        template: Prompt template.
        marker: Text written for an image; it contains ``<image>``.
        spaced: Write plain ``<image>``, always followed by a space.
    """
    before_system, after_system = system_frame(template)
    strings = {
        "before_system": before_system,
        "after_system": after_system,
        "before_user": template.user_role + template.role_end + template.gap,
        "after_user": template.after_user,
        "before_answer": template.assistant_role + template.role_end + template.gap,
        "after_answer": template.end_of_turn + template.after_turn,
        "image_line": DEFAULT_IMAGE_TOKEN + "\n",
        "system": template.system,
        "prompt": template.assistant_role + template.role_end,
        "marker": marker,
        "image": DEFAULT_IMAGE_TOKEN,
        "order": ORDER,
    }
    jinja = _BODY.replace("@words", _IMAGES_ONLY if template.captions_only else _IMAGES_FIRST)
    jinja = jinja.replace("@user", _SPACED if spaced else _USER if marker == DEFAULT_IMAGE_TOKEN else _MARKED)
    for name in sorted(strings, key=len, reverse=True):  # "image_line" before "image"
        jinja = jinja.replace("@" + name, json.dumps(strings[name]))
    return jinja


def messages_of(turns: Sequence[tuple[str, str]], system: str | None = None) -> list[dict[str, Any]]:
    """LLaVA's turns as messages for a chat template."""
    roles = {HUMAN: "user", ASSISTANT: "assistant"}
    messages = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system is not None else []
    for who, text in turns:
        parts: list[dict[str, str]] = []
        for index, piece in enumerate(text.split(DEFAULT_IMAGE_TOKEN)):
            parts += [{"type": "image"}] if index else []
            parts += [{"type": "text", "text": piece}] if piece else []
        messages.append({"role": roles[who], "content": parts})
    return messages


def recognise(processor: ProcessorMixin) -> str | None:
    """The name of the prompt template that a processor's chat template renders, or None."""
    turns = [(HUMAN, f"{DEFAULT_IMAGE_TOKEN}\nOne?"), (ASSISTANT, "Two."), (HUMAN, "Three?")]
    try:
        found = processor.apply_chat_template(messages_of(turns), add_generation_prompt=True)
    except Exception:  # an unknown template may raise anything; it is not one of ours
        return None
    return next((name for name, template in TEMPLATES.items() if template.prompt(turns) == found), None)
