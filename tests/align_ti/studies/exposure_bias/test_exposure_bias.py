"""Exposure bias against loops over single prefixes, and against expectations over all continuations."""

import copy
import itertools
import json
import math
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.functional import log_softmax

from align_ti.studies.exposure_bias import __main__ as entry
from align_ti.studies.exposure_bias.long_answers import find_long_answers
from align_ti.studies.exposure_bias.measure import (
    PrefixErrors,
    accumulated,
    excess_error,
    excess_interval,
    measure,
    response_outputs,
)
from align_ti.training.on_policy import OnPolicySettings, StudentResponses
from llava.conversation import get_template
from llava.data.annotations.table import open_annotations
from llava.data.collator import ConversationCollator
from llava.errors import InputError
from llava.inference.end_of_turn import EndOfTurn

END = 2
STEPS = 6
STOP = EndOfTurn(tokenizer=None, text="", ids=[END], pad_id=0, is_token=True)
NAN = float("nan")


def collate(prompts, answers):
    """A batch of text prompts and answers, lists of ids."""
    samples = []
    for prompt, answer in zip(prompts, answers, strict=True):
        samples.append(
            {
                "input_ids": torch.tensor([*prompt, *answer]),
                "labels": torch.tensor([-100] * len(prompt) + list(answer)),
                "instruction_mask": torch.zeros(len(prompt) + len(answer), dtype=torch.bool),
                "images": torch.empty(0, 3, 0, 0),
            }
        )
    return ConversationCollator(0)(samples)


PROMPTS = ([5, 6, 7], [8, 9, 10, 11, 12], [5, 9])
ANSWERS = ([13, 14, 15, 16, 17, 18, 19], [14, 13, END], [20, 21, 22, 23, 24, END])


@pytest.fixture
def models(tiny_model):
    """A teacher and a student with a larger vocabulary, LLaVA models without a tower, in float64."""
    teacher = tiny_model(llava=True, hidden=32, attention="sdpa", seed=1)
    return teacher, tiny_model(llava=True, hidden=24, vocab=34, attention="sdpa", seed=2)


@torch.no_grad()
def plain_divergence(teacher, student, prefix):
    """KL(P_T || P_S) behind one prefix, summed entry by entry over the teacher's 31 tokens."""
    ids = torch.tensor([prefix])
    p, q = (log_softmax(model(input_ids=ids).logits[0, -1, :31], -1).tolist() for model in (teacher, student))
    return sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))


def plain_steps(teacher, student, prompt, response):
    """Divergences of the first steps of one response, a forward for each."""
    values = [plain_divergence(teacher, student, [*prompt, *response[:step]]) for step in range(len(response[:STEPS]))]
    return values + [NAN] * (STEPS - len(values))


@pytest.mark.parametrize("size", [1, 3])
def test_against_one_forward_a_prefix(models, size):
    teacher, student = models
    batches = [
        collate(PROMPTS[start : start + size], ANSWERS[start : start + size]) for start in range(0, len(PROMPTS), size)
    ]
    errors = measure(teacher, {"other": student, "s": student}, batches, STOP, steps=STEPS, seed=4)["s"]
    respond = StudentResponses(OnPolicySettings(1.0, 1.0, STEPS, 4), STOP, 31, 10**6)
    batch = collate(PROMPTS, ANSWERS)
    drawn = {
        who: [row[row != -100].tolist() for row in respond(model, batch, 0)["labels"]]
        for who, model in (("student", student), ("teacher", teacher))
    }
    assert drawn["student"] != drawn["teacher"]
    for who, responses in {"data": ANSWERS, **drawn}.items():
        expected = [plain_steps(teacher, student, *pair) for pair in zip(PROMPTS, responses, strict=True)]
        found = getattr(errors, who)
        torch.testing.assert_close(
            found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0, equal_nan=True
        )
    assert errors.data.isnan().sum(1).tolist() == [0, 3, 0]


def test_sums_and_ratio_by_hand():
    steps = torch.tensor([[1.0, 2.0, 3.0], [3.0, NAN, NAN]], dtype=torch.float64)
    assert accumulated(steps, "zero").tolist() == [2.0, 3.0, 4.5]
    assert accumulated(steps, "leave-out").tolist() == [2.0, 4.0, 7.0]
    weights = torch.tensor([[2, 0], [0, 2]])
    assert accumulated(steps, "zero", weights).tolist() == [[1.0, 3.0, 6.0], [3.0, 3.0, 3.0]]
    with pytest.raises(InputError, match="--ended is 'stop'; expected one of leave-out, zero"):
        accumulated(steps, "stop")
    ratio = excess_error(torch.tensor([0.0, 3.0, 1.0, 1.0]), torch.tensor([0.0, 2.0, 2.0, 0.0]))
    assert ratio.tolist() == [0.0, 50.0, -50.0, math.inf]


def test_the_interval_covers_the_estimate_and_knows_the_spread():
    torch.manual_seed(0)
    base = torch.rand(200, 3, dtype=torch.float64) + 1
    same = PrefixErrors(base, 1.2 * base, base)
    for end in excess_interval(same, "zero"):  # every sample has the same excess: no spread at all
        torch.testing.assert_close(end, torch.full((3,), 20.0, dtype=torch.float64))
    noisy = PrefixErrors(base, base + torch.randn(200, 3) / 2, base)
    low, high = excess_interval(noisy, "zero")
    first = noisy.student[:, 0] / noisy.teacher[:, 0].mean() - noisy.teacher[:, 0] / noisy.teacher[:, 0].mean()
    width = 2 * 1.96 * 100 * float(first.std()) / 200**0.5
    assert float(high[0] - low[0]) == pytest.approx(width, rel=0.15)


def enumerated(teacher, student, prompt, steps, vocabulary):
    """``E(l)`` and ``R(l)`` over every continuation: the probability of a prefix times the divergence behind it."""
    sums = {"teacher": [0.0] * steps, "student": [0.0] * steps}
    for step in range(steps):
        for prefix in itertools.product(range(vocabulary), repeat=step):
            if END in prefix:
                continue
            ids = torch.tensor([[*prompt, *prefix]])
            with torch.no_grad():
                logs = {who: log_softmax(model(input_ids=ids).logits[0], -1) for who, model in
                        (("teacher", teacher), ("student", student))}  # fmt: skip
            last = logs["teacher"][-1]
            value = float((last.exp() * (last - logs["student"][-1])).sum())
            for who, log in logs.items():
                chance = math.exp(sum(float(log[len(prompt) - 1 + k, token]) for k, token in enumerate(prefix)))
                sums[who][step] += chance * value
    return {who: torch.tensor(values, dtype=torch.float64).cumsum(0) for who, values in sums.items()}


def test_against_the_expectation_over_all_continuations(tiny_model):
    vocabulary, steps, prompt = 4, 3, [1, 3, 0]
    options = {"llava": True, "vocab": vocabulary, "attention": "sdpa", "heads": 2, "layers": 1}
    teacher, student = (tiny_model(**options, hidden=hidden, seed=seed) for hidden, seed in ((16, 1), (12, 5)))
    exact = enumerated(teacher, student, prompt, steps, vocabulary)
    torch.manual_seed(0)
    answers = torch.randint(0, vocabulary, (4000, 12)).tolist()  # differing, as the random numbers hang on them
    batch = collate([prompt] * 4000, answers)
    errors = measure(teacher, {"s": student}, [batch], STOP, steps=steps)["s"]
    for who in ("teacher", "student"):
        found = accumulated(getattr(errors, who), "zero")
        spread = getattr(errors, who).nan_to_num(0.0).cumsum(1).std(0) / 4000**0.5
        assert ((found - exact[who]).abs() < 4 * spread + 1e-9).all(), (who, found, exact[who])
        assert (exact["student"][1:] - exact["teacher"][1:]).abs().min() > 8 * spread[1:].max(), (
            "the two must be told apart"
        )
    low, high = excess_interval(errors, "zero")
    expected = excess_error(exact["student"], exact["teacher"])
    assert ((expected - (low + high) / 2).abs() < high - low + 1e-9).all() and (high - low < 6).all()  # 4 deviations
    # What Eq. 13 then is: the divergence between whole responses, cut at so many tokens.
    whole = {"teacher": {}, "student": {}}
    for response in itertools.product(range(vocabulary), repeat=steps):
        cut = response[: response.index(END) + 1] if END in response else response
        ids = torch.tensor([[*prompt, *cut]])
        with torch.no_grad():
            for who, model in (("teacher", teacher), ("student", student)):
                log = log_softmax(model(input_ids=ids).logits[0], -1)
                whole[who][cut] = sum(float(log[len(prompt) - 1 + k, token]) for k, token in enumerate(cut))
    kl = sum(math.exp(log) * (log - whole["student"][cut]) for cut, log in whole["teacher"].items())
    assert kl == pytest.approx(float(exact["teacher"][-1]), rel=1e-9)


def test_a_student_equal_to_its_teacher_has_no_error(models):
    teacher = models[0]
    twin = copy.deepcopy(teacher)
    errors = measure(teacher, {"twin": twin}, [collate(PROMPTS, ANSWERS)], STOP, steps=STEPS)["twin"]
    for steps in (errors.data, errors.student, errors.teacher):
        assert accumulated(steps, "zero").abs().max() < 1e-12
    assert torch.equal(errors.student.isnan(), errors.teacher.isnan())  # the same numbers: the same responses
    with torch.no_grad():
        twin.lm_head.weight[7] += 1.0
    errors = measure(teacher, {"twin": twin}, [collate(PROMPTS, ANSWERS)], STOP, steps=STEPS)["twin"]
    assert accumulated(errors.data, "zero")[0] > 1e-3 and (accumulated(errors.student, "zero") > 1e-3).all()


def test_a_student_that_differs_off_the_datas_path(models):
    """Its embedding of a token that the data never holds is another one: teacher forcing does not see it."""
    teacher = models[0]
    student = copy.deepcopy(teacher)
    unseen = [token for token in range(3, 31) if not any(token in ids for ids in (*PROMPTS, *ANSWERS))]
    with torch.no_grad():
        student.get_input_embeddings().weight[unseen] += 3.0
    errors = measure(teacher, {"s": student}, [collate(PROMPTS * 8, ANSWERS * 8)], STOP, steps=STEPS)["s"]
    assert accumulated(errors.data, "zero").abs().max() < 1e-12
    test = accumulated(errors.student, "zero")
    assert test[0] < 1e-12 < 1e-2 < test[-1] and (test.diff() >= 0).all()


def test_only_the_first_steps_of_the_answer_count(models):
    outputs = response_outputs(models[0], collate(PROMPTS, ANSWERS), 4)
    assert outputs.exist.tolist() == [[True] * 4, [True] * 3 + [False], [True] * 4] and outputs.rows.shape == (11, 32)


def run_entry(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["exposure_bias", *map(str, flags)])
    entry.main()


def test_the_command(world, tuned_teacher, tmp_path, monkeypatch):
    flags = [
        "--teacher", tuned_teacher, "--student", f"same={tuned_teacher}", "--data", world.data, "--image-folder",
        world.images, "--samples", 5, "--max-new-tokens", 12, "--min-answer-tokens", 8, "--device", "cpu",
    ]  # fmt: skip
    run_entry(monkeypatch, *flags, "--out", tmp_path / "deep" / "a", "--name", "fig")
    run_entry(monkeypatch, *flags, "--out", tmp_path / "b", "--name", "fig", "--batch-size", 2)
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"fig.json", "fig.md", "fig.png", "fig.pdf"}
    content, again = (json.loads((tmp_path / name / "fig.json").read_text()) for name in ("deep/a", "b"))
    assert content["students"].keys() == content["by seed"].keys() == {"leave-out", "zero"}
    curve = content["students"]["leave-out"]["same"]
    assert curve["e_train"] == [0.0] * 12 == curve["e_test"] and curve["ex_acc_err"] == [0.0] * 12
    assert curve["reached_data"][7] == 1.0 and again["students"] == content["students"]
    text = (tmp_path / "b" / "fig.md").read_text()
    assert "| same | 12 | 0.000 | 0.000 | 0.000 | 0.0 [0.0, 0.0] | 0.0 [0.0, 0.0] |" in text and "- samples: 5" in text


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--samples", "500"], "500 are needed"),
        (["--max-new-tokens", "300"], "0 of 24 conversations begin with an answer of at least 300 tokens"),
        (["--max-new-tokens", "0"], "--max-new-tokens is 0"),
        (["--samples", "0"], "--samples is 0"),
        (["--student", "again"], "expected NAME=PATH"),
        (["--min-answer-tokens", "3", "--samples", "2", "--batch-size", "0"], "--batch-size is 0"),
    ],
)
def test_refusals(flags, message, world, tuned_teacher, tmp_path, monkeypatch):
    usual = ["--teacher", tuned_teacher, "--student", f"s={tuned_teacher}", "--data", world.data, "--image-folder",
             world.images, "--device", "cpu", "--out", tmp_path]  # fmt: skip
    with pytest.raises(InputError, match=message):
        run_entry(monkeypatch, *usual, *flags)
    assert not list(tmp_path.iterdir())


def test_malformed_entries_are_passed_over(world, qwen_tokenizer, tmp_path):
    """As training does with ``--on_bad_sample skip``; what is left is found, and counted where it is too little."""
    entries = json.loads(world.data.read_text())
    broken = {"id": "broken", "conversations": [{"from": "human", "value": "q"}]}
    file = tmp_path / "data.json"
    file.write_text(json.dumps([broken, *entries, broken]))
    find = partial(find_long_answers, open_annotations(str(file)), qwen_tokenizer, get_template("qwen"), at_least=1)
    found = find(samples=24, image_folder=world.images)
    assert len(found) == 24 and all(path.is_file() for answer in found for path in answer.pictures)
    with pytest.raises(InputError, match="24 of 26 conversations"):
        find(samples=25)


def test_curves_of_several_seeds():
    """Two seeds: the mean, and Student's interval, 12.7062 standard errors on either side; one seed keeps its own."""
    one = {"e_test": [1.0, 2.0], "ex_acc_err": [10.0, 20.0], "ex_acc_err_low": [9.0, 19.0], "ex_acc_err_high": [11, 22]}
    other = {name: [value + 2 for value in series] for name, series in one.items()}
    found = entry.over_seeds([one, other])
    assert found["e_test"] == [2, 3] and found["ex_acc_err"] == [11, 21]
    assert found["ex_acc_err_low"] == pytest.approx([11 - 12.7062, 21 - 12.7062], abs=1e-3)
    assert found["ex_acc_err_high"] == pytest.approx([11 + 12.7062, 21 + 12.7062], abs=1e-3)
    assert entry.over_seeds([one]) == one


def test_a_student_that_says_less_is_not_the_better_for_it():
    """Both err by 2 nats per step where the teacher's prefixes cost 1; one stops after two of four steps."""
    costs = {"long": [2.0] * 4, "short": [2.0, 2.0, NAN, NAN]}
    errors = {
        name: PrefixErrors(torch.ones(3, 4), torch.tensor([cost] * 3), torch.ones(3, 4)) for name, cost in costs.items()
    }
    errors["half"] = replace(errors["long"], student=torch.tensor([costs["long"], costs["short"], costs["long"]]))
    last = {
        ended: {name: entry.curves(found, ended)["ex_acc_err"][-1] for name, found in errors.items()}
        for ended in ("leave-out", "zero")
    }
    assert last["leave-out"] == {"long": 100, "short": 0, "half": 100}, "nothing is known of what nobody says"
    assert last["zero"] == {"long": 100, "short": 0, "half": pytest.approx(200 / 3, abs=1e-4)}


def test_the_table_compares_students_seed_by_seed():
    def seeds(*test):
        base = {"e_train": [1.0, 2.0], "e_baseline": [1.0, 2.0], "ex_acc_err": [0.0, 7.0], "ex_acc_err_low": [0, 0]}
        reached = {f"reached_{who}": [1.0, 0.5] for who in ("data", "student", "teacher")}
        return [{**base, **reached, "ex_acc_err_high": [9, 9], "e_test": [1.0, value]} for value in test]

    by_seed = {"a": seeds(3.0, 5.0), "b": seeds(2.0, 4.5), "c": seeds(2.0)}
    both = dict.fromkeys(("leave-out", "zero"), by_seed)
    means = dict.fromkeys(both, {name: entry.over_seeds(of_student) for name, of_student in by_seed.items()})
    text = entry.as_markdown(means, both, "leave-out", {})
    assert "| a | 2 | 2.000 | 4.000 | 2.000 | 7.0 [7.0, 7.0] | 7.0 [7.0, 7.0] | 1.5, 1.5 | 50, 50, 50 |" in text
    assert "Relative to a, at the last step, paired by seed:" in text and "| c |" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| b | 0.00")]
    assert row.split(" | ")[2] == "-0.75 ± 3.18", "two values 0.5 apart: 12.7062 times 0.25"
