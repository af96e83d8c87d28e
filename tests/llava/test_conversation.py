import copy

import pytest

from llava.conversation import (
    TEMPLATES,
    Segment,
    Template,
    conv_templates,
    get_template,
    images_first,
)
from llava.errors import InputError

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
TURNS = [("human", "<image>\nWhat is it?"), ("gpt", "A goat."), ("human", "Sure?"), ("gpt", "Yes.")]


def marked(segments, mark):
    return [segment.text for segment in segments if getattr(segment, mark)]


@pytest.mark.parametrize(("name", "end"), [("v1", "</s>"), ("qwen", "<|endoftext|>")])
def test_two_separator_prompt(name, end):
    expected = f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT: A goat.{end}USER: Sure? ASSISTANT: Yes.{end}"
    assert get_template(name).prompt(TURNS) == expected


def test_chatml_prompt():
    expected = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\nA goat.<|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
    )
    for name in ("qwen_2", "chatml", "qwen_1_5"):
        assert get_template(name).prompt(TURNS) == expected


def test_plain_keeps_only_image_and_caption():
    segments = get_template("plain").render([("human", "Describe <image> briefly."), ("gpt", "A goat.")])
    assert segments == [
        Segment("<image>", is_image=True),
        Segment("A goat.", is_target=True),
        Segment("\n", is_target=True, is_end_of_turn=True),
    ]


def test_inference_prompts_end_without_a_space():
    assert get_template("qwen").prompt(TURNS[:1]) == f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT:"
    assert get_template("chatml").prompt(TURNS[:1]).endswith("What is it?<|im_end|>\n<|im_start|>assistant\n")
    assert get_template("plain").prompt(TURNS[:1]) == "<image>"


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_inference_prompt_is_what_training_saw_before_the_target(name):
    template = get_template(name)
    segments = template.render(TURNS[:2])
    first_target = next(index for index, segment in enumerate(segments) if segment.is_target)
    assert template.prompt(TURNS[:1]) == "".join(segment.text for segment in segments[:first_target])
    rest = "".join(segment.text for segment in segments[first_target:] if segment.is_target)
    assert rest == template.gap + "A goat." + template.end_of_turn


@pytest.mark.parametrize("name", ["v1", "qwen", "chatml"])
def test_marks(name):
    template = get_template(name)
    segments = template.render(TURNS)
    assert marked(segments, "is_target") == [
        template.gap + "A goat.",
        template.end_of_turn,
        template.gap + "Yes.",
        template.end_of_turn,
    ]
    assert marked(segments, "is_end_of_turn") == [template.end_of_turn] * 2
    assert marked(segments, "is_instruction") == ["What is it?", template.gap + "Sure?"]
    assert marked(segments, "is_image") == ["<image>"]
    assert not any(segment.is_target and segment.is_instruction for segment in segments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no picture ", "no picture "),
        ("<image>", "<image>"),
        ("What is this? <image>", "<image>\nWhat is this?"),
        ("  Left <image> right\n", "<image>\nLeft  right"),
        ("<image><image>Compare.", "<image>\n<image>\nCompare."),
        ("<image> or <image>?", "<image>\n<image>\nor ?"),
    ],
)
def test_images_first(text, expected):
    assert images_first(text) == expected
    assert images_first(expected) == expected


def test_several_images_keep_their_number_and_are_not_instruction():
    segments = get_template("qwen").render([("human", "<image> or <image>?"), ("gpt", "Left.")])
    assert marked(segments, "is_image") == ["<image>"] * 2
    assert marked(segments, "is_instruction") == ["or ?"]


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([("gpt", "Hello.")], "turn 0 .* 'gpt', expected 'human'"),
        ([("human", "a"), ("human", "b")], "turn 1 .* 'human', expected 'gpt'"),
        ([("user", "a")], "turn 0 .* 'user', expected 'human'"),
    ],
)
def test_wrong_order_is_an_error(turns, words):
    with pytest.raises(InputError, match=words):
        get_template("v1").render(turns)


def test_unknown_template_lists_the_known_ones():
    with pytest.raises(InputError, match="'vicuna_v9'.*chatml.*plain.*qwen.*v1"):
        get_template("vicuna_v9")


def test_a_new_template_is_only_data():
    template = Template(name="qa", user_role="Q", assistant_role="A", role_end=":", gap=" ", after_user="\n",
                        end_of_turn="\n\n")  # fmt: skip
    assert template.prompt([("human", "1+1?"), ("gpt", "2")]) == "Q: 1+1?\nA: 2\n\n"


def test_conversation_as_evaluation_programs_use_it():
    conversation = conv_templates["qwen"].copy()
    conversation.append_message(conversation.roles[0], "<image>\nWhat is it?")
    conversation.append_message(conversation.roles[1], None)
    assert conversation.get_prompt() == get_template("qwen").prompt(TURNS[:1])
    conversation.messages[1][1] = "A goat."
    assert conversation.get_prompt() == get_template("qwen").prompt(TURNS[:2])
    assert conversation.stop_str == conversation.sep2 == "<|endoftext|>"
    assert conversation.roles == ("USER", "ASSISTANT")
    assert conversation.tokenizer is None


@pytest.mark.parametrize("duplicate", [lambda c: c.copy(), copy.deepcopy])
def test_conversation_copies_are_independent(duplicate):
    conversation = duplicate(conv_templates["chatml"])
    conversation.append_message(conversation.roles[0], "Hi")
    conversation.system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert conv_templates["chatml"].messages == []
    other = duplicate(conversation)
    other.messages[0][1] = "Bye"
    assert conversation.get_prompt() == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_conversation_leaves_images_where_they_are():
    conversation = conv_templates["v1"].copy()
    conversation.append_message("USER", "<image> <image>\nCompare.")
    conversation.append_message("ASSISTANT", None)
    assert conversation.get_prompt() == f"{SYSTEM} USER: <image> <image>\nCompare. ASSISTANT:"


def test_conversation_with_a_hole_is_an_error():
    conversation = conv_templates["v1"].copy()
    conversation.append_message("USER", None)
    conversation.append_message("ASSISTANT", "Hm.")
    with pytest.raises(InputError, match="message 0"):
        conversation.get_prompt()
