"""The command line and the scripts on all six benchmarks with a tiny real model."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from llava.errors import InputError
from llava.eval import evaluate
from llava.eval.records import read_answers
from llava.eval.registry import BENCHMARKS, select
from llava.eval.run import main
from llava.model.builder import load_pretrained_model

COUNTS = {"gqa": 4, "sqa": 3, "textvqa": 3, "pope": 12, "mme": 8, "mmbench": 6}
REPO = Path(__file__).parents[3]


@pytest.fixture
def arguments(eval_root, checkpoint, tmp_path):
    """``arguments(...)``: a command line, flags without their dashes; later ones replace the defaults."""

    def make(**flags):
        options = {
            "model_path": checkpoint,
            "eval_root": eval_root,
            "output_dir": tmp_path / "out",
            "max_new_tokens": 4,
            "batch_size": 4,
            **flags,
        }
        line = []
        for name, value in options.items():
            if value is not None:
                line += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        return line

    return make


def texts(folder: Path, name: str) -> dict[str, str]:
    return {a.metadata["key"]: a.text for a in read_answers(folder / name / "answers.jsonl")}


def test_all_six_and_scores(arguments, tmp_path, capsys):
    main(arguments())
    out = tmp_path / "out"
    scores = json.loads((out / "scores.json").read_text())
    assert list(scores) == [*BENCHMARKS, "avg"]
    assert scores["avg"] == pytest.approx(sum(scores[name] for name in BENCHMARKS) / 6)
    printed, said = capsys.readouterr()
    assert "%|" not in said  # no bar without a terminal, neither ours nor transformers'
    assert [line.split(":")[0] for line in printed.splitlines()] == [
        "GQA",
        "SQA",
        "TextVQA",
        "POPE",
        "MME",
        "MMB",
        "Avg",
    ]
    for name, count in COUNTS.items():
        content = json.loads((out / f"{name}.json").read_text())
        assert content["score"] == scores[name]
        assert content["answers"]["questions"] == content["answers"]["answered"] == count
        assert content["answers"]["missing"] == content["answers"]["unknown_id"] == 0
        assert content["settings"]["model"] == "llava-tiny"
    assert (out / "mmbench_submission.xlsx").is_file() == (find_spec("openpyxl") is not None)


def test_second_run_asks_nothing_and_loads_no_model(arguments, tmp_path, monkeypatch):
    main(arguments(benchmark="pope,mme"))
    before = (tmp_path / "out/pope/answers.jsonl").read_text()

    def refuse(*_, **__):
        raise AssertionError("the model was loaded again")

    monkeypatch.setattr("llava.model.builder.load_pretrained_model", refuse)
    main(arguments(benchmark="pope,mme"))
    assert (tmp_path / "out/pope/answers.jsonl").read_text() == before
    assert list(json.loads((tmp_path / "out/scores.json").read_text())) == ["pope", "mme"]


def test_killed_run_goes_on_without_asking_twice(arguments, tmp_path, monkeypatch):
    main(arguments(benchmark="pope", output_dir=tmp_path / "whole"))
    original = evaluate.AnswerWriter.write
    written = []

    def dying(self, question, text, finish):
        if len(written) == 6:
            self._file.write('{"question_id": 9, "te')  # the half line that a kill leaves
            raise KeyboardInterrupt
        written.append(question.key)
        original(self, question, text, finish)

    monkeypatch.setattr(evaluate.AnswerWriter, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        main(arguments(benchmark="pope"))
    asked = []

    def recording(self, question, text, finish):
        asked.append(question.key)
        original(self, question, text, finish)

    monkeypatch.setattr(evaluate.AnswerWriter, "write", recording)
    main(arguments(benchmark="pope"))
    assert len(written) == 6 and len(asked) == 6 and not set(written) & set(asked)
    assert texts(tmp_path / "out", "pope") == texts(tmp_path / "whole", "pope")


def test_chunks_merged_equal_one_process(arguments, tmp_path):
    main(arguments(output_dir=tmp_path / "whole"))
    for index in (2, 0, 1):
        main(arguments(stage="generate", num_chunks=3, chunk_idx=index))
    assert not (tmp_path / "out/scores.json").exists()
    main(arguments(stage="score", num_chunks=3))
    for name in BENCHMARKS:
        assert texts(tmp_path / "out", name) == texts(tmp_path / "whole", name)
    read = [json.loads((tmp_path / run / "scores.json").read_text()) for run in ("out", "whole")]
    assert read[0] == read[1]


def test_batch_sizes_give_the_same_scores_and_answers(arguments, tmp_path):
    for size in (1, 8):
        main(arguments(batch_size=size, output_dir=tmp_path / str(size), max_new_tokens=12))
    for name in BENCHMARKS:
        one, eight = texts(tmp_path / "1", name), texts(tmp_path / "8", name)
        assert one == eight
        assert len(one) == COUNTS[name]
    assert (tmp_path / "1/scores.json").read_text() == (tmp_path / "8/scores.json").read_text()


def test_other_model_or_settings(arguments, checkpoint, tmp_path, capsys):
    main(arguments(benchmark="gqa"))
    before = (tmp_path / "out/gqa.json").read_text()
    with pytest.raises(InputError, match="max_new_tokens: 4 there, 5 now.*--overwrite"):
        main(arguments(benchmark="gqa", max_new_tokens=5))
    retrained = tmp_path / "llava-tiny"
    _, model, _, _ = load_pretrained_model(checkpoint, torch_dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
    shutil.copytree(checkpoint, retrained)
    model.save_pretrained(retrained)
    with pytest.raises(InputError, match="weights: '[0-9a-f]+' there, '[0-9a-f]+' now"):
        main(arguments(benchmark="gqa", model_path=retrained))
    assert (tmp_path / "out/gqa.json").read_text() == before
    old = texts(tmp_path / "out", "gqa")
    main(arguments(benchmark="gqa", model_path=retrained, overwrite=True))
    assert texts(tmp_path / "out", "gqa") != old
    # and scores of another checkpoint do not enter scores.json
    main(arguments(benchmark="sqa"))
    assert list(json.loads((tmp_path / "out/scores.json").read_text())) == ["sqa"]


def test_moved_checkpoint_is_the_same_model(arguments, checkpoint, tmp_path):
    main(arguments(benchmark="sqa"))
    moved = tmp_path / "elsewhere" / "llava-tiny"
    shutil.copytree(checkpoint, moved)
    main(arguments(benchmark="sqa", model_path=moved))


def test_limit_and_then_the_rest(arguments, tmp_path):
    main(arguments(benchmark="mme", limit=4))
    content = json.loads((tmp_path / "out/mme.json").read_text())
    assert (content["answers"]["questions"], content["limit"]) == (4, 4)
    assert all(part["count"] == 2 for part in content["metrics"]["subtasks"].values())
    main(arguments(benchmark="mme"))
    content = json.loads((tmp_path / "out/mme.json").read_text())
    assert (content["answers"]["answered"], content["limit"]) == (8, None)
    main(arguments(benchmark="mme", limit=4))
    assert json.loads((tmp_path / "out/mme.json").read_text())["answers"]["unknown_id"] == 0


def test_answers_of_another_program(arguments, tmp_path):
    path = tmp_path / "theirs.jsonl"
    prompt = "Is it {}?\nAnswer the question using a single word or phrase."
    rows = [
        {
            "question_id": "existence/0001.png",
            "prompt": prompt.format("not 0001"),
            "text": "No",
            "model_id": "x",
        },
        {
            "question_id": "existence/0001.png",
            "prompt": prompt.format("0001"),
            "text": "Yes",
            "model_id": "x",
        },
        {"question_id": "existence/0007.png", "prompt": "?", "text": "Yes", "model_id": "x"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = {"benchmark": "mme", "answers_file": path, "model_path": None}
    main(arguments(**flags))
    content = json.loads((tmp_path / "out/mme.json").read_text())
    assert content["metrics"]["subtasks"]["existence"]["score"] == 100.0  # one picture of two, both right
    assert content["answers"]["missing"] == 6
    assert content["answers"]["unknown_id"] == 1
    with pytest.raises(InputError, match="mme.json exists; pass --overwrite"):
        main(arguments(**flags))
    main(arguments(**flags, overwrite=True))


def test_wrong_input(arguments, eval_root, checkpoint, tmp_path):
    for flags, message in (
        ({"benchmark": "vqav2"}, "unknown benchmark 'vqav2'; known: gqa, sqa"),
        (
            {"eval_root": tmp_path / "none"},
            "folder of GQA not found: expected .*none/gqa; `python -m llava.prepare benchmarks --root .*none`",
        ),
        ({"conv_mode": "vicuna"}, "unknown prompt template 'vicuna'"),
        ({"num_chunks": 2}, "needs --stage generate for every chunk"),
        ({"stage": "score"}, "no answers in"),
        ({"model_path": None}, "--model-path is missing"),
        ({"model_path": tmp_path / "nothing"}, "nothing"),
        ({"answers_file": tmp_path / "x.jsonl"}, "--answers-file needs exactly one benchmark"),
    ):
        with pytest.raises(InputError, match=message):
            main(arguments(**flags))


def test_missing_pictures_are_found_before_the_model_is_loaded(arguments, eval_root, monkeypatch):
    (eval_root / "pope/val2014/COCO_1.jpg").unlink()
    monkeypatch.setattr("llava.model.builder.load_pretrained_model", None)
    missing = "POPE: the images of 6 of 12 questions are missing; first missing: .*COCO_1.jpg; `python -m llava.prepare"
    with pytest.raises(InputError, match=missing):
        main(arguments())


def test_scoring_needs_no_pictures(arguments, eval_root, tmp_path):
    """Answers are often scored on another machine than the one that has the pictures."""
    main(arguments())
    before = (tmp_path / "out/scores.json").read_bytes()
    for folder in ("gqa/data/images", "scienceqa/images", "textvqa/train_images", "pope/val2014"):
        shutil.rmtree(eval_root / folder)
    for picture in (eval_root / "MME/MME_Benchmark_release_version").rglob("*.png"):
        picture.unlink()
    (tmp_path / "out/scores.json").unlink()
    main(arguments(stage="score"))
    assert (tmp_path / "out/scores.json").read_bytes() == before
    missing = "GQA: the images of 4 of 4 questions are missing; first missing: .*gqa/data/images/n1"
    with pytest.raises(InputError, match=missing):
        main(arguments())


def test_wrong_question_file(arguments, eval_root):
    shutil.copy(eval_root / "scienceqa/llava_test_CQM-A.json", eval_root / "pope/llava_pope_test.jsonl")
    with pytest.raises(InputError, match="llava_pope_test.jsonl, line 1: .*is this the right question file"):
        main(arguments(benchmark="pope"))
    (eval_root / "gqa/llava_gqa_testdev_balanced.jsonl").write_text("")
    with pytest.raises(InputError, match="balanced.jsonl is empty"):
        main(arguments(benchmark="gqa"))


def test_selection():
    assert [b.name for b in select("all")] == list(COUNTS)
    assert [b.name for b in select("mme,gqa")] == ["mme", "gqa"]


def script(name, checkpoint, eval_root, output, cwd, *flags, **environment):
    return subprocess.run(
        [
            "bash",
            str(REPO / "scripts/eval" / f"{name}.sh"),
            str(checkpoint),
            "--max-new-tokens",
            "4",
            "--eval-root",
            str(eval_root),
            "--output-dir",
            str(output),
            *flags,
        ],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_script_from_another_folder_with_two_processes(checkpoint, eval_root, tmp_path):
    """Two visible devices make two processes, which on a machine without them run on the CPU."""
    done = script(
        "all",
        checkpoint,
        eval_root,
        "run",
        tmp_path,
        "--device",
        "cpu",
        "--batch-size",
        "3",
        CUDA_VISIBLE_DEVICES="0,1",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("Avg: ")
    assert sorted(path.name for path in (tmp_path / "run/gqa/parts").iterdir()) == [
        "0_of_2.jsonl",
        "1_of_2.jsonl",
    ]
    assert list(json.loads((tmp_path / "run/scores.json").read_text())) == [*BENCHMARKS, "avg"]


def test_script_with_one_process_and_its_errors(checkpoint, eval_root, tmp_path):
    done = script("sqa", checkpoint, eval_root, tmp_path / "run", tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("SQA: ")
    wrong = script("sqa", checkpoint, eval_root, tmp_path / "run", tmp_path, "--limit", "0", CUDA_VISIBLE_DEVICES="")
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines()[-1].startswith("error: --limit is 0")
    assert script("sqa", "--limit", eval_root, tmp_path, tmp_path).returncode == 2


def test_script_fails_when_a_process_fails(checkpoint, eval_root, tmp_path):
    failed = script(
        "sqa", checkpoint, eval_root, tmp_path / "run", tmp_path, "--limit", "0", CUDA_VISIBLE_DEVICES="0,1"
    )
    assert failed.returncode == 1
    assert "the process on GPU 1 failed" in failed.stderr
    assert not (tmp_path / "run/sqa.json").exists()


def test_the_template_is_the_checkpoints_own(arguments, checkpoint, tmp_path):
    """A checkpoint tuned with another template than the default is asked in that one, unless told otherwise."""
    tuned = tmp_path / "tuned"
    shutil.copytree(checkpoint, tuned)
    config = json.loads((tuned / "config.json").read_text())
    asked = {}
    for name, given in (("qwen_bare", None), (None, None), ("qwen_bare", "v1")):
        (tuned / "config.json").write_text(json.dumps({**config, "mm_template": name}))
        output = tmp_path / f"{name} {given}"
        flags = {"model_path": tuned, "output_dir": output, "benchmark": "gqa", "conv_mode": given}
        main(arguments(**flags))
        asked[name, given] = json.loads((output / "gqa.json").read_text())["settings"]["conv_mode"]
    assert asked == {("qwen_bare", None): "qwen_bare", (None, None): "qwen", ("qwen_bare", "v1"): "v1"}
