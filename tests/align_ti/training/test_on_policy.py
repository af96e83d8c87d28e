"""The student's responses against token-by-token sampling of one sample; what becomes of a batch; whole runs."""

import math

import pytest
import torch
from safetensors.torch import load_file

from align_ti.candidates.noise import SampleNoise
from align_ti.training.on_policy import ON_POLICY, OnPolicySettings, StudentResponses, last_turn
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import get_template
from llava.data.collator import ConversationCollator
from llava.errors import InputError
from llava.inference.end_of_turn import EndOfTurn
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_pretrained_model
from tests.align_ti.training.whole_objective import TEACHER_HIDDEN, settings, total
from tests.runs import as_if_killed_after, steps

LONGEST = 7


@pytest.fixture(scope="module")
def loaded(tuned_teacher):
    """A tuned model with its tower, in float64, and its tokenizer."""
    tokenizer, model, _, _ = load_pretrained_model(
        str(tuned_teacher), None, get_model_name_from_path(str(tuned_teacher)), device_map=None
    )
    return tokenizer, model.double().train()


# One character a token: s other text, I an image marker, i instruction, r response.
KINDS = ("sIiisrrr", "siisrrsIisrrrrs", "siisr", "sIisrrsii", "sIiiii", "sIisrIi")


def samples(seed=0):
    torch.manual_seed(seed)
    made = []
    for index, kind in enumerate(KINDS):
        ids = torch.randint(3, 300, (len(kind),))
        image, target = (torch.tensor([letter == which for letter in kind]) for which in "Ir")
        ids[image] = IMAGE_TOKEN_INDEX
        labels = torch.where(target, ids, -100)
        instruction = torch.tensor([letter == "i" for letter in kind])
        images = torch.randn(int(image.sum()), 3, 32, 32, dtype=torch.float64)
        tensors = {"input_ids": ids, "labels": labels, "instruction_mask": instruction, "images": images}
        made.append({**tensors, "sample_index": torch.tensor(index)})
    return made


def responses_of(loaded, max_length=64, vocabulary=400, **options):
    tokenizer, model = loaded
    chosen = OnPolicySettings(1.0, max_new_tokens=LONGEST, seed=5, **options)
    return StudentResponses(chosen, EndOfTurn.of(get_template("qwen"), tokenizer, model), vocabulary, max_length)


PROMPTS = (5, 10, 4, 4, 6, 4)
"""Tokens before the last response of each sample."""


def test_the_last_turn():
    for side in ("right", "left"):
        batch = ConversationCollator(0, side)(samples())
        turn = last_turn(batch["labels"], batch["attention_mask"])
        assert turn.exists.tolist() == [True, True, True, True, False, True]
        assert turn.before.sum(1).tolist() == list(PROMPTS)
        assert turn.after.sum(1).tolist() == [0, 1, 0, 3, 0, 2]
        for row, kind in enumerate(KINDS):
            ids = batch["input_ids"][row]
            made = samples()[row]["input_ids"]
            assert torch.equal(ids[turn.before[row]], made[: PROMPTS[row]])
            assert torch.equal(ids[turn.after[row]], made[len(kind) - int(turn.after[row].sum()) :])


def sampled_plainly(loaded, sample, prompt, temperature, vocabulary, stop):
    """One sample, one token after the other, the whole sequence anew each time."""
    _, model = loaded
    ids, labels = sample["input_ids"], []
    number = {"sample_index": sample["sample_index"][None]}
    noise = SampleNoise(number, 5, 3).draws([LONGEST], 1, b"on-policy draws")[:, 0]
    images = sample["images"][: int((ids[:prompt] == IMAGE_TOKEN_INDEX).sum())]
    for number in noise:
        sequence = torch.cat([ids[:prompt], torch.tensor(labels, dtype=torch.long)])[None]
        with torch.no_grad():
            logits = model.eval()(input_ids=sequence, images=images if len(images) else None).logits[0, -1]
        mass = (logits[:vocabulary] / temperature).softmax(-1)
        labels.append(next(i for i in range(vocabulary) if mass[: i + 1].sum() > number * mass.sum()))
        if labels[-1] in stop:
            break
    return labels


@pytest.mark.parametrize("temperature, vocabulary", [(1.0, 400), (30.0, 4)])
@pytest.mark.parametrize("side", ["right", "left"])
def test_responses_are_the_students_own_draws(side, temperature, vocabulary, loaded):
    made = samples()
    batch = ConversationCollator(0, side)(made)
    responses = responses_of(loaded, vocabulary=vocabulary, temperature=temperature)
    new = responses(loaded[1].train(), batch, step=3)
    assert loaded[1].training
    found = [row[row != -100].tolist() for row in new["labels"]]
    for row, sample in enumerate(made):
        if row != 4:
            stop = responses.stop.ids
            assert found[row] == sampled_plainly(loaded, sample, PROMPTS[row], temperature, vocabulary, stop)
    assert found[4] == []  # no response to replace
    lengths = [len(row) for row in found]
    assert max(lengths) == LONGEST and (0 < sorted(lengths)[1] < LONGEST or vocabulary == 400), lengths
    assert found != [row[row != -100].tolist() for row in responses(loaded[1], batch, step=4)["labels"]]


def test_the_new_batch(loaded):
    made = samples()
    batch = ConversationCollator(0)(made)
    new = responses_of(loaded)(loaded[1], batch, step=3)
    assert new[ON_POLICY] and torch.equal(new["images"], batch["images"])
    assert torch.equal(new["sample_index"], torch.arange(len(made)))
    assert new["attention_mask"].dtype == new["instruction_mask"].dtype == torch.bool
    for row, sample in enumerate(made):
        real = new["attention_mask"][row]
        assert not new["instruction_mask"][row][~real].any() and (new["labels"][row][~real] == -100).all()
        ids, labels, mask = (new[name][row][real] for name in ("input_ids", "labels", "instruction_mask"))
        answer = labels != -100
        assert torch.equal(ids[answer], labels[answer])
        kept = torch.ones(len(sample["input_ids"]), dtype=torch.bool)
        if row != 4:
            start = PROMPTS[row]
            assert answer.nonzero().flatten().tolist() == list(range(start, start + int(answer.sum())))
            kept[start : start + len(KINDS[row][start:]) - len(KINDS[row][start:].lstrip("r"))] = False
        assert torch.equal(ids[~answer], sample["input_ids"][kept])
        assert torch.equal(mask[~answer], sample["instruction_mask"][kept]) and not mask[answer].any()


def test_a_response_belongs_to_its_sample(loaded):
    """However the batch is split."""
    responses, collator, made = responses_of(loaded), ConversationCollator(0), samples()
    whole = responses(loaded[1], collator(made), step=3)
    for row, sample in enumerate(made):
        alone = responses(loaded[1], collator([sample]), step=3)
        for name in ("input_ids", "labels", "instruction_mask"):
            assert torch.equal(alone[name][0], whole[name][row][whole["attention_mask"][row]])


def test_samples_of_one_text_are_answered_each_by_itself(loaded):
    first = samples()[2]
    twins = [{**first, "sample_index": torch.tensor(number)} for number in (4, 9)]
    responses = responses_of(loaded, temperature=30.0)
    labels = responses(loaded[1], ConversationCollator(0)(twins), step=3)["labels"]
    one, other = (row[row != -100].tolist() for row in labels)
    assert one != other


def test_a_response_ends_where_the_turn_ends(loaded):
    responses = responses_of(loaded)
    end = responses.stop.ids[0]
    assert responses.length([5, 6, end, end, end]) == 3
    assert responses.length([5, 6, 7]) == 3
    tokenizer, model = loaded
    spelled = EndOfTurn.of(get_template("v1"), tokenizer, model)  # "</s>", several tokens here
    assert not spelled.is_token
    pieces = tokenizer.encode(spelled.text, add_special_tokens=False)
    words = tokenizer.encode("a goat", add_special_tokens=False)
    several = StudentResponses(responses.settings, spelled, 400, 64)
    assert several.length([*words, *pieces, spelled.pad_id, spelled.pad_id]) == len(words) + len(pieces)


def test_a_response_is_cut_to_the_longest_sample(loaded):
    new = responses_of(loaded, max_length=11)(loaded[1], ConversationCollator(0)(samples()), step=3)
    counts = (new["labels"] != -100).sum(1).tolist()
    # an image is 4 positions: prompts of 8, 14 and more, 4, ... positions
    assert counts[0] == 3 and counts[1] == 1 and counts[2] == 7


def test_how_often():
    chosen = [OnPolicySettings(0.3, seed=1).chosen(step) for step in range(2000)]
    assert 520 < sum(chosen) < 680
    assert chosen != [OnPolicySettings(0.3, seed=2).chosen(step) for step in range(2000)]
    assert chosen == [OnPolicySettings(0.3, seed=1).chosen(step) for step in range(2000)]
    assert not any(OnPolicySettings(0.0).chosen(step) for step in range(100))
    assert all(OnPolicySettings(1.0).chosen(step) for step in range(100))


def test_draws_for_two_purposes_are_independent():
    ids = torch.arange(12).view(2, 6)
    other, same, draws = (
        SampleNoise({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, 5, 3).draws([3, 4], 2, purpose)
        for purpose in (b"one", b"", b"")
    )
    assert torch.equal(same, draws) and not (other == draws).any()


def test_the_cross_entropy_is_the_datas(tiny_model, make_batch):
    models = tiny_model(), tiny_model(vocab=34, hidden=TEACHER_HIDDEN, layers=3, seed=1)
    losses = ("sft", "kd", "iva", "tpa")
    data, _ = total(*models, make_batch(), settings(losses))
    own, gradients = total(*models, make_batch(), settings(losses), on_policy=True)
    assert "sft" not in own and own["loss"] == pytest.approx((data["loss"] - data["sft"]).item(), rel=1e-12)
    without = total(*models, make_batch(), settings(losses[1:]))[1]
    for ours, theirs in zip(gradients, without, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


GKD = (
    "--losses", "sft,kd", "--divergence", "jsd", "--jsd_beta", "0.5", "--on_policy_fraction", "0.5",
    "--on_policy_max_new_tokens", "6", "--seed", "7",
)  # fmt: skip
LOGGED = ("loss", "sft", "kd", "on_policy")


def test_gkd_trains_on_both_and_accumulation_changes_nothing(run, tmp_path):
    two = ("--per_device_train_batch_size", "8", "--num_train_epochs", "2")
    whole = run(tmp_path / "a", *GKD, *two)
    split = run(
        tmp_path / "b", *GKD, "--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "4",
        "--num_train_epochs", "2",
    )  # fmt: skip
    rows = steps(whole, *LOGGED)
    assert {row[3] for row in rows} == {0.0, 1.0}
    for loss, sft, kd, own in rows:
        assert kd > 0 and math.isnan(sft) == (own == 1)
        assert loss == pytest.approx(kd + (0 if own else sft), rel=1e-4)
    (mean,) = steps(run(tmp_path / "c", *GKD, *two, "--logging_steps", str(len(rows))), "sft", "kd", "on_policy")
    known = [[row[term] for row in rows if not math.isnan(row[term])] for term in (1, 2, 3)]
    assert mean == pytest.approx([sum(values) / len(values) for values in known], rel=1e-4), "where it is defined"
    for ours, theirs in zip(rows, steps(split, *LOGGED), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3, nan_ok=True)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    for name in one:
        assert torch.allclose(one[name], other[name], atol=2e-4), name


def test_a_killed_run_resumes_to_the_same_responses(run, tmp_path):
    flags = (*GKD, "--on_policy_fraction", "1", "--per_device_train_batch_size", "8", "--packing", "True",
             "--max_tokens_per_batch", "150", "--save_strategy", "steps", "--save_steps", "1")  # fmt: skip
    out = tmp_path / "run"
    uninterrupted = steps(run(out, *flags), *LOGGED)
    final = (out / "model.safetensors").read_bytes()
    as_if_killed_after(out, 1)
    assert steps(run(out, *flags), *LOGGED) == uninterrupted
    assert (out / "model.safetensors").read_bytes() == final and all(row[3] == 1 for row in uninterrupted)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fraction": 1.5}, "--on_policy_fraction is 1.5.*0 to 1"),
        ({"fraction": 0.5, "temperature": 0.0}, "--on_policy_temperature is 0.0"),
        ({"fraction": 0.5, "temperature": math.nan}, "--on_policy_temperature is nan"),
        ({"fraction": 0.5, "max_new_tokens": 0}, "--on_policy_max_new_tokens is 0"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        OnPolicySettings(**options)
