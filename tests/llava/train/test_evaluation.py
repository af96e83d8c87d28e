"""Evaluation during training: held-out terms are token means, and benchmarks score as ``llava.eval.run`` does."""

import json
import re
import shutil

import pytest

from llava.errors import InputError
from llava.eval import run as evaluation


def held_out(log: list[dict]) -> dict[str, float]:
    return next(entry for entry in log if "eval_loss" in entry)


@pytest.mark.parametrize("size", ["1", "5", "24"])
def test_held_out_terms_do_not_depend_on_the_batch(run, world, tmp_path, size):
    """With nothing learnt, the whole data in one training step gives the same mean."""
    log = run(
        tmp_path / "out", "--eval_strategy", "steps", "--eval_steps", "1", "--eval_data_path", str(world.data),
        "--per_device_eval_batch_size", size, "--per_device_train_batch_size", "24", "--max_steps", "1",
        "--learning_rate", "0",
    )  # fmt: skip
    assert held_out(log)["eval_sft"] == pytest.approx(log[0]["sft"], rel=1e-5)


def test_benchmarks_at_every_evaluation(run, benchmarks, tmp_path):
    root, images, data = benchmarks
    out = tmp_path / "out"
    log = run(
        out, "--image_folder", str(images), "--per_device_train_batch_size", "4", "--num_train_epochs", "40",
        "--learning_rate", "2e-2", "--eval_strategy", "steps", "--eval_steps", "20", "--eval_data_path", str(data),
        "--eval_benchmarks", "gqa,pope", "--eval_benchmark_root", str(root),
        data=data,
    )  # fmt: skip
    scored = [entry for entry in log if "eval_gqa" in entry]
    assert [entry["step"] for entry in scored] == [20, 40]
    assert scored[-1]["eval_gqa"] >= 75, "four questions can be learnt by heart"
    assert all(0 <= entry["eval_pope"] <= 100 for entry in scored)
    evaluation.main(
        ["--benchmark", "gqa,pope", "--model-path", str(out), "--eval-root", str(root), "--output-dir"]
        + [str(tmp_path / "scores"), "--conv-mode", "qwen"]
    )
    for name in ("gqa", "pope"):
        assert json.loads((tmp_path / "scores" / f"{name}.json").read_text())["score"] == scored[-1][f"eval_{name}"]


def test_what_cannot_be_asked_is_said_before_a_model_is_loaded(run, benchmarks, tmp_path, world):
    """The language model has no weights, which nobody finds out."""
    root, _, _ = benchmarks
    model = tmp_path / "model"
    shutil.copytree(world.student_lm, model, ignore=shutil.ignore_patterns("*.safetensors"))
    wrong = [
        (("gqa",), "--eval_benchmark_root"),
        (("gqa", "--eval_benchmark_root", str(tmp_path / "none")), re.escape(str(tmp_path / "none"))),
        (("gqqa", "--eval_benchmark_root", str(root)), "unknown benchmark 'gqqa'"),
    ]
    for flags, message in wrong:
        with pytest.raises(InputError, match=message):
            run(tmp_path / "out", "--model_name_or_path", str(model), "--eval_benchmarks", *flags)
