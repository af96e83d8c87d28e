"""Command lines that are wrong end in one line that says what to do."""

from dataclasses import fields

import pytest

from align_ti.training.arguments import DistillArguments
from llava.errors import InputError
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.parsing import parse_arguments

CLASSES = (DistillArguments, ModelArguments, DataArguments, TrainingArguments)
NEEDED = ["--teacher_path", "t", "--model_name_or_path", "m", "--data_path", "d", "--output_dir", "o"]
WHOLE = [*NEEDED, "--use_cpu", "True"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--tpa-dd", "4"], r"unknown flag --tpa-dd; did you mean --tpa-d\?"),
        (["--learning_rat=1e-5"], r"unknown flag --learning_rat; did you mean --learning_rate\?"),
        (["--learning_r", "1e-5"], r"unknown flag --learning_r; did you mean"),
        (["--zzzzqqq", "4"], "unknown flag --zzzzqqq; --help lists the flags of this stage"),
        (["--tpa_d", "4", "5"], "unexpected argument '5'"),
        (["--tpa_d", "many"], "argument --tpa_d: invalid int value: 'many'"),
    ],
)
def test_one_line(flags, message):
    with pytest.raises(InputError, match=message) as error:
        parse_arguments(*CLASSES, argv=[*WHOLE, *flags])
    assert "\n" not in str(error.value)


def test_what_is_missing_is_named():
    with pytest.raises(InputError, match="required: --teacher_path, --model_name_or_path, --data_path"):
        parse_arguments(*CLASSES, argv=["--output_dir", "o"])


@pytest.mark.parametrize("flag", sorted(field.name for field in fields(DistillArguments)))
def test_a_flag_of_distillation_is_not_taken_for_a_mistyped_one(flag):
    """The supervised stages do not have it, and no flag of theirs means the same."""
    words = ["--model_name_or_path", "m", "--data_path", "d", "--output_dir", "o", f"--{flag}", "1"]
    with pytest.raises(InputError, match=f"unknown flag --{flag}; --help lists.*`align-ti distill --help`") as error:
        parse_arguments(*CLASSES[1:], argv=words)
    assert "did you mean" not in str(error.value)


def test_names_of_older_transformers_are_taken():
    *_, arguments = parse_arguments(*CLASSES, argv=[*WHOLE, "--evaluation_strategy=steps", "--tpa-d", "8"])
    assert arguments.eval_strategy == "steps"
