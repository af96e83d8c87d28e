"""Memory against hand calculations: what always stands, DeepSpeed's JSON, and the parts that a method adds."""

from dataclasses import replace
from pathlib import Path

import pytest
import transformers
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from llava.errors import InputError
from llava.train.arguments import ModelArguments
from llava.train.plan import Method, PlanArguments
from llava.train.plan.batch import Batch, longest_batch
from llava.train.plan.deepspeed_json import Zero, read_zero
from llava.train.plan.memory import moments, peak
from llava.train.plan.run import Run
from llava.train.plan.standing import CUDA_BYTES, standing
from llava.train.plan.text import planned_run

SIGLIP = "google/siglip-so400m-patch14-384"
GIB = 2**30
FOLDER = Path(__file__).parents[3] / "scripts/deepspeed"
ZERO = {stage: str(FOLDER / f"zero{stage}.json") for stage in (1, 2, 3)}
PAIRS = [
    ("Qwen/Qwen2-7B", "Qwen/Qwen2-0.5B"),
    ("Qwen/Qwen2-7B", "Qwen/Qwen2-1.5B"),
    ("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B"),
    ("Qwen/Qwen3-8B", "Qwen/Qwen3-1.7B"),
    ("Qwen/Qwen3-4B", "Qwen/Qwen3-0.6B"),
    ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-0.6B"),
    ("lmsys/vicuna-7b-v1.5", "mtgv/MobileLLaMA-1.4B-Chat"),
]


def arguments(**changes) -> PlanArguments:
    """ZeRO-2, bf16, checkpointing, 4 samples of 2,048 tokens a GPU, 8 GPUs."""
    usual = {
        "per_device_train_batch_size": 4, "model_max_length": 2048, "bf16": True, "gradient_checkpointing": True,
        "deepspeed": ZERO[2], "plan_gpus": 8,
    }  # fmt: skip
    return PlanArguments(**usual | changes)


def run_of(student: str, planned: PlanArguments, method: Method | None = None, **model) -> Run:
    given = ModelArguments(student, vision_tower=SIGLIP, mm_projector_type="mlp2x_gelu", **model)
    return planned_run(given, planned, method)


def method(teacher: str = "Qwen/Qwen2-7B", **changes) -> Method:
    return Method(teacher, chunk_rows=lambda vocabulary: 110, **changes)


def small(planned: PlanArguments, changes: Method | None = None) -> Run:
    return run_of("Qwen/Qwen2-0.5B", planned, changes)


def parts_at(run: Run, when: str) -> dict[str, float]:
    return next(moment.parts for moment in moments(run) if moment.when == when)


def at_once(run: Run) -> dict[str, float]:
    return standing(run, read_zero(run.arguments.deepspeed, run.student.shape.hidden))


@pytest.mark.parametrize("teacher, student", PAIRS)
@pytest.mark.parametrize("gpus", [8, 16])
def test_every_recipe_by_hand(teacher, student, gpus):
    """A replicated teacher whose tower is shared; nothing but the optimizer and gradients is divided."""
    run = run_of(student, arguments(plan_gpus=gpus), method(teacher))
    assert run.trained == run.student.language + run.student.projector
    parts = at_once(run)
    assert parts["weights"] == 2 * run.student.total and parts["CUDA, assumed"] == CUDA_BYTES
    assert parts["gradients"] == 2 * run.trained / gpus and parts["optimizer"] == 12 * run.trained / gpus
    assert run.teacher is not None
    assert parts["teacher weights"] == 2 * (run.teacher.language + run.teacher.projector)
    assert 3 < peak(run).total / GIB < 45
    split = at_once(run_of(student, arguments(plan_gpus=gpus), method(teacher, sharded=True)))
    assert split["teacher weights"] == parts["teacher weights"] / gpus
    assert split["gathered teacher weights"] <= 2 * 1.05e9


def test_lora_trains_adapters_and_the_projector():
    """Qwen2-7B's adapters of rank 8 are 20,185,088 parameters, of rank 64 eight times as many."""
    run = run_of("Qwen/Qwen2-7B", arguments(lora_enable=True, lora_r=64))
    assert run.trained == 8 * 20_185_088 + run.student.projector and not run.trains_language
    parts = at_once(run)
    assert parts["weights"] == 2 * (run.student.total + 8 * 20_185_088)
    assert parts["optimizer"] == 12 * run.trained / 8


def test_stage_1_trains_the_projector():
    run = run_of("Qwen/Qwen2-7B", arguments(), tune_mm_mlp_adapter=True)
    assert run.trained == run.student.projector
    assert parts_at(run, "the end of the backward")["gradients"] == 2 * run.trained / 8


def test_zero_stages_divide_what_they_say():
    runs = {stage: run_of("Qwen/Qwen2-7B", arguments(deepspeed=ZERO.get(stage))) for stage in (None, 1, 2, 3)}
    found = {stage: at_once(run) for stage, run in runs.items()}
    size, trained = runs[None].student, runs[None].trained
    assert found[None]["weights"] == 4 * size.total and found[None]["optimizer"] == 8 * trained
    assert found[None]["DDP's buckets"] == 4 * trained and "gradients" not in found[None]
    assert found[1]["weights"] == found[2]["weights"] == 2 * size.total and found[3]["weights"] == 2 * size.total / 8
    assert found[1]["optimizer"] == found[2]["optimizer"] == found[3]["optimizer"] == 12 * trained / 8
    ends = {stage: parts_at(run, "the end of the backward")["gradients"] for stage, run in runs.items()}
    assert ends == {None: 4 * trained, 1: 2 * trained, 2: 2 * trained / 8, 3: 2 * trained / 8}
    assert parts_at(runs[2], "the optimizer's step")["optimizer's gradients"] == 4 * trained / 8
    assert "optimizer's gradients" not in parts_at(runs[None], "the optimizer's step")


@pytest.mark.parametrize("stage", [2, 3])
def test_offload(stage):
    run = run_of("Qwen/Qwen2-7B", arguments(deepspeed=str(FOLDER / f"zero{stage}_offload.json")))
    parts = at_once(run)
    assert "optimizer" not in parts and (parts["weights"] == 0) == (stage == 3)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_auto_is_resolved_as_transformers_does(file, tmp_path):
    """Sizes of buffers against those that transformers writes into DeepSpeed's configuration."""
    given = HfTrainerDeepSpeedConfig(str(file))
    training = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    model = type("Model", (), {"config": type("Config", (), {"hidden_size": 896})()})()
    given.trainer_config_process(training)
    given.trainer_config_finalize(training, model, 10)
    zero = given.config["zero_optimization"]
    found = read_zero(str(file), 896)
    buffers = 2 if zero["stage"] == 2 else 1
    assert (found.stage, found.buckets) == (zero["stage"], buffers * zero["reduce_bucket_size"])
    if zero["stage"] == 3:
        live = zero["stage3_max_live_parameters"] + zero["stage3_prefetch_bucket_size"]
        assert found.gathered == live


def test_what_a_json_leaves_out_is_deepspeeds_default(tmp_path):
    file = tmp_path / "zero.json"
    file.write_text('{"zero_optimization": {"stage": 2}}')
    assert read_zero(str(file), 896) == Zero(stage=2, buckets=500_000_000)
    file.write_text('{"zero_optimization": {"stage": 3}}')
    assert read_zero(str(file), 896).gathered == 1_050_000_000
    file.write_text("{}")
    assert read_zero(str(file), 896) == read_zero(None, 896) == Zero()


@pytest.mark.parametrize("text", ["[]", "{", '{"zero_optimization": {"stage": "two"}}'])
def test_no_deepspeed_json(text, tmp_path):
    (tmp_path / "zero.json").write_text(text)
    with pytest.raises(InputError, match="not a DeepSpeed JSON"):
        read_zero(str(tmp_path / "zero.json"), 64)


# ---- what methods add ----


def test_logits_of_the_supervised_loss():
    """2,048 rows at most: log-probabilities, and two gradients of their size, in float32."""
    run = small(arguments())
    assert parts_at(run, "the loss of the responses")["logits"] == 12 * 2048 * 151_936
    few = replace(run, batch=Batch(4, 800, 729, 20))
    assert parts_at(few, "the loss of the responses")["logits"] == 12 * 80 * 151_936


def test_heads_hold_rows_a_chunk_and_the_heads_gradient_in_float32():
    """KD of 4 x 1,268 supervised tokens between Qwen2-7B (3,584 wide) and 0.5B (896 wide), bf16."""
    run = small(arguments(), method())
    rows = 4 * (2048 - 729 - 51)
    held = rows * (2 * 896 * 2 + 3584 * 2)
    chunk = 110 * 151_936 * (3 * 2 + 16)
    assert parts_at(run, "the losses")["heads"] == held + 4 * 151_936 * 896 + max(chunk, 2 * 151_936 * 896)
    with_iva = small(arguments(), method(visual_rows=True))
    more = parts_at(with_iva, "the losses")["heads"] - parts_at(run, "the losses")["heads"]
    assert more == 4 * 729 * (2 * 896 * 2 + 3584 * 2)
    drawn = small(arguments(), method(visual_rows=True, drawn_rows=128))
    more = parts_at(drawn, "the losses")["heads"] - parts_at(run, "the losses")["heads"]
    assert more == pytest.approx(4 * 128 * (2 * 896 * 2 + 3584 * 2))


def test_a_frozen_head_has_no_gradient():
    run = run_of("Qwen/Qwen2-0.5B", arguments(lora_enable=True), method())
    whole = small(arguments(), method())
    more = parts_at(whole, "the losses")["heads"] - parts_at(run, "the losses")["heads"]
    assert more >= 4 * 151_936 * 896


def test_prefix_keeps_keys_and_values_of_both_models():
    """404 and 86 MB for 8 samples of 880 tokens."""
    run = replace(small(arguments(), method(candidates=4)), batch=Batch(8, 880, 729, 100, 1.0))
    parts = parts_at(run, "the teacher's candidates")
    assert parts["teacher's keys and values"] == 2 * 28 * 4 * 128 * 7040 * 2 == pytest.approx(404e6, rel=0.01)
    assert parts["student's keys and values"] == 2 * 24 * 2 * 64 * 7040 * 2 == pytest.approx(86e6, rel=0.01)
    assert "teacher's keys and values" not in parts_at(run, "the losses")  # released before the student's candidates
    whole = replace(run, arguments=arguments(gradient_checkpointing=False))
    assert "student's keys and values" not in parts_at(whole, "the teacher's candidates")  # among its activations
    padded = replace(whole, batch=replace(run.batch, padded=True))  # which then hold repeated ones
    assert parts_at(padded, "the teacher's candidates")["student's keys and values"] == 2 * 24 * 2 * 64 * 7040 * 2


def test_padding_makes_masks_and_repeats_keys():
    """Without checkpointing every layer keeps its mask as numbers, and keys and values of 14 heads instead of 2."""
    run = replace(small(arguments(gradient_checkpointing=False)), batch=Batch(4, 1000, 729, 200))
    padded = replace(run, batch=replace(run.batch, padded=True))
    kept = [parts_at(one, "the loss of the responses")["student activations"] for one in (padded, run)]
    assert kept[0] - kept[1] == 4 * 1000**2 + 24 * (4 * 1000**2 * 2 + 2 * (14 - 2) * 64 * 4000 * 2)


def test_algorithm_1_is_one_longer_sequence_under_a_mask():
    batch = Batch(2, 900, 729, 100, 4.0)
    plain = replace(small(arguments(), method()), batch=replace(batch, rows=0.0))
    run = replace(small(arguments(), method(candidates=4, interleaved=True)), batch=batch)
    length = 900 + 400
    more = parts_at(run, "the losses")["student activations"] - parts_at(plain, "the losses")["student activations"]
    rows = 2 * 400
    inputs, norm = 24 * 896 * 2, 896 * (4 + 2)
    assert more == rows * (inputs + norm) + 2 * length**2
    hidden = [parts_at(one, "the losses")["student hidden states"] for one in (run, plain)]
    assert hidden == [2 * 2 * length * 896 * 2, 2 * 900 * 896 * 2]  # once more, taken apart
    numbers = 2 * length**2 * 2
    open_run = replace(run, arguments=arguments(gradient_checkpointing=False))
    flat = replace(plain, arguments=arguments(gradient_checkpointing=False))
    kept = [parts_at(one, "the losses")["student activations"] for one in (open_run, flat)]
    assert kept[0] - kept[1] > 24 * numbers  # kept once a layer without checkpointing


def test_blocks_of_candidates_copy_their_keys():
    batch = Batch(2, 900, 729, 100, 4.0)
    planned = arguments(gradient_checkpointing=False)
    found = [
        parts_at(replace(small(planned, method(candidates=4, ribbon_block=block)), batch=batch), "the losses")
        for block in (None, 128)
    ]
    keys = 2 * 24 * 128 * 1800 * 2
    masks = 800 * 7 * (900 + 128) * 2
    assert found[1]["candidates"] - found[0]["candidates"] == 3 * keys + masks  # 400 candidates are 4 blocks


def test_responses_of_the_student_need_its_cache():
    run = small(arguments(), method(on_policy=0.5, new_tokens=128))
    parts = parts_at(run, "the student's responses")
    assert parts["student's keys and values"] == 2 * 24 * 128 * 2 * (4 * 2048 + 4 * 128)
    assert all(moment.when != "the student's responses" for moment in moments(small(arguments(), method())))


def test_relations_of_visual_tokens():
    parts = [parts_at(small(arguments(), method(relations=on)), "the losses")["heads"] for on in (False, True)]
    assert parts[1] - parts[0] >= 4 * 5 * 4 * 729**2


def test_the_longest_batch():
    """All of the text but a short prompt supervised, one row for each draw; a little padding if there are several."""
    batch = longest_batch(arguments(), method(candidates=4), 729)
    assert batch == Batch(4, 2048, 729, 2048 - 729 - 51, 4, padded=True)
    assert not longest_batch(arguments(), method(packing=True), 729).padded
    assert not longest_batch(arguments(per_device_train_batch_size=1), None, 729).padded
    assert longest_batch(arguments(plan_candidate_rows=1.5), method(candidates=4), 729).rows == 1.5
    assert longest_batch(arguments(), method(), 729).rows == 0


def test_the_longest_batch_of_a_number_of_tokens():
    """As few samples as fill it; a sample longer than that is alone; never more than an optimizer step has."""
    filled = longest_batch(arguments(max_tokens_per_batch=5000), method(packing=True), 729)
    assert filled == Batch(3, 5000 / 3, 729, 5000 / 3 - 729 - 51, 0) and filled.places == 5000
    assert longest_batch(arguments(max_tokens_per_batch=900), None, 729) == Batch(1, 2048, 729, 2048 - 729 - 51, 0)
    step = arguments(max_tokens_per_batch=10**6, gradient_accumulation_steps=2)
    assert longest_batch(step, None, 729) == Batch(8, 2048, 729, 2048 - 729 - 51, 0, padded=True)


def test_a_tower_of_its_own_stands_beside(world):
    """A teacher that sees through another layer of the tower keeps a tower of its own."""
    run = small(arguments(), method())
    assert run.teacher is not None
    tower = replace(run.teacher.tower, layers=run.teacher.tower.layers - 1)
    other = replace(run, teacher=replace(run.teacher, tower=tower))
    assert at_once(other)["teacher weights"] - at_once(run)["teacher weights"] == 2 * tower.parameters


def test_parts_of_a_moment_are_positive():
    for planned in (arguments(), arguments(deepspeed=None, gradient_checkpointing=False)):
        for moment in moments(small(planned, method(candidates=4, visual_rows=True, attention_map=True))):
            assert all(value > 0 for value in moment.parts.values()) and moment.total == sum(moment.parts.values())
