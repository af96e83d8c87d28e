"""A question file of one's own in, an answers file out: one and several models, kills, processes, draws, refusals."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch

from llava.errors import InputError
from llava.eval import evaluate
from llava.eval.ask import answers_files, main
from llava.eval.records import read_answers
from llava.eval.run import main as evaluate_main
from llava.model import builder
from llava.model.builder import load_pretrained_model

REPO = Path(__file__).parents[3]


@pytest.fixture
def question_file(world, tmp_path) -> Path:
    """Ten questions, one of them without a picture, ids of both kinds, a column that is none of our business."""
    colours = ("red", "green", "blue")
    rows = [
        {"question_id": n, "image": f"{colours[n % 3]}.png", "text": "What is it? " * (1 + n % 4), "category": "x"}
        for n in range(9)
    ]
    rows.append({"question_id": "text", "text": "Is there a lion?"})
    path = tmp_path / "mine/questions.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def other(checkpoint, tmp_path) -> Path:
    """A second checkpoint, with other weights and another name."""
    folder = tmp_path / "models/llava-other"
    shutil.copytree(checkpoint, folder)
    _, model, _, _ = load_pretrained_model(checkpoint, torch_dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def ask(question_file, checkpoint, world, tmp_path):
    """Run the command; flags without their dashes replace the defaults. Returns the answers file."""

    def run(*models, **flags) -> Path:
        options = {
            "question_file": question_file,
            "image_folder": world.images,
            "answers_file": tmp_path / "answers.jsonl",
            "max_new_tokens": 6,
            "batch_size": 4,
            **flags,
        }
        line = ["--model-path", *map(str, models or (checkpoint,))]
        for name, value in options.items():
            if value is not None:
                line += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        main(line)
        return Path(options["answers_file"])

    return run


def texts(path: Path) -> dict[str, str]:
    return {str(answer.question_id): answer.text for answer in read_answers(path)}


def test_lines_are_llavas_and_in_the_files_order(ask, question_file, capsys):
    path = ask()
    asked = [json.loads(line) for line in question_file.read_text().splitlines()]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    keys = ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert all(list(row) == keys for row in rows)
    assert [row["question_id"] for row in rows] == [*range(9), "text"], "numbers stay numbers"
    assert [row["prompt"] for row in rows] == [question["text"] for question in asked]
    assert {row["model_id"] for row in rows} == {"llava-tiny"}
    assert len({row["answer_id"] for row in rows}) == 10
    said = capsys.readouterr().out
    assert f"llava-tiny: 10 of 10 answers in {path}" in said and "cut off at 6 tokens" in said


def test_answers_are_those_of_the_benchmark_evaluation(ask, eval_root, checkpoint, tmp_path):
    """The same questions, asked by ``llava.eval.run`` as a benchmark."""
    flags = {"max_new_tokens": 9, "batch_size": 3}
    line = ["--model-path", str(checkpoint), "--eval-root", str(eval_root), "--output-dir", str(tmp_path / "run")]
    evaluate_main([*line, "--benchmark", "pope", "--max-new-tokens", "9"])
    path = ask(question_file=eval_root / "pope/llava_pope_test.jsonl", image_folder=eval_root / "pope/val2014", **flags)
    assert texts(path) == texts(tmp_path / "run/pope/answers.jsonl") and len(texts(path)) == 12


def test_batch_sizes_give_the_same_answers(ask, tmp_path):
    one, eight = (texts(ask(batch_size=n, answers_file=tmp_path / f"{n}.jsonl", max_new_tokens=12)) for n in (1, 8))
    assert one == eight and len(set(one.values())) > 1


def test_pictures_lie_beside_the_question_file_by_default(ask, question_file, world, tmp_path):
    expected = texts(ask())
    for picture in world.images.iterdir():
        shutil.copy(picture, question_file.parent)
    assert texts(ask(image_folder=None, answers_file=tmp_path / "b.jsonl")) == expected


def test_second_run_asks_nothing_and_loads_no_model(ask, monkeypatch):
    path = ask()
    before = path.read_bytes()
    monkeypatch.setattr(builder, "load_pretrained_model", None)
    ask()
    assert path.read_bytes() == before


def test_killed_and_resumed(ask, checkpoint, question_file, world, tmp_path, monkeypatch):
    """A real process, killed hard while it answers; the rest is asked, nothing twice, and the answers are the same."""
    long = {"max_new_tokens": 150, "batch_size": 1}
    whole = texts(ask(answers_file=tmp_path / "whole.jsonl", **long))
    target = tmp_path / "answers.jsonl"
    command = [sys.executable, "-m", "llava.eval.ask", "--model-path", str(checkpoint), "--batch-size", "1"]
    command += ["--question-file", str(question_file), "--image-folder", str(world.images)]
    command += ["--answers-file", str(target), "--max-new-tokens", "150", "--device", "cpu"]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    part = tmp_path / "answers.jsonl.run/parts/0_of_1.jsonl"
    deadline = time.monotonic() + 120
    while not (part.exists() and part.read_bytes().count(b"\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    had = {answer.metadata["key"] for answer in read_answers(part)}
    assert 2 <= len(had) < 10 and not target.exists()
    asked, write = [], evaluate.AnswerWriter.write

    def recording(self, question, text, finish):
        asked.append(question.key)
        write(self, question, text, finish)

    monkeypatch.setattr(evaluate.AnswerWriter, "write", recording)
    ask(**long)
    assert not had & set(asked) and len(had | set(asked)) == 10 == len(had) + len(asked)
    assert texts(target) == whole


def test_processes_share_a_file(ask, tmp_path, capsys):
    whole = texts(ask(answers_file=tmp_path / "whole.jsonl"))
    for done, index in enumerate((2, 0, 1), 1):
        path = ask(num_chunks=3, chunk_idx=index)
        assert len(texts(path)) in (3 * done, 3 * done + 1)
    assert texts(path) == whole and list(texts(path)) == list(whole)
    ask(num_chunks=40, chunk_idx=39, answers_file=tmp_path / "b.jsonl")
    ask(num_chunks=40, chunk_idx=0, answers_file=tmp_path / "c.jsonl")
    assert "no question for process 0 of 40" in capsys.readouterr().out


def test_several_models_write_a_file_each(ask, checkpoint, other, tmp_path, monkeypatch):
    """Loaded one after the other: of the first nothing is left when the second is loaded."""
    alive, at_load, load = weakref.WeakSet(), [], builder.load_pretrained_model

    def counting(*arguments, **options):
        gc.collect()
        at_load.append(len(alive))
        parts = load(*arguments, **options)
        alive.add(parts[1])
        return parts

    monkeypatch.setattr(builder, "load_pretrained_model", counting)
    folder = ask(checkpoint, other, answers_file=tmp_path / "both")
    assert at_load == [0, 0]
    assert sorted(path.name for path in folder.glob("*.jsonl")) == ["llava-other.jsonl", "llava-tiny.jsonl"]
    tiny, negated = texts(folder / "llava-tiny.jsonl"), texts(folder / "llava-other.jsonl")
    assert tiny == texts(ask(answers_file=tmp_path / "alone.jsonl")) and tiny != negated
    at_load.clear()
    ask(checkpoint, other, answers_file=folder)
    assert at_load == []


def test_a_wrong_second_model_is_found_before_the_first_is_asked(ask, checkpoint, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        ask(checkpoint, tmp_path / "nowhere", answers_file=tmp_path / "both")
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize(
    "paths, target, names",
    [
        (["runs/student"], "answers.txt", ["answers.txt"]),
        (["a/teacher", "hub/student"], "out", ["out/teacher.jsonl", "out/student.jsonl"]),
        (["/x/a/student", "/x/b/student/"], "out", ["out/a-student.jsonl", "out/b-student.jsonl"]),
    ],
)
def test_names_of_answers_files(paths, target, names):
    assert answers_files(paths, Path(target)) == [Path(name) for name in names]


def test_draws_depend_on_the_seed_and_the_question_alone(ask, tmp_path):
    drawn = {"temperature": 1.5, "max_new_tokens": 12}
    one = texts(ask(answers_file=tmp_path / "1.jsonl", batch_size=1, **drawn))
    eight = texts(ask(answers_file=tmp_path / "8.jsonl", batch_size=8, **drawn))
    for index in (1, 0):
        ask(answers_file=tmp_path / "c.jsonl", num_chunks=2, chunk_idx=index, **drawn)
    assert one == eight == texts(tmp_path / "c.jsonl")
    other = texts(ask(answers_file=tmp_path / "o.jsonl", seed=1, **drawn))
    assert sum(one[key] != other[key] for key in one) > 5
    assert one != texts(ask(answers_file=tmp_path / "greedy.jsonl", max_new_tokens=12))
    with pytest.raises(InputError, match="seed: 0 there, 1 now"):
        ask(answers_file=tmp_path / "1.jsonl", seed=1, **drawn)


def test_other_settings_models_and_files_are_not_mixed(ask, checkpoint, other, question_file, tmp_path):
    path = ask()
    before = path.read_bytes()
    with pytest.raises(InputError, match="max_new_tokens: 6 there, 7 now.*--overwrite"):
        ask(max_new_tokens=7)
    with pytest.raises(InputError, match="model: 'llava-tiny' there, 'llava-other' now"):
        ask(other)
    assert path.read_bytes() == before
    question_file.write_text(question_file.read_text().replace("a lion", "a goat"))
    with pytest.raises(InputError, match="questions_sha256"):
        ask()
    ask(overwrite=True)
    assert path.read_bytes() != before


def test_an_answers_file_of_another_program_is_left_alone(ask, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("precious\n")
    with pytest.raises(InputError, match="answers.jsonl exists and was not written by this program; pass --overwrite"):
        ask()
    assert path.read_text() == "precious\n"
    assert len(texts(ask(overwrite=True))) == 10


def test_wrong_usage(ask, checkpoint, other, tmp_path):
    for models, flags, message in (
        ((checkpoint, other), {}, "answers.jsonl, but 2 checkpoints write one file each; give a folder"),
        ((checkpoint, checkpoint), {"answers_file": tmp_path / "out"}, "names a checkpoint twice"),
        ((), {"num_chunks": 2, "chunk_idx": 2}, "--chunk-idx is 2 of --num-chunks 2"),
        ((), {"temperature": -1}, "the temperature is -1.0"),
        ((), {"max_new_tokens": 0}, "max_new_tokens is 0"),
        ((), {"batch_size": 0}, "--batch-size is 0"),
        ((), {"conv_mode": "vicuna"}, "unknown prompt template 'vicuna'"),
        ((), {"question_file": tmp_path / "none.jsonl"}, "question file .*none.jsonl does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            ask(*models, **flags)
    assert not (tmp_path / "answers.jsonl").exists()


def test_script(checkpoint, question_file, world, tmp_path):
    """Two visible devices make two processes that share the questions; here they run on the CPU."""
    flags = ["--question-file", str(question_file), "--image-folder", str(world.images), "--device", "cpu"]
    done = subprocess.run(
        ["bash", str(REPO / "scripts/eval/ask.sh"), "--model-path", str(checkpoint), "--answers-file", "a.jsonl"]
        + ["--max-new-tokens", "6", *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0,1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert list(texts(tmp_path / "a.jsonl")) == [*map(str, range(9)), "text"]
    assert len(list((tmp_path / "a.jsonl.run/parts").iterdir())) == 2
