"""Students of the tables for the figures: of the same seeds, trained as they would be now."""

import json

import pytest

from align_ti.studies.tables.recipe import recipe
from align_ti.studies.tables.runs import RUNS
from align_ti.studies.tables.students import find_students
from align_ti.studies.tables.trial import plan_trials
from llava.errors import InputError


@pytest.fixture
def tables(models, setting):
    """SFT of seeds 0 to 2, vanilla KD of 1 and 2, and a third seed of it that is being trained."""
    for run, seed, done in (("sft", 0, 1), ("sft", 1, 1), ("sft", 2, 1), ("sft+kd", 2, 1), ("sft+kd", 1, 1),
                            ("sft+kd", 0, 0)):  # fmt: skip
        (trial,) = plan_trials({run: RUNS[run]}, [seed], models / "tables")
        trial.model.mkdir(parents=True)
        trial.recipe_file.write_text(json.dumps(recipe(trial, setting())))
        if done:
            (trial.model / "trainer_state.json").write_text("{}")
    return models / "tables"


def seeds(found):
    return {name: [trial.seed for trial in trials] for name, trials in found.items()}


def test_of_the_same_seeds(tables, setting):
    names = {"SFT": "sft", "vanilla KD": "sft+kd", "TPA": "sft+kd+tpa"}
    assert seeds(find_students(tables, names, setting())) == {"SFT": [1, 2], "vanilla KD": [1, 2]}
    assert seeds(find_students(tables, {"SFT": "sft"}, setting())) == {"SFT": [0, 1, 2]}
    assert find_students(tables, {"TPA": "sft+kd+tpa"}, setting()) == {}


def test_trained_with_flags_of_their_own(tables, setting):
    """Whatever the flags now say, as long as they were made alike and their teacher is the present one."""
    other = setting("--eval_root", "/none", "--learning_rate", "1")
    names = {"SFT": "sft", "vanilla KD": "sft+kd"}
    assert seeds(find_students(tables, names, other)) == {"SFT": [1, 2], "vanilla KD": [1, 2]}
    (tables / "sft" / "seed0.bak").mkdir()
    recipe_file = tables / "sft+kd" / "seed2" / "recipe.json"
    made = json.loads(recipe_file.read_text())
    recipe_file.write_text(json.dumps(made | {"learning_rate": "5e-4"}))
    with pytest.raises(InputError, match="cannot be compared: learning_rate is '5e-4' and '1e-3'"):
        find_students(tables, names, other)
    recipe_file.write_text(json.dumps(made | {"teacher_path": "weights old"}))
    with pytest.raises(
        InputError, match="seed2 was trained with different settings: its teacher_path is 'weights old'"
    ):
        find_students(tables, names, other)
    with pytest.raises(InputError, match="no run 'x'"):
        find_students(tables, {"SFT": "x"}, other)
