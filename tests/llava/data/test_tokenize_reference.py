"""Ids and labels against a slow, separate rendition of LLaVA's published procedure.

The procedure: render the conversation as one string; tokenise it piece by piece around images; then find the
masks by splitting the string at the turn ends and at `` ASSISTANT: `` and tokenising every piece again to
count its tokens. Where those counts do not add up (its "tokenization mismatch") it gives up, and there is
nothing to compare.
"""

import random

import pytest

from llava.conversation import get_template
from llava.data.tokenize import tokenize_conversation
from llava.mm_utils import tokenizer_image_token

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
PIECES = [
    "goat", "apple", "What", "is", "there", "three", "Yes", "No", "A", "don't", "42", "3.14", "?", ".",
    "...", "!", ",", ":", "/", "<", ">", "</", "(a)", "🐐", "👩‍👩‍👧", "🇨🇭", "山羊", "ヤギ", "é", "e\u0301",
    "ß", "\u200b", "\t", "\n", "\n\n", "  ", "   ", "\r\n", "USER", "ASSISTANT", "image", "_", "▁", "\u00a0",
    "ÀÉ", "1.\n2.", "|im_end|",
]  # fmt: skip


def random_text(rng, most):
    words = [rng.choice(PIECES) for _ in range(rng.randint(1, most))]
    text = rng.choice(["", "", " "]).join(words) if rng.random() < 0.3 else " ".join(words)
    if rng.random() < 0.15:
        text = rng.choice([" ", "\n", "  "]) + text
    if rng.random() < 0.15:
        text += rng.choice([" ", "\n", "  "])
    return text if text.strip() else "goat"


def random_conversation(seed):
    rng = random.Random(seed)
    conversation = []
    images = 0
    for _ in range(rng.randint(1, 4)):
        question = random_text(rng, 8)
        if rng.random() < (0.6 if not images else 0.1):
            images += 1
            question = rng.choice([f"<image>\n{question}", f"{question}\n<image>", f"a <image> {question}"])
        conversation.append({"from": "human", "value": question})
        conversation.append({"from": "gpt", "value": random_text(rng, 14)})
    if rng.random() < 0.1:
        conversation.insert(0, {"from": "gpt", "value": "Welcome."})
    return conversation, images


def reference_ids(text, tokenizer):
    """Image sentinels between separately tokenised pieces; one BOS."""
    ids = []
    for number, piece in enumerate(text.split("<image>")):
        piece_ids = tokenizer(piece).input_ids
        bos = bool(piece_ids) and piece_ids[0] == tokenizer.bos_token_id
        if number:
            ids += [-200] + (piece_ids[1:] if bos else piece_ids)
        else:
            ids += piece_ids
    return ids


def reference_turns(conversation):
    if conversation[0]["from"] == "gpt":
        conversation = conversation[1:]
    texts = []
    for turn in conversation:
        text = turn["value"]
        if "<image>" in text:
            text = ("<image>\n" + text.replace("<image>", "").strip()).strip()
        texts.append(text)
    return texts


def reference_chat(conversation, tokenizer, turn_end):
    """Ids and labels of the `v1` and `qwen` layouts, or None where the counts do not add up."""
    prompt = SYSTEM + " "
    for number, text in enumerate(reference_turns(conversation)):
        prompt += ("USER: " + text + " ") if number % 2 == 0 else ("ASSISTANT: " + text + turn_end)
    ids = reference_ids(prompt, tokenizer)
    labels = list(ids)
    has_bos = tokenizer.bos_token_id is not None
    # A piece with BOS counts one token too many, which makes up for a turn end of one token.
    per_round = 0 if has_bos else len(tokenizer(turn_end).input_ids)
    after_space = 2 if has_bos else 1  # BOS, and the space that joins the answer's first word
    done = 1 if has_bos else 0
    labels[:done] = [-100] * done
    no_space_after_turn_end = has_bos and not tokenizer.init_kwargs["legacy"]
    for number, piece in enumerate(prompt.split(turn_end)):
        if piece == "":
            break
        halves = piece.split(" ASSISTANT: ")
        if len(halves) != 2:
            break
        length = len(reference_ids(piece, tokenizer)) + per_round
        asked = len(reference_ids(halves[0] + " ASSISTANT: ", tokenizer)) - after_space
        if number and no_space_after_turn_end:
            length -= 1
            asked -= 1
        labels[done : done + asked] = [-100] * asked
        done += length
    return (ids, labels) if done == len(ids) else None


def reference_plain(conversation, tokenizer):
    texts = reference_turns(conversation)
    front = "<image>" if "<image>" in texts[0] else ""
    ids = reference_ids(front + texts[1] + "\n", tokenizer)
    masked = max(len(reference_ids(front, tokenizer)), 1)
    return ids, [-100] * masked + ids[masked:]


@pytest.fixture(params=["qwen_tokenizer", "trimming_tokenizer", "llama_tokenizer", "legacy_llama_tokenizer"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


CASES = 250


@pytest.mark.parametrize(
    ("tokenizer", "version", "turn_end"),
    [  # with a BOS token LLaVA's counting rests on a turn end of one token, so no "qwen" for Llama
        ("qwen_tokenizer", "qwen", "<|endoftext|>"),
        ("qwen_tokenizer", "v1", "</s>"),
        ("trimming_tokenizer", "qwen", "<|endoftext|>"),
        ("trimming_tokenizer", "v1", "</s>"),
        ("llama_tokenizer", "v1", "</s>"),
        ("legacy_llama_tokenizer", "v1", "</s>"),
    ],
    indirect=["tokenizer"],
)
def test_chat_templates_equal_llava(tokenizer, version, turn_end):
    one_token_end = len(tokenizer(turn_end, add_special_tokens=False).input_ids) == 1
    compared = 0
    for seed in range(CASES):
        conversation, images = random_conversation(seed)
        expected = reference_chat(conversation, tokenizer, turn_end)
        if expected is None:
            continue
        compared += 1
        sample = tokenize_conversation(conversation, tokenizer, get_template(version), images)
        assert sample.input_ids.tolist() == expected[0], conversation
        assert sample.labels.tolist() == expected[1], conversation
    assert compared > (0.9 if one_token_end else 0.5) * CASES


def test_plain_equals_llava(tokenizer):
    for seed in range(CASES):
        conversation, _ = random_conversation(seed)
        conversation = [turn for turn in conversation if turn["from"] != "gpt" or turn["value"] != "Welcome."][:2]
        images = conversation[0]["value"].count("<image>")
        ids, labels = reference_plain(conversation, tokenizer)
        sample = tokenize_conversation(conversation, tokenizer, get_template("plain"), images)
        assert sample.input_ids.tolist() == ids
        assert sample.labels.tolist() == labels


@pytest.mark.parametrize("version", ["v1", "qwen", "chatml"])
def test_ids_equal_the_prompt_tokenised_for_inference(tokenizer, version):
    template = get_template(version)
    for seed in range(CASES // 4):
        conversation, images = random_conversation(seed)
        sample = tokenize_conversation(conversation, tokenizer, template, images)
        turns = [(turn["from"], turn["value"]) for turn in conversation if turn["value"] != "Welcome."]
        assert sample.input_ids.tolist() == tokenizer_image_token(template.prompt(turns), tokenizer)
