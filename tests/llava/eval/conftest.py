"""Six benchmarks of a few questions, written by hand in the published formats, and a tiny checkpoint."""

import base64
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from llava.model import language_model_class

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220)}
SHORT = "\nAnswer the question using a single word or phrase."


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def paint(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        colour = list(COLOURS.values())[index % len(COLOURS)]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 24 + index), colour).save(folder / name)


def gqa(root: Path) -> None:
    rows, answers = [], {}
    questions = [
        ("1", "n1.jpg", "What is the cat on?", "table", "query", "rel"),
        ("2", "n1.jpg", "Is it red?", "yes", "verify", "attr"),
        ("3", "n2.jpg", "Is the dog to the left or to the right of the cat?", "left", "choose", "rel"),
        ("4", "n2.jpg", "What animal is it?", "dog", "query", "cat"),
    ]
    for name, image, text, answer, structural, semantic in questions:
        rows.append({"question_id": name, "image": image, "text": text + SHORT, "category": "default"})
        answers[name] = {
            "question": text,
            "answer": answer,
            "isBalanced": True,
            "types": {"structural": structural, "semantic": semantic, "detailed": "x"},
            "semantic": [
                {"operation": "select", "argument": "cat (3)"},
                {"operation": "query", "argument": "name"},
            ],
        }
    write_lines(root / "gqa/llava_gqa_testdev_balanced.jsonl", rows)
    write_json(root / "gqa/data/testdev_balanced_questions.json", answers)
    paint(root / "gqa/data/images", ["n1.jpg", "n2.jpg"])


def sqa(root: Path) -> None:
    problems = {
        "11": {
            "choices": ["a", "b"],
            "answer": 0,
            "hint": "",
            "subject": "natural science",
            "grade": "grade2",
        },
        "12": {
            "choices": ["a", "b", "c"],
            "answer": 2,
            "hint": "h",
            "subject": "social science",
            "grade": "grade8",
        },
        "13": {
            "choices": ["a", "b"],
            "answer": 1,
            "hint": "",
            "subject": "language science",
            "grade": "grade6",
        },
    }
    rows = []
    for name, problem in problems.items():
        image = {"image": f"{name}/image.png"} if name != "13" else {}
        marker = "<image>\n" if image else ""
        text = f"{marker}Question: Which one?\nOptions: (A) a (B) b"
        turns = [{"from": "human", "value": text}, {"from": "gpt", "value": "ABC"[problem["answer"]]}]
        rows.append({"id": name, **image, "conversations": turns})
    write_json(root / "scienceqa/llava_test_CQM-A.json", rows)
    write_json(root / "scienceqa/problems.json", problems)
    write_json(root / "scienceqa/pid_splits.json", {"test": list(problems), "train": ["1"]})
    paint(root / "scienceqa/images/test", ["11/image.png", "12/image.png"])


def textvqa(root: Path) -> None:
    rows, data = [], []
    for image, question, answers in (
        ("aa", "What does it SAY?", ["stop"] * 7 + ["the stop", "go", "go"]),
        ("aa", "Which brand?", ["nokia"] * 10),
        ("bb", "What number?", ["2", "two", "2", "22", "3", "4", "5", "6", "7", "8"]),
    ):
        text = f"{question}\nReference OCR token: STOP, 22{SHORT}"
        rows.append({"question_id": image, "image": f"{image}.jpg", "text": text, "category": "default"})
        data.append({"image_id": image, "question": question, "answers": answers, "question_id": len(data)})
    write_lines(root / "textvqa/llava_textvqa_val_v051_ocr.jsonl", rows)
    write_json(root / "textvqa/TextVQA_0.5.1_val.json", {"data": data})
    paint(root / "textvqa/train_images", ["aa.jpg", "bb.jpg"])


def pope(root: Path) -> None:
    rows = []
    for offset, category in ((0, "adversarial"), (1000000, "popular"), (2000000, "random")):
        labels = []
        for index, (thing, label) in enumerate((("cat", "yes"), ("car", "no"), ("dog", "yes"), ("cup", "no")), 1):
            image, text = f"COCO_{index % 2}.jpg", f"Is there a {thing} in the image?"
            labels.append({"question_id": index, "image": image, "text": text, "label": label})
            rows.append({"question_id": offset + index, "image": image, "text": text + SHORT, "category": category})
        write_lines(root / f"pope/coco/coco_pope_{category}.json", labels)
    write_lines(root / "pope/llava_pope_test.jsonl", rows)
    paint(root / "pope/val2014", ["COCO_0.jpg", "COCO_1.jpg"])


def mme(root: Path) -> None:
    release = root / "MME/MME_Benchmark_release_version"
    rows = []
    for subtask, stem, folder in (
        ("existence", "0001", ""),
        ("existence", "0002", ""),
        ("artwork", "77", "images/"),
        ("code_reasoning", "0009", ""),
    ):
        image = f"{subtask}/{folder}{stem}.png"
        paint(release, [image])
        lines = []
        for text, answer in ((f"Is it {stem}?", "Yes"), (f"Is it not {stem}?", "No")):
            identifier = f"{subtask}/{stem}.png"
            rows.append({"question_id": identifier, "image": image, "text": text + SHORT, "category": subtask})
            spaces = "  " if answer == "No" else " "
            lines.append(f"{text}{spaces}Please answer yes or no.\t{answer}\n")
        texts = release / subtask / ("questions_answers_YN" if folder else "") / f"{stem}.txt"
        texts.parent.mkdir(parents=True, exist_ok=True)
        texts.write_text("".join(lines), encoding="utf-8")
    write_lines(root / "MME/llava_mme.jsonl", rows)


def picture_text(colour: tuple[int, int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 30), colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def mmbench(root: Path) -> None:
    names = "index question hint A B C D answer category image source l2-category comment split".split()
    lines = ["\t".join(names)]
    questions = {
        5: ("Which colour?", "A hint.", ["red", "green", "blue", "grey"], "red", "color", COLOURS["red"]),
        8: ("How many?", "", ["one", "two"], "two", "count", COLOURS["blue"]),
    }
    for index, (question, hint, options, right, category, colour) in questions.items():
        for turn in range(len(options)):
            turned = options[turn:] + options[:turn]
            cells = [*turned, *[""] * (4 - len(options))]
            image = picture_text(colour) if turn == 0 else str(index)
            row = [
                str(index + turn * 1_000_000),
                question,
                hint,
                *cells,
                "ABCD"[turned.index(right)],
                category,
            ]
            lines.append("\t".join([*row, image, "made", "perception", "", "dev"]))
    path = root / "mmbench/mmbench_dev_20230712.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def eval_root(tmp_path: Path) -> Path:
    """The six benchmarks in a folder that a test may damage."""
    root = tmp_path / "eval-root"
    for write in (gqa, sqa, textvqa, pope, mme, mmbench):
        write(root)
    return root


@pytest.fixture(scope="session")
def checkpoint(world, qwen_tokenizer, tmp_path_factory) -> Path:
    """A vision-language checkpoint with random weights, in LLaVA's layout."""
    folder = tmp_path_factory.mktemp("checkpoints") / "llava-tiny"
    model = language_model_class("qwen2").from_pretrained(world.student_lm, dtype=torch.float32)
    torch.manual_seed(5)
    model.initialize_vision_modules(str(world.tower), mm_projector_type="mlp2x_gelu", mm_vision_select_layer=-1)
    model.config.image_aspect_ratio = "pad"
    with torch.no_grad():
        for parameter in model.model.mm_projector.parameters():
            parameter.mul_(8)  # so that the answers depend on the picture
    model.save_pretrained(folder)
    qwen_tokenizer.save_pretrained(folder)
    return folder
