"""Jinja against ``llava.conversation``, byte for byte."""

from dataclasses import replace

import jinja2
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from llava.conversation import ASSISTANT, HUMAN, TEMPLATES, conv_templates
from llava.export.chat_template import chat_template, messages_of, recognise, system_frame

DISTINCT = {template.name: template for template in TEMPLATES.values()}

TALKS = {
    "question": [(HUMAN, "What is it?")],
    "picture": [(HUMAN, "<image>\nWhat is it?")],
    "picture last": [(HUMAN, "  What is it?\n<image>")],
    "picture within": [(HUMAN, "Is this <image> it?")],
    "picture only": [(HUMAN, "<image>"), (ASSISTANT, "A goat.")],
    "two pictures": [
        (HUMAN, "<image><image> Compare. "),
        (ASSISTANT, " They differ.\n"),
        (HUMAN, "<image>\nAnd this?"),
    ],
    "spaces stay": [(HUMAN, "  \n text "), (ASSISTANT, "")],
    "quotes": [(HUMAN, "{{ 'a' }} \"b\" \\n {% if x %} ä 猫"), (ASSISTANT, "<b>&amp;")],
    "several turns": [
        (HUMAN, "<image>\nOne?"),
        (ASSISTANT, "1."),
        (HUMAN, "Two?"),
        (ASSISTANT, "2."),
        (HUMAN, "Three?"),
    ],
}


def render(jinja: str, messages, prompt: bool) -> str:
    return render_jinja_template([messages], chat_template=jinja, add_generation_prompt=prompt)[0][0]


def as_strings(turns, system=None):
    roles = {HUMAN: "user", ASSISTANT: "assistant"}
    lead = [] if system is None else [{"role": "system", "content": system}]
    return lead + [{"role": roles[who], "content": text} for who, text in turns]


@pytest.mark.parametrize("content", [messages_of, as_strings])
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", DISTINCT)
def test_same_bytes(name, talk, content):
    template, turns = DISTINCT[name], TALKS[talk]
    got = render(chat_template(template), content(turns), prompt=len(turns) % 2 == 1)
    assert got == template.prompt(turns)


@pytest.mark.parametrize("content", [messages_of, as_strings])
@pytest.mark.parametrize("name", sorted(DISTINCT.keys() - {"plain"}))
def test_a_system_message_takes_the_place_of_the_templates_own(name, content):
    template, turns = DISTINCT[name], TALKS["several turns"]
    before, after = system_frame(template)
    want = replace(template, system=before + "Be brief." + after).prompt(turns)
    assert render(chat_template(template), content(turns, "Be brief."), prompt=True) == want
    assert "Be brief." in want and (not template.system or template.system not in want)
    if template.system:  # the frame is the one around the template's own system text
        assert template.system.startswith(before) and template.system.endswith(after)


def test_it_is_what_the_conversation_object_prints():
    conversation = conv_templates["v1"].copy()
    for role, text in zip(conversation.roles * 2, ["<image>\nOne?", "1.", "Two?", None], strict=True):
        conversation.append_message(role, text)
    turns = TALKS["several turns"][:2] + [(HUMAN, "Two?")]
    got = render(chat_template(DISTINCT["v1"]), messages_of(turns), prompt=True)
    assert got == conversation.get_prompt()


def test_without_generation_prompt_nothing_is_left_open():
    got = render(chat_template(DISTINCT["qwen_2"]), messages_of(TALKS["question"]), prompt=False)
    assert got.endswith("What is it?<|im_end|>\n")


@pytest.mark.parametrize("roles", [["assistant"], ["user", "user"], ["user", "system"], ["user", "tool"]])
def test_wrong_order_is_an_error(roles):
    messages = [{"role": role, "content": "x"} for role in roles]
    with pytest.raises(jinja2.TemplateError, match="must alternate"):
        render(chat_template(DISTINCT["qwen"]), messages, prompt=True)


def test_marker_and_space():
    v1 = DISTINCT["v1"]
    turns = TALKS["two pictures"]
    marked = render(chat_template(v1, "<im_start><image><im_end>"), messages_of(turns), prompt=True)
    assert marked == v1.prompt(turns).replace("<image>", "<im_start><image><im_end>")
    spaced = render(chat_template(v1, spaced=True), messages_of(turns), prompt=True)
    assert spaced == v1.prompt(turns).replace("<image>\n", "<image> \n")
    only = render(chat_template(v1, spaced=True), messages_of(TALKS["picture only"]), prompt=False)
    assert only == v1.prompt(TALKS["picture only"])  # a space follows there anyway


@pytest.mark.parametrize("name", DISTINCT)
def test_recognised(name):
    class Processor:
        def apply_chat_template(self, messages, add_generation_prompt):
            return render(jinja, messages, add_generation_prompt)

    jinja = chat_template(DISTINCT[name])
    assert TEMPLATES[recognise(Processor())] is DISTINCT[name]
    jinja = jinja.replace("USER:", "HUMAN:").replace("|im_start|", "|start|")
    assert name == "plain" or recognise(Processor()) is None
    jinja = "{{ raise_exception('no') }}"
    assert recognise(Processor()) is None
