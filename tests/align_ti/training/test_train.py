"""The distillation stage end to end on a tiny world: terms, batch splits, resumption, refusals."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from align_ti.training import train as distill
from align_ti.training.arguments import DistillArguments
from llava import fusion as kl_family
from llava.errors import InputError
from llava.model.vision_tower import VisionTower
from tests.runs import as_if_killed_after, steps

TERMS = ("loss", "sft", "kd", "iva", "tpa")


def test_all_terms_are_logged_and_add_up(run, tmp_path):
    log = run(tmp_path, "--per_device_train_batch_size", "8")
    rows = steps(log, *TERMS)
    assert len(rows) == 3
    for loss, *terms in rows:
        assert loss == pytest.approx(sum(terms), rel=1e-4)
        assert all(term > 0 for term in terms)
    assert all(0 < entry["candidate_rows"] <= 4 for entry in log if "candidate_rows" in entry)
    scores = json.loads((tmp_path / "irs.json").read_text())
    record = json.loads((tmp_path / "run_config.json").read_text())
    assert len(scores["scores"]) == 3 and record["iva"]["layer"] == scores["layer"]


def test_scores_of_layers_are_kept_for_the_same_weights(run, tuned_teacher, tmp_path):
    """A teacher trained again in the same place is looked at again."""
    teacher, out = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(tuned_teacher, teacher)
    flags = ("--teacher_path", str(teacher), "--max_steps", "1", "--resume", "never")

    def layer():
        run(out, *flags)
        return json.loads((out / "run_config.json").read_text())["iva"]["layer"]

    first = layer()
    kept = json.loads((out / "irs.json").read_text())
    scores = kept["scores"][-1:] + kept["scores"][:-1]  # the best moves to the next layer
    (out / "irs.json").write_text(json.dumps({**kept, "scores": scores, "layer": (first + 1) % 3}))
    assert layer() == (first + 1) % 3, "taken as they are"
    weights = teacher / "model.safetensors"
    save_file({name: tensor * 1.001 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    assert layer() == first


def test_weights_scale_their_terms(run, tmp_path):
    flags = ("--per_device_train_batch_size", "8", "--max_steps", "1", "--iva_layer", "1")
    (plain,) = steps(run(tmp_path / "a", *flags), *TERMS)
    (scaled,) = steps(run(tmp_path / "b", *flags, "--tpa_weight", "3", "--sft_weight", "0.5"), *TERMS)
    assert scaled[1:] == pytest.approx(plain[1:], rel=1e-5)
    assert scaled[0] == pytest.approx(0.5 * plain[1] + plain[2] + plain[3] + 3 * plain[4], rel=1e-4)


@pytest.mark.parametrize("sampling", ["nucleus", "greedy"])
def test_ribbon_forms_train_alike(run, tmp_path, sampling):
    """Shared prefix with merged draws = shared prefix = Algorithm 1 = packed samples, over a whole run of steps."""
    flags = ("--per_device_train_batch_size", "8", "--iva_layer", "1", "--tpa_sampling", sampling)
    merged = steps(run(tmp_path / "merged", *flags), *TERMS)
    plain = steps(run(tmp_path / "plain", *flags, "--merge_draws", "False"), *TERMS)
    paper = steps(run(tmp_path / "paper", *flags, "--merge_draws", "False", "--ribbon", "algorithm1"), *TERMS)
    packed = steps(run(tmp_path / "packed", *flags, "--packing", "True"), *TERMS)
    # float32, drifting apart over the steps
    for ours, unmerged, single, row in zip(merged, plain, paper, packed, strict=True):
        assert unmerged == pytest.approx(ours, rel=1e-3)
        assert row == pytest.approx(ours, rel=1e-3)
        assert single == pytest.approx(ours, rel=1e-3)
    for name, rows in (("plain", False), ("packed", True)):
        record = json.loads((tmp_path / name / "run_config.json").read_text())
        assert record["resolved"] == {"packing": rows, "ribbon_backend": "sdpa"}, "auto, and given"


def test_compiled_losses_train_alike(run, tmp_path, compiler):
    flags = ("--per_device_train_batch_size", "8", "--iva_layer", "1")
    plain = steps(run(tmp_path / "plain", *flags), *TERMS)
    calls = kl_family.fuse.cache_info().hits
    fused = steps(run(tmp_path / "fused", *flags, "--compile_losses", "True"), *TERMS)
    assert kl_family.fuse.cache_info().hits > calls, "the compiled function ran"
    for one, other in zip(plain, fused, strict=True):
        assert other == pytest.approx(one, rel=1e-3)


def test_accumulation_does_not_change_the_training(run, tmp_path):
    """1 x 8 equals 4 x 2, the draws of TPA included: they belong to the samples.

    The seed is one with which none of some 2,000 draws lies within rounding of the edge between two tokens.
    """
    seed = ("--seed", "1")
    whole = run(tmp_path / "a", "--per_device_train_batch_size", "8", "--iva_layer", "1", *seed)
    split = run(
        tmp_path / "b",
        "--per_device_train_batch_size",
        "2",
        "--gradient_accumulation_steps",
        "4",
        "--iva_layer",
        "1",
        *seed,
    )
    for ours, theirs in zip(steps(whole, *TERMS), steps(split, *TERMS), strict=True):
        assert theirs == pytest.approx(ours, rel=2e-4)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    for name in one:
        assert torch.allclose(one[name], other[name], atol=1e-4), name


def test_gradient_checkpointing_does_not_change_the_training(run, tmp_path):
    flags = ("--per_device_train_batch_size", "8", "--iva_layer", "1")
    plain = steps(run(tmp_path / "a", *flags), *TERMS)
    checkpointed = steps(run(tmp_path / "b", *flags, "--gradient_checkpointing", "True"), *TERMS)
    for ours, theirs in zip(plain, checkpointed, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)


def test_a_killed_run_resumes_to_the_same_losses(run, tmp_path):
    flags = ("--per_device_train_batch_size", "4", "--save_strategy", "steps", "--save_steps", "2", "--iva_rows", "2")
    out = tmp_path / "run"
    uninterrupted = steps(run(out, *flags), *TERMS)
    final = (out / "model.safetensors").read_bytes()
    as_if_killed_after(out, 2)
    resumed = steps(run(out, *flags), *TERMS)
    assert resumed == uninterrupted
    assert (out / "model.safetensors").read_bytes() == final


def test_the_student_learns_from_the_teacher(run, tmp_path):
    flags = (
        "--per_device_train_batch_size",
        "8",
        "--num_train_epochs",
        "8",
        "--iva_layer",
        "1",
        "--learning_rate",
        "1e-2",
    )
    rows = steps(run(tmp_path, *flags), *TERMS)
    for column in (1, 2, 4):
        assert rows[-1][column] < 0.7 * rows[0][column]


def test_a_copied_tower_runs_once_a_step(run, tmp_path, tuned_teacher, monkeypatch):
    """The teacher has its own copy of the student's tower, in its folder, under another path."""
    calls = []
    forward = VisionTower.forward
    monkeypatch.setattr(VisionTower, "forward", lambda tower, images: calls.append(tower) or forward(tower, images))
    flags = ("--per_device_train_batch_size", "8", "--max_steps", "2", "--iva_layer", "1")
    teacher = Path(shutil.copytree(tuned_teacher, tmp_path / "teacher"))
    shared = steps(run(tmp_path / "shared", *flags, "--teacher_path", str(teacher)), *TERMS)
    assert len(calls) == 2 and calls[0] is calls[1]

    weights = load_file(teacher / "vision_tower/model.safetensors")
    last = next(tensor for name, tensor in weights.items() if "layers.1.mlp.fc2.bias" in name)
    last[-1] += 1e-6  # another tower, which hardly sees anything else
    save_file(weights, teacher / "vision_tower/model.safetensors", {"format": "pt"})
    apart = steps(run(tmp_path / "apart", *flags, "--teacher_path", str(teacher)), *TERMS)
    assert len(calls) == 2 + 2 * 2
    for one, other in zip(shared, apart, strict=True):
        assert other == pytest.approx(one, rel=1e-3)


def test_the_teacher_is_left_alone(run, tmp_path, tuned_teacher):
    before = (tuned_teacher / "model.safetensors").read_bytes()
    run(tmp_path, "--per_device_train_batch_size", "8", "--max_steps", "1")
    assert (tuned_teacher / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--tpa_d", "0"), "tpa_d is 0"),
        (("--losses", "sft,magic"), "sft, kd, iva, tpa"),
        (("--iva_layer", "3"), "3 layers, 0 to 2"),
        (("--iva_layer", "last"), "a layer number"),
        (("--tpa_top_p", "0"), "probability"),
        (("--ribbon_backend", "teleport"), "sdpa"),
        (("--packing", "True", "--ribbon", "algorithm1"), "dense mask"),
        (("--divergence", "chi2"), "forward_kl"),
        (("--version", "nope"), "qwen"),
        (("--gradient_checkpointing_kwargs", '{"use_reentrant": true}'), "use_reentrant is True; it must be false"),
    ],
)
def test_wrong_settings_are_refused_before_training(run, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path, *flags)


def test_different_tokenizers_are_refused_by_name(run, tmp_path, world):
    other = tmp_path / "other-lm"
    shutil.copytree(world.student_lm, other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["zebra_crossing"])
    tokenizer.save_pretrained(other)
    with pytest.raises(InputError, match="(?s)other-lm.*zebra_crossing|zebra_crossing.*other-lm"):
        run(tmp_path / "out", "--model_name_or_path", str(other))


def test_a_teacher_of_the_wrong_kind_is_refused(run, tmp_path, world):
    with pytest.raises(InputError):
        run(tmp_path, "--teacher_path", str(world.teacher_lm))
    with pytest.raises(InputError):
        run(tmp_path, "--teacher_path", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("losses, weights", [("sft,kd,iva,tpa", "teacher"), ("sft,iva,rel", "uniform")])
def test_the_held_out_divergence_does_not_depend_on_the_batch(losses, weights, run, world, tmp_path):
    """Every term of the loss on held-out data, token by token (IVA: sample by sample)."""
    seen = []
    for size in ("3", "24"):
        log = run(
            tmp_path / size, "--per_device_train_batch_size", "8", "--max_steps", "1", "--eval_strategy", "steps",
            "--eval_steps", "1", "--eval_data_path", str(world.data), "--per_device_eval_batch_size", size,
            "--losses", losses, "--iva_weights", weights,
        )  # fmt: skip
        entry = next(entry for entry in log if "eval_loss" in entry)
        seen.append([entry[f"eval_{name}"] for name in losses.split(",")])
    assert all(value > 0 for value in seen[0])
    assert seen[0] == pytest.approx(seen[1], rel=1e-3)


def test_iva_weighs_by_the_student_or_equally(run, tmp_path):
    """The student's layers are scored where asked (it has 2, the teacher 3); equal weights need no scores."""
    flags = ("--per_device_train_batch_size", "8", "--max_steps", "1", "--losses", "sft,iva", "--iva_weights")
    student = run(tmp_path / "student", *flags, "student")
    assert len(json.loads((tmp_path / "student/irs.json").read_text())["scores"]) == 2
    uniform = run(tmp_path / "uniform", *flags, "uniform")
    assert not (tmp_path / "uniform/irs.json").exists()
    assert json.loads((tmp_path / "uniform/run_config.json").read_text())["iva"]["layer"] is None
    ((student_iva,), (uniform_iva,)) = steps(student, "iva") + steps(uniform, "iva")
    assert uniform_iva > student_iva > 0  # a student's weights sum to less than 1
    with pytest.raises(InputError, match="student has 2 layers, 0 to 1"):
        run(tmp_path / "refused", *flags, "student", "--iva_layer", "2")


def test_the_layers_of_a_student_in_pieces_are_not_scored(tmp_path):
    """ZeRO-3 has split it before it could run; a layer number is asked for."""
    student = torch.nn.Linear(2, 2)
    student.weight.ds_id = 0
    student.config = SimpleNamespace(num_hidden_layers=24)
    arguments = DistillArguments("teacher", iva_weights="student")
    with pytest.raises(InputError, match="give a layer number, 0 to 23"):
        run = SimpleNamespace(output_dir=tmp_path, seed=0, process_index=0, world_size=1)
        distill.choose_iva_layer(student, "student", range(3), None, arguments, run)
