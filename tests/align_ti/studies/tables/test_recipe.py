"""Whatever decides how a student is made is in its recipe, read off the real recipes; what does not is not."""

import json
import shutil
from dataclasses import replace

import pytest

from align_ti.recipes.resolve import resolve
from align_ti.studies.tables.catalogue import find_table, with_teachers
from align_ti.studies.tables.recipe import check_flags, check_recipes, check_teacher, made_by, recipe
from align_ti.studies.tables.record import keep
from align_ti.studies.tables.runner import Work, take_kept
from align_ti.studies.tables.runs import find_runs
from align_ti.studies.tables.setting import Setting
from align_ti.studies.tables.trial import plan_trials
from llava.errors import InputError


@pytest.fixture
def trial(models):
    return plan_trials(find_runs(["sft+kd"]), [0], models / "tables")[0]


def test_of_a_resolved_recipe(setting):
    made = made_by(
        resolve("align-ti", "mini", ["--tpa_d", "2", "--packing", "--seed", "3", "--bf16", "--weight_decay=0"])
    )
    assert (made["module"], made["tpa_d"], made["batch"]) == ("align_ti.training.train", "2", "32")
    assert (made["bf16"], made["weight_decay"], made["warmup_ratio"]) == ("True", "0", "0.03")
    assert not {"output_dir", "run_name", "seed", "packing", "dataloader_num_workers", "deepspeed"} & set(made)
    assert "per_device_train_batch_size" not in made and "group_by_modality_length" in made


@pytest.mark.parametrize(
    ("flag", "value", "name"),
    [
        ("num_train_epochs", "5", "num_train_epochs"),
        ("learning_rate", "1e-9", "learning_rate"),
        ("global_batch", "8", "batch"),
        ("model_max_length", "64", "model_max_length"),
        ("version", "qwen", "version"),
        ("data_path", "/other.json", "data_path"),
        ("teacher_path", "/other/teacher", "teacher_path"),
        ("model_name_or_path", "/other", "model_name_or_path"),
        ("tpa_d", "1", "tpa_d"),
        ("iva_layer", "1", "iva_layer"),
        ("eval_conv_mode", "qwen", "conv_mode"),
    ],
)
def test_every_flag_of_the_table_counts(trial, setting, flag, value, name):
    before = recipe(trial, setting())
    after = recipe(trial, setting(f"--{flag}", value))
    assert [key for key in after if after[key] != before.get(key)] == [name]


def test_the_pair_counts(trial, setting):
    flags = setting().flags
    before, after = recipe(trial, setting()), recipe(trial, Setting("mini-llama", flags))
    assert [key for key in after if after[key] != before.get(key)] == ["teacher_path"]
    with pytest.raises(InputError, match="no pair 'none'"):
        recipe(trial, Setting("none"))


def test_a_student_without_a_teacher_has_none(models, setting):
    sft = plan_trials(find_runs(["sft"]), [0], models)[0]
    made = recipe(sft, setting("--teacher_path", str(models / "teacher")))
    assert "teacher_path" not in made and made["module"] == "llava.train.train"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("per_device_train_batch_size", "4"),
        ("compile_losses", "True"),
        ("image_folder", "/pictures"),
        ("bf16_full_eval", "True"),
    ],
)
def test_the_machine_does_not_count(trial, setting, monkeypatch, flag, value):
    before = recipe(trial, setting())
    monkeypatch.setenv("NUM_GPUS", "8")
    monkeypatch.setenv("CPU_PROCESSES", "2")
    assert recipe(trial, setting(f"--{flag}", value)) == before
    assert before["batch"] == "32" and before["losses"] == "sft,kd" and before["module"] == "align_ti.training.train"


def test_several_data_files_in_their_order(trial, models, setting):
    for name in "ab":
        (models / f"{name}.json").write_text(f'["{name}"]')
    made = []
    for order in ("ab", "ba"):
        files = ",".join(str(models / f"{name}.json") for name in order)
        made.append(recipe(trial, setting("--data_path", files))["data_path"])
    one, other = made[0].split(", ")
    assert made[1] == f"{other}, {one}" and one.startswith("content ") and one != other


def test_a_folder_with_letters_beyond_ascii(trial, models, setting):
    before = recipe(trial, setting())
    (models / "teacher").rename(models / "maître")
    assert recipe(trial, setting("--teacher_path", str(models / "maître"))) == before


def test_models_and_data_count_by_what_is_in_them(trial, models, mini_data, setting):
    before = recipe(trial, setting(), held_out=mini_data / "held_out.json")
    (models / "teacher").rename(models / "moved")
    copy = models / "mini"
    shutil.copytree(mini_data, copy)
    moved = setting("--teacher_path", str(models / "moved"), "--data_root", str(copy))
    moved = replace(moved, flags=(*moved.flags, "--vision_tower", str(mini_data / "models" / "tower")))
    assert recipe(trial, moved, held_out=copy / "held_out.json") == before

    (models / "moved" / "model.safetensors").write_text("trained again")
    (copy / "finetune.json").write_text("[]")
    (copy / "held_out.json").write_text("[]")
    after = recipe(trial, moved, held_out=copy / "held_out.json")
    assert [name for name in after if after[name] != before[name]] == ["teacher_path", "data_path", "held_out_data"]
    questions = copy / "eval" / "gqa" / "llava_gqa_testdev_balanced.jsonl"
    questions.write_text(questions.read_text().splitlines(keepends=True)[0])
    (copy / "eval").rename(copy / "other")  # the questions of a folder are read once
    other = replace(moved, flags=(*moved.flags, "--eval_root", str(copy / "other")))
    assert recipe(trial, other)["benchmarks"] != before["benchmarks"]


def test_benchmarks_that_are_not_there(trial, setting):
    with pytest.raises(InputError, match="folder of GQA not found"):
        recipe(trial, setting("--eval_root", "/none"))


@pytest.mark.parametrize("left", ["model", "eval", "held_out.json"])
def test_a_student_with_other_settings_does_not_count_as_finished(trial, models, setting, left):
    """Neither one that was begun nor one whose model was removed and whose scores are still there."""
    check_recipes([trial], setting())
    trial.folder.mkdir(parents=True)
    trial.recipe_file.write_text(json.dumps(recipe(trial, setting("--max_steps", "1"))))
    check_recipes([trial], setting("--max_steps", "2"))  # nothing came of it
    (trial.folder / left).touch()
    check_recipes([trial], setting("--max_steps", "1"))
    with pytest.raises(InputError, match="its max_steps is '1', now it would be '2'; remove the folder"):
        check_recipes([trial], setting("--max_steps", "2"))
    with pytest.raises(InputError, match="its max_steps is '1', now it would be 'not set'"):
        check_recipes([trial], setting())
    (models / "teacher" / "model.safetensors").write_text("trained again")
    with pytest.raises(InputError, match="its teacher_path is 'weights .*', now it would be 'weights "):
        check_recipes([trial], setting("--max_steps", "1"))
    trial.recipe_file.write_text("{")
    with pytest.raises(InputError, match="recipe.json is not valid JSON.*remove it"):
        check_recipes([trial], setting())


def test_a_finished_student_with_other_settings(trial, finish, mini_data, setting):
    data = mini_data / "held_out.json"
    finish(trial, 5.0, made=recipe(trial, setting()))
    check_recipes([trial], setting(), held_out=data)  # its held-out loss was not asked for yet
    with pytest.raises(InputError, match="its max_steps is 'not set', now it would be '2'"):
        check_recipes([trial], setting("--max_steps", "2"))
    with pytest.raises(InputError, match="num_train_epochs is '0.67', now it would be '0.335'"):
        check_recipes([replace(trial, run=replace(trial.run, data_share=50))], setting())
    shutil.rmtree(trial.folder)
    finish(trial, 5.0, held_out=0.7, made=recipe(trial, setting(), held_out=data))
    check_recipes([trial], setting())
    with pytest.raises(InputError, match="its held_out_data is 'content"):
        check_recipes([trial], setting(), held_out=mini_data / "finetune.json")


def test_records_of_another_machine(models, setting, tmp_path, finish):
    """They stand in for students that would be made in the same way, the last of them, and for no others."""
    kept = tmp_path / "out" / "trials.jsonl"
    here = plan_trials(find_runs(["sft", "sft+kd"]), [0, 1], tmp_path / "here")
    for score, trial in enumerate([here[0], here[1], here[0]]):
        shutil.rmtree(trial.folder, ignore_errors=True)
        finish(trial, float(score), held_out=0.7, made=recipe(trial, setting()))
        keep(kept, trial.record())
    there = plan_trials(find_runs(["sft", "sft+kd"]), [0, 1], tmp_path / "there")
    there[1].model.mkdir(parents=True)  # one that is being trained goes on
    take_kept(there, Work(setting(), kept=kept))
    assert [trial.is_finished(with_held_out=True) for trial in there] == [True, False, False, False]
    assert there[0].record() == here[0].record() and there[0].record().scores["gqa"] == 2
    other = plan_trials(find_runs(["sft"]), [0], tmp_path / "other")
    take_kept(other, Work(setting("--max_steps", "1"), kept=kept))
    (models / "student-pretrain" / "model.safetensors").write_text("trained again")
    take_kept(other, Work(setting(), kept=kept))
    assert other[0].record() is None
    take_kept(other, Work(setting(), kept=tmp_path / "none"))
    kept.write_text(kept.read_text() + "{}\n")
    with pytest.raises(InputError, match="line 4 of .*trials.jsonl is not a trial record"):
        take_kept(other, Work(setting(), kept=kept))


def test_a_record_without_the_held_out_loss_is_not_finished_where_it_is_asked_for(trial, finish):
    assert not trial.is_finished(with_held_out=False)
    finish(trial, 5.0)
    assert trial.is_finished(with_held_out=False) and not trial.is_finished(with_held_out=True)


@pytest.mark.parametrize(
    ("table", "flag"),
    [("figure5", "--tpa_d"), ("figure5", "--tpa-d=2"), ("table7", "--iva_layer"), ("table3", "--divergence"),
     ("table15", "--losses"), ("table15", "--seed"), ("figure8", "--max_steps"),
     ("table18", "--num_train_epochs")],
)  # fmt: skip
def test_flags_that_would_make_labels_untrue(table, flag):
    runs = find_runs(find_table(table).runs).values()
    check_flags(runs, ["--kd_temperature", "2", "--iva_weight", "0.5"])
    with pytest.raises(InputError, match="is set by the rows of this table"):
        check_flags(runs, ["--kd_temperature", "2", flag, "2"])
    with pytest.raises(InputError, match="would change the global batch with the number of GPUs; give --global_batch"):
        check_flags(runs, ["--gradient_accumulation_steps", "2"])


def test_a_teacher_that_is_not_there_or_another_one(tmp_path):
    def trial(teacher):
        return plan_trials(with_teachers(find_table("table9"), {"small": teacher})[1], [0], tmp_path)[0]

    with pytest.raises(InputError, match="the teacher /no/such/teacher of 'sft.kd.iva.tpa@small' does not exist"):
        check_teacher(trial("/no/such/teacher"))
    check_teacher(trial("hub/name"))
    check_teacher(trial(str(tmp_path)))
