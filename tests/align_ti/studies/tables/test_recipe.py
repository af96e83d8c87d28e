"""Whatever decides how a student is made is in its recipe, read off the real scripts; what does not is not."""

import json
import shutil
from dataclasses import replace

import pytest

from align_ti.studies.tables.catalogue import find_runs, find_table, with_teachers
from align_ti.studies.tables.recipe import check_flags, check_recipes, check_teacher, read_command, recipe
from align_ti.studies.tables.record import keep
from align_ti.studies.tables.runner import Work, take_kept
from align_ti.studies.tables.trial import plan_trials
from llava.errors import InputError


@pytest.fixture
def trial(models):
    return plan_trials(find_runs(["sft+kd"]), [0], models / "tables")[0]


def test_of_a_command():
    command = "python -m align_ti.training.train --losses sft,kd --x 1 --x=2 --bf16 --num-train-epochs 1 --seed 3"
    split = "--per_device_train_batch_size 4 --gradient_accumulation_steps 8"
    assert read_command([*command.split(), *split.split()]) == {
        "module": "align_ti.training.train", "losses": "sft,kd", "x": "2", "bf16": "True", "num_train_epochs": "1",
        "batch": "32",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("STUDENT_EPOCHS", "5", "num_train_epochs"),
        ("FINETUNE_LR", "1e-9", "learning_rate"),
        ("FINETUNE_BATCH", "8", "batch"),
        ("MAX_LENGTH", "64", "model_max_length"),
        ("TEMPLATE", "qwen", "version"),
        ("STUDENT_FINETUNE_DATA", "/other.json", "data_path"),
        ("TEACHER", "/other/teacher", "teacher_path"),
        ("CHECKPOINTS", "/other", "model_name_or_path"),
    ],
)
def test_every_variable_of_the_environment_counts(trial, monkeypatch, variable, value, name):
    before = recipe(trial)
    monkeypatch.setenv(variable, value)
    after = recipe(trial)
    assert [key for key in after if after[key] != before.get(key)] == [name]


@pytest.mark.parametrize("variable", ["TPA_D", "IVA_LAYER"])
def test_variables_of_one_script(models, monkeypatch, variable):
    trial = plan_trials(find_runs(["sft+kd+iva+tpa"]), [0], models)[0]
    before = recipe(trial)
    monkeypatch.setenv(variable, "1")
    assert recipe(trial) == before | {variable.lower(): "1"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DISTILL_PER_DEVICE", "4"), ("NUM_GPUS", "8"), ("CPU_PROCESSES", "2"), ("COMPILE_LOSSES", "1")],
)
def test_the_machine_does_not_count(trial, monkeypatch, variable, value):
    before = recipe(trial)
    monkeypatch.setenv(variable, value)
    assert recipe(trial) == before
    assert before["batch"] == "32" and before["losses"] == "sft,kd" and before["module"] == "align_ti.training.train"


def test_several_data_files_in_their_order(trial, models, monkeypatch):
    for name in "ab":
        (models / f"{name}.json").write_text(f'["{name}"]')
    made = []
    for order in ("ab", "ba"):
        monkeypatch.setenv("STUDENT_FINETUNE_DATA", ",".join(str(models / f"{name}.json") for name in order))
        made.append(recipe(trial)["data_path"])
    one, other = made[0].split(", ")
    assert made[1] == f"{other}, {one}" and one.startswith("content ") and one != other


def test_a_folder_with_letters_beyond_ascii(trial, models, monkeypatch):
    before = recipe(trial)
    (models / "teacher").rename(models / "maître")
    monkeypatch.setenv("TEACHER", str(models / "maître"))
    monkeypatch.setenv("LC_ALL", "C")
    assert recipe(trial) == before


def test_models_and_data_count_by_what_is_in_them(trial, models, mini_data, monkeypatch):
    before = recipe(trial, held_out=mini_data / "held_out.json")
    (models / "teacher").rename(models / "moved")
    monkeypatch.setenv("TEACHER", str(models / "moved"))
    copy = models / "mini"
    shutil.copytree(mini_data, copy)
    monkeypatch.setenv("MINI", str(copy))
    monkeypatch.setenv("EVAL_ROOT", str(copy / "eval"))
    monkeypatch.setenv("VISION_TOWER", str(mini_data / "models" / "tower"))
    assert recipe(trial, held_out=copy / "held_out.json") == before

    (models / "moved" / "model.safetensors").write_text("trained again")
    (copy / "finetune.json").write_text("[]")
    (copy / "held_out.json").write_text("[]")
    after = recipe(trial, held_out=copy / "held_out.json")
    assert [name for name in after if after[name] != before[name]] == ["teacher_path", "data_path", "held_out_data"]
    questions = copy / "eval" / "gqa" / "llava_gqa_testdev_balanced.jsonl"
    questions.write_text(questions.read_text().splitlines(keepends=True)[0])
    (copy / "eval").rename(copy / "other")  # the questions of a folder are read once
    monkeypatch.setenv("EVAL_ROOT", str(copy / "other"))
    assert recipe(trial)["benchmarks"] != before["benchmarks"]


def test_benchmarks_that_are_not_there(trial, monkeypatch):
    monkeypatch.setenv("EVAL_ROOT", "/none")
    with pytest.raises(InputError, match="folder of GQA not found"):
        recipe(trial)


def test_settings_that_the_script_refuses(trial, monkeypatch):
    monkeypatch.setenv("PRESET", "none")
    with pytest.raises(InputError, match="status 2:\nerror: no preset 'none'"):
        recipe(trial)


@pytest.mark.parametrize("left", ["model", "eval", "held_out.json"])
def test_a_student_made_otherwise_is_not_taken_for_finished(trial, models, left):
    """Neither one that was begun nor one whose model was removed and whose scores are still there."""
    check_recipes([trial])
    trial.folder.mkdir(parents=True)
    trial.recipe_file.write_text(json.dumps(recipe(trial, ["--x", "1"])))
    check_recipes([trial], ["--x", "2"])  # nothing came of it
    (trial.folder / left).touch()
    check_recipes([trial], ["--x", "1"])
    with pytest.raises(InputError, match="its x is '1', now it would be '2'; remove the folder"):
        check_recipes([trial], ["--x", "2"])
    with pytest.raises(InputError, match="its x is '1', now it would be 'not set'"):
        check_recipes([trial])
    (models / "teacher" / "model.safetensors").write_text("trained again")
    with pytest.raises(InputError, match="its teacher_path is 'weights .*', now it would be 'weights "):
        check_recipes([trial], ["--x", "1"])
    trial.recipe_file.write_text("{")
    with pytest.raises(InputError, match="recipe.json is damaged"):
        check_recipes([trial])


def test_a_finished_student_made_otherwise(trial, finish, mini_data):
    data = mini_data / "held_out.json"
    finish(trial, 5.0, made=recipe(trial))
    check_recipes([trial], held_out=data)  # its held-out loss was not asked for yet
    with pytest.raises(InputError, match="its x is 'not set', now it would be '2'"):
        check_recipes([trial], ["--x", "2"])
    with pytest.raises(InputError, match="num_train_epochs is '0.67', now it would be '0.335'"):
        check_recipes([replace(trial, run=replace(trial.run, data_share=50))])
    shutil.rmtree(trial.folder)
    finish(trial, 5.0, held_out=0.7, made=recipe(trial, held_out=data))
    check_recipes([trial])
    with pytest.raises(InputError, match="its held_out_data is 'content"):
        check_recipes([trial], held_out=mini_data / "finetune.json")


def test_records_of_another_machine(models, tmp_path, finish):
    """They stand in for students that would be made in the same way, the last of them, and for no others."""
    kept = tmp_path / "out" / "trials.jsonl"
    here = plan_trials(find_runs(["sft", "sft+kd"]), [0, 1], tmp_path / "here")
    for score, trial in enumerate([here[0], here[1], here[0]]):
        shutil.rmtree(trial.folder, ignore_errors=True)
        finish(trial, float(score), held_out=0.7, made=recipe(trial))
        keep(kept, trial.record())
    there = plan_trials(find_runs(["sft", "sft+kd"]), [0, 1], tmp_path / "there")
    there[1].model.mkdir(parents=True)  # one that is being trained goes on
    take_kept(there, Work(kept=kept))
    assert [trial.is_finished(with_held_out=True) for trial in there] == [True, False, False, False]
    assert there[0].record() == here[0].record() and there[0].record().scores["gqa"] == 2
    other = plan_trials(find_runs(["sft"]), [0], tmp_path / "other")
    take_kept(other, Work(["--x", "1"], kept=kept))
    (models / "student-pretrain" / "model.safetensors").write_text("trained again")
    take_kept(other, Work(kept=kept))
    assert other[0].record() is None
    take_kept(other, Work(kept=tmp_path / "none"))
    kept.write_text(kept.read_text() + "{}\n")
    with pytest.raises(InputError, match="line 4 of .*trials.jsonl is not a trial record"):
        take_kept(other, Work(kept=kept))


def test_a_record_without_the_held_out_loss_is_not_finished_where_it_is_asked_for(trial, finish):
    assert not trial.is_finished(with_held_out=False)
    finish(trial, 5.0)
    assert trial.is_finished(with_held_out=False) and not trial.is_finished(with_held_out=True)


@pytest.mark.parametrize(
    ("table", "flag"),
    [("figure5", "--tpa_d"), ("figure5", "--tpa-d=2"), ("table7", "--iva_layer"), ("table3", "--divergence"),
     ("table15", "--losses"), ("table15", "--seed"), ("table9", "--teacher_path"), ("figure8", "--max_steps"),
     ("table18", "--num_train_epochs")],
)  # fmt: skip
def test_flags_that_would_make_labels_untrue(table, flag):
    runs = find_runs(find_table(table).runs).values()
    check_flags(runs, ["--kd_temperature", "2", "--iva_weight", "0.5"])
    with pytest.raises(InputError, match=f"{flag} is set by the rows of this table"):
        check_flags(runs, ["--kd_temperature", "2", flag, "2"])
    with pytest.raises(InputError, match="would change the global batch with the number of GPUs; set FINETUNE_BATCH"):
        check_flags(runs, ["--gradient_accumulation_steps", "2"])


def test_a_teacher_that_is_not_there_or_another_one(tmp_path):
    def trial(teacher):
        return plan_trials(with_teachers(find_table("table9"), {"small": teacher})[1], [0], tmp_path)[0]

    with pytest.raises(InputError, match="the teacher /no/such/teacher of 'sft.kd.iva.tpa@small' is not there"):
        check_teacher(trial("/no/such/teacher"))
    check_teacher(trial("hub/name"))
    check_teacher(trial(str(tmp_path)))
