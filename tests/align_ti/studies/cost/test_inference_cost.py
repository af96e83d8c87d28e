"""Sizes by hand, the order of measuring, answers of exactly so many tokens, and the command."""

import json
import sys

import pytest
from safetensors.torch import load_file
from torch import nn

from align_ti.studies.cost import inference as inference_cost
from align_ti.studies.cost.inference import answerer, load, readable, tokens_per_second, weight_size
from llava.conversation import get_template
from llava.data.images import load_image
from llava.errors import InputError


def test_sizes():
    first, second = nn.Linear(3, 5, bias=False), nn.Linear(3, 5).half()
    assert weight_size(nn.Sequential(first, second)) == (15 + 20, 15 * 4 + 20 * 2)
    tied = nn.Sequential(nn.Embedding(5, 3), first)
    first.weight = tied[0].weight
    assert weight_size(tied) == (15, 60)
    assert [readable(number) for number in (812, 3_600, 3_600_000, 1_540_000_000)] == [
        "812",
        "3.60 k",
        "3.60 M",
        "1.54 B",
    ]


def test_throughput():
    rounds = [(1.0, 3.0), (1.2, 9.0), (0.9, 3.2)]  # a disturbed round does not move the medians, 1.0 and 3.2 s
    assert tokens_per_second(rounds, 12) == pytest.approx(11 / 2.2)
    with pytest.raises(InputError, match="12 tokens took 1.0000 s and the first token alone 1.0000 s"):
        tokens_per_second([(1.0, 1.0)], 12)


def test_answers_have_exactly_so_many_tokens(world, tuned_teacher):
    loaded = load(str(tuned_teacher), "cpu")
    image = load_image(world.images / "red.png")
    answer, prompt = answerer(loaded, "qwen", image, "What is in the picture?")
    ends = sorted({*answer(9)[0].tolist(), *range(0, 416, 2)})
    loaded.model.generation_config.eos_token_id = ends  # now what it writes would end the answer, at any place
    tokens = answerer(loaded, "qwen", image, "What is in the picture?")[0](9)
    assert tokens.shape == (1, 9) and not set(ends) & set(tokens[0].tolist())
    text = get_template("qwen").prompt([("human", "<image>\nWhat is in the picture?")])
    before, after = (len(loaded.tokenizer(part).input_ids) for part in text.split("<image>"))
    assert prompt == before + loaded.model.get_vision_tower().num_patches + after


def run_entry(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["inference_cost", *map(str, flags)])
    inference_cost.main()


def test_the_command(world, tuned_teacher, tmp_path, monkeypatch):
    order = []
    names = iter("AB")
    real = inference_cost.answerer

    def recording(*given):
        (answer, prompt), name = real(*given), next(names)

        def run(tokens):
            order.append((name, tokens))
            return answer(tokens)

        return run, prompt

    monkeypatch.setattr(inference_cost, "answerer", recording)
    scores = tmp_path / "scores.json"
    scores.write_text(
        json.dumps({"gqa": 10.0, "sqa": 20.0, "textvqa": 30.0, "pope": 40.0, "mme": 50.0, "mmbench": 60.0})
    )
    flags = ["--model", f"A={tuned_teacher}", "--model", f"B={tuned_teacher}", "--image", world.images / "red.png",
             "--question", "What?", "--new-tokens", 6, "--rounds", 2, "--device", "cpu"]  # fmt: skip
    run_entry(monkeypatch, *flags, "--scores", f"B={scores}", "--out", tmp_path / "out", "--name", "t")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"t.json", "t.md"}
    timed = [("A", 1), ("A", 6), ("B", 1), ("B", 6)]
    assert order == timed * 3 + [("A", 6), ("B", 6)]  # in turn, one round not counted; then the memory
    models = json.loads((tmp_path / "out" / "t.json").read_text())["models"]
    weights = load_file(tuned_teacher / "model.safetensors")
    tower = load_file(world.tower / "model.safetensors")
    stored = sum(weight.numel() for name, weight in weights.items() if name != "lm_head.weight")
    for cost in models.values():
        assert stored < cost["parameters"] <= stored + sum(weight.numel() for weight in tower.values())
        assert cost["weight_bytes"] == 4 * cost["parameters"] < cost["peak_bytes"] < 3 * cost["weight_bytes"]
        firsts, wholes = zip(*cost["rounds"], strict=True)
        assert len(firsts) == 2 and cost["first_token_seconds"] == pytest.approx(sum(firsts) / 2)
        assert cost["tokens_per_second"] == pytest.approx(5 / (sum(wholes) / 2 - sum(firsts) / 2))
    assert models["A"]["average"] is None and models["B"]["average"] == 35.0
    text = (tmp_path / "out" / "t.md").read_text()
    assert text.count("| 35.0 |") == 1 and "- tokens: 6 new tokens after prompts of" in text


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--new-tokens", "1"], "at least 2 tokens and 1 round"),
        (["--rounds", "0"], "--rounds 0"),
        (["--scores", "C=elsewhere"], "--scores names C, but the models are A"),
        (["--image", "missing.png"], "'missing.png' does not exist"),
    ],
)
def test_refusals(flags, message, world, tuned_teacher, tmp_path, monkeypatch):
    usual = ["--model", f"A={tuned_teacher}", "--image", world.images / "red.png", "--question", "What?"]
    with pytest.raises(InputError, match=message):
        run_entry(monkeypatch, *usual, "--device", "cpu", "--out", tmp_path, *flags)
    assert not list(tmp_path.iterdir())
