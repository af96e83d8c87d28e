"""lmms-eval itself on small local tasks: its own ``llava`` model and our adapter, against our own generation."""

import ast
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

from llava.conversation import get_template
from llava.inference.checkpoint import LoadedModel
from llava.inference.generate import generate_answers
from llava.inference.question import Picture, Question
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lmms_eval") is None, reason="needs lmms-eval (pip install lmms-eval)"
)

REPOSITORY = Path(__file__).parents[3]
TEMPLATE = "qwen_bare"
NEW = 10
COLOURS = ["red", "green", "blue"]
ASKED = [("red", "What is it?"), ("green", "Is there a goat? " * 4), ("blue", "What is at the top left?")]
ASKED += [("white", "Is there a lion in the image?"), ("red", "Yes or no?"), ("green", "Describe."), ("blue", "Why?")]
WORDS = ["What is a goat?", "Is there a lion? Yes or no?", "Answer."]
FUNCTIONS = """
import ast

def visuals(doc):
    return [picture for picture in (doc["image"], doc["second_image"]) if picture is not None]

def answered(doc, results):
    return {"answered": float(bool(results[0]))}

def chosen(doc, results):
    pairs = [ast.literal_eval(pair) if isinstance(pair, str) else pair for pair in results]
    losses = [loss for loss, _ in pairs]
    return {"acc": float(losses.index(min(losses)) == doc["answer"])}
"""
GENERATION = """
task: {name}
dataset_path: {data}
dataset_kwargs: {{load_from_disk: true}}
test_split: test
output_type: generate_until
doc_to_visual: !function functions.visuals
doc_to_text: question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: {new}, do_sample: false}}
process_results: !function functions.answered
metric_list: [{{metric: answered, aggregation: mean, higher_is_better: true}}]
"""
CHOICE = """
task: {name}
dataset_path: {data}
dataset_kwargs: {{load_from_disk: true}}
test_split: test
output_type: multiple_choice
target_delimiter: ""
doc_to_visual: !function functions.visuals
doc_to_text: question
doc_to_target: answer
doc_to_choice: [red, green, blue]
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
# lmms-eval 0.7.3 turns the pairs of loss and greediness that its own models return into text, which its scoring of
# multiple choice cannot read; with their model a function of the task reads them.
READING = "process_results: !function functions.chosen\n"


@pytest.fixture(scope="module")
def tasks(world, tmp_path_factory) -> Path:
    """Four tasks: pictures only, words only, multiple choice, and documents of no, one and two pictures."""
    import datasets

    root = tmp_path_factory.mktemp("lmms-tasks")

    def store(name: str, documents: list[tuple[list[str], str]]) -> Path:
        features = datasets.Features(
            {
                "question": datasets.Value("string"),
                "answer": datasets.Value("int64"),
                "image": datasets.Image(),
                "second_image": datasets.Image(),
            }
        )
        rows = []
        for pictures, question in documents:
            files = [str(world.images / f"{colour}.png") for colour in pictures]
            first, second = (*files, None, None)[:2]
            rows.append({"question": question, "answer": 0, "image": first, "second_image": second})
        table = datasets.Dataset.from_list(rows, features=features)
        datasets.DatasetDict({"test": table}).save_to_disk(root / "data" / name)
        return root / "data" / name

    pictures = store("pictures", [([colour], question) for colour, question in ASKED])
    words = store("words", [([], question) for question in WORDS])
    mixed = store("mixed", [(["red"], "What is it?"), ([], "Why?"), (["red", "blue"], "Is <image> like <image>?")])
    folder = root / "tasks"
    folder.mkdir()
    (folder / "functions.py").write_text(FUNCTIONS)
    (folder / "choice.yaml").write_text(CHOICE.format(name="tiny_choice", data=pictures))
    (folder / "read_choice.yaml").write_text(CHOICE.format(name="tiny_read_choice", data=pictures) + READING)
    for name, data, new in (
        ("tiny_pictures", pictures, NEW),
        ("tiny_words", words, NEW - 2),
        ("tiny_mixed", mixed, NEW),
    ):
        (folder / f"{name}.yaml").write_text(GENERATION.format(name=name, data=data, new=new))
    return folder


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory) -> Path:
    """The tiny checkpoint with the name of its template in its config, as training leaves it."""
    folder = tmp_path_factory.mktemp("lmms-run") / "run"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "mm_template": TEMPLATE}))
    return folder


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    """Metadata of an installed package with the entry points of pyproject.toml, whatever is installed here."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    root = tmp_path_factory.mktemp("plugin")
    folder = root / "align_ti-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return root


def harness(
    model: str, arguments: str, names: list[str], tasks: Path, plugin: Path, output: Path, processes: int = 1
) -> dict[str, list]:
    """Run lmms-eval's command line on the CPU, three requests a batch; the logged samples of each task."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    command += ["lmms_eval", "--model", model, "--model_args", arguments]
    command += ["--tasks", ",".join(names), "--include_path", str(tasks), "--batch_size", "3"]
    command += ["--output_path", str(output), "--log_samples", "--verbosity", "DEBUG"]
    surroundings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(plugin), str(REPOSITORY)]),
        "HF_HOME": str(output / "cache"),
        "LMMS_EVAL_HOME": str(output / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=output, env=surroundings, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    samples = {}
    for name in names:
        (file,) = output.rglob(f"*samples_{name}.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        samples[name] = sorted(rows, key=lambda row: row["doc_id"])
    return samples


@pytest.fixture(scope="module")
def theirs(run, tasks, plugin, tmp_path_factory) -> dict[str, list]:
    """Samples of lmms-eval's own ``llava`` model."""
    arguments = f"pretrained={run},conv_template={TEMPLATE},device_map=auto,device=cpu"
    names = ["tiny_pictures", "tiny_words", "tiny_read_choice"]
    return harness("llava", arguments, names, tasks, plugin, tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def ours(run, tasks, plugin, tmp_path_factory) -> dict[str, list]:
    """Samples of our adapter, which finds the template by itself."""
    names = ["tiny_pictures", "tiny_words", "tiny_choice", "tiny_mixed"]
    return harness("align_ti", f"pretrained={run},device=cpu", names, tasks, plugin, tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def loaded(run) -> LoadedModel:
    return LoadedModel(*load_pretrained_model(run, torch_dtype=torch.float32), model_id="tiny")


def expected(loaded: LoadedModel, questions: list[Question], new: int) -> list[str]:
    """Answers of our own evaluation."""
    answers: dict[str, str] = {}
    generate_answers(
        loaded,
        questions,
        get_template(TEMPLATE),
        max_new_tokens=new,
        batch_size=1,
        on_answer=lambda question, text, _: answers.update({question.key: text}),
    )
    return [answers[question.key] for question in questions]


def asked_of_pictures(world) -> list[Question]:
    return [
        Question(str(index), question, Picture.file(world.images / f"{colour}.png"), key=str(index))
        for index, (colour, question) in enumerate(ASKED)
    ]


def asked_in_words() -> list[Question]:
    return [Question(str(index), question, key=str(index)) for index, question in enumerate(WORDS)]


def answers_in(rows: list[dict]) -> list[str]:
    """The answers; versions differ in whether a single one is logged in a list."""
    logged = [row["filtered_resps"] for row in rows]
    return [(answer[0] if isinstance(answer, list) else answer).strip() for answer in logged]


@pytest.mark.parametrize("side", ["theirs", "ours"])
def test_answers_equal_our_own_evaluations(side, request, loaded, world):
    samples = request.getfixturevalue(side)
    wanted = expected(loaded, asked_of_pictures(world), NEW)
    assert answers_in(samples["tiny_pictures"]) == wanted
    assert len(set(wanted)) > 4  # they do depend on question and picture
    assert answers_in(samples["tiny_words"]) == expected(loaded, asked_in_words(), NEW - 2)


def losses_in(rows: list[dict]) -> list[list[float]]:
    """The loss of each choice, logged as ``[loss, is greedy]`` or as that pair's text."""
    found = []
    for row in rows:
        pairs = [ast.literal_eval(pair) if isinstance(pair, str) else pair for pair in row["filtered_resps"]]
        found.append([float(loss) for loss, _ in pairs])
    return found


def test_losses_of_given_answers_equal_theirs(theirs, ours):
    for mine, other in zip(losses_in(ours["tiny_choice"]), losses_in(theirs["tiny_read_choice"]), strict=True):
        assert len(mine) == len(COLOURS) and len(set(mine)) > 1
        assert all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(mine, other, strict=True))
    assert [row["acc"] for row in ours["tiny_choice"]] == [row["acc"] for row in theirs["tiny_read_choice"]]


def test_two_processes_share_the_requests(ours, run, tasks, plugin, tmp_path):
    names = ["tiny_pictures", "tiny_choice"]
    shared = harness("align_ti", f"pretrained={run}", names, tasks, plugin, tmp_path, processes=2)
    assert answers_in(shared["tiny_pictures"]) == answers_in(ours["tiny_pictures"])
    for mine, other in zip(losses_in(shared["tiny_choice"]), losses_in(ours["tiny_choice"]), strict=True):
        assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(mine, other, strict=True))


def test_no_one_and_two_pictures_in_one_batch(ours, loaded, world):
    one, none, two = answers_in(ours["tiny_mixed"])
    red = Question("1", "What is it?", Picture.file(world.images / "red.png"), key="1")
    assert [one, none] == expected(loaded, [red, Question("2", "Why?", key="2")], NEW)
    ids = tokenizer_image_token(
        "USER: Is <image> like <image>? ASSISTANT:", loaded.tokenizer, return_tensors="pt"
    ).unsqueeze(0)
    pictures = [Image.open(world.images / f"{colour}.png").convert("RGB") for colour in ("red", "blue")]
    pixels = process_images(pictures, loaded.image_processor, loaded.model.config)
    tokens = loaded.model.generate(ids, images=pixels, do_sample=False, max_new_tokens=NEW)
    assert two == loaded.tokenizer.decode(tokens[0], skip_special_tokens=True).strip()
