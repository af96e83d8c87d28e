"""Students of the tables for the figures: of the same seeds, trained as they would be now."""

import json

import pytest

from align_ti.experiments.catalogue import RUNS
from align_ti.experiments.recipe import recipe
from align_ti.experiments.students import find_students
from align_ti.experiments.trial import plan_trials
from llava.errors import InputError


@pytest.fixture
def tables(models):
    """SFT of seeds 0 to 2, vanilla KD of 1 and 2, and a third seed of it that is being trained."""
    for run, seed, done in (("sft", 0, 1), ("sft", 1, 1), ("sft", 2, 1), ("sft+kd", 2, 1), ("sft+kd", 1, 1),
                            ("sft+kd", 0, 0)):  # fmt: skip
        (trial,) = plan_trials({run: RUNS[run]}, [seed], models / "tables")
        trial.model.mkdir(parents=True)
        trial.recipe_file.write_text(json.dumps(recipe(trial)))
        if done:
            (trial.model / "trainer_state.json").write_text("{}")
    return models / "tables"


def seeds(found):
    return {name: [trial.seed for trial in trials] for name, trials in found.items()}


def test_of_the_same_seeds(tables):
    names = {"SFT": "sft", "vanilla KD": "sft+kd", "TPA": "sft+kd+tpa"}
    assert seeds(find_students(tables, names)) == {"SFT": [1, 2], "vanilla KD": [1, 2]}
    assert seeds(find_students(tables, {"SFT": "sft"})) == {"SFT": [0, 1, 2]}
    assert find_students(tables, {"TPA": "sft+kd+tpa"}) == {}


def test_trained_otherwise(tables, monkeypatch):
    monkeypatch.setenv("EVAL_ROOT", "/none")  # what they were asked does not matter here
    assert find_students(tables, {"SFT": "sft"})
    monkeypatch.setenv("FINETUNE_LR", "1")
    with pytest.raises(InputError, match="sft/seed0 holds a student made otherwise: its learning_rate is '1e-3'"):
        find_students(tables, {"SFT": "sft"})
    with pytest.raises(InputError, match="no run 'x'"):
        find_students(tables, {"SFT": "x"})
