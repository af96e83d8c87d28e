"""The six benchmarks: real file formats, balanced answers, scored by the project's own scorers."""

import base64
import csv
import io
import json
import sys
from collections import Counter, defaultdict

import pytest
from PIL import Image

from llava.eval.registry import BENCHMARKS
from playground.mini.bench.common import Item, Setting, balanced, blind_accuracy, scene_pool
from playground.mini.bench.write import WRITERS, BenchmarkJob, run_benchmark
from playground.mini.concepts import contains_held_out_pair
from playground.mini.questions.base import LETTER_SUFFIX, SHORT_SUFFIX, Question

csv.field_size_limit(sys.maxsize)


@pytest.fixture(scope="module")
def folder(mini_build):
    return mini_build / "eval"


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_gqa(folder):
    lines = _lines(folder / "gqa/llava_gqa_testdev_balanced.jsonl")
    answers = json.loads((folder / "gqa/data/testdev_balanced_questions.json").read_text())
    assert [line["question_id"] for line in lines] == list(answers)
    for line in lines:
        entry = answers[line["question_id"]]
        assert {"question_id", "image", "text", "category"} <= set(line)
        assert line["text"] == entry["question"] + SHORT_SUFFIX
        assert line["image"] == entry["imageId"] + ".png" and line["held_out_pair"] == entry["held_out_pair"]
        assert entry["answer"] == entry["answer"].lower() and set(entry["types"]) == {
            "structural", "semantic", "detailed",
        }  # fmt: skip
        assert (folder / "gqa/data/images" / line["image"]).is_file()
    structural = Counter(entry["types"]["structural"] for entry in answers.values())
    assert set(structural) == {"query", "choose", "compare", "verify", "logical"}
    said = Counter(entry["answer"] for entry in answers.values())
    assert abs(said["yes"] - said["no"]) <= 4
    places = Counter(entry["answer"] for entry in answers.values() if entry["types"]["detailed"] == "positionQuery")
    assert len(places) == 4 and max(places.values()) <= 2 * min(places.values()), places


def test_scienceqa(folder):
    rows = json.loads((folder / "scienceqa/llava_test_CQM-A.json").read_text())
    problems = json.loads((folder / "scienceqa/problems.json").read_text())
    splits = json.loads((folder / "scienceqa/pid_splits.json").read_text())
    assert splits["test"] == [row["id"] for row in rows] == list(problems)
    assert abs(sum("image" in row for row in rows) - len(rows) / 2) <= 4
    places = defaultdict(Counter)
    for row in rows:
        problem, (human, gpt) = problems[row["id"]], row["conversations"]
        options = " ".join(f"({letter}) {text}" for letter, text in zip("ABCD", problem["choices"], strict=False))
        context = problem["hint"] or "N/A"
        text = f"Context: {context}\nQuestion: {problem['question']}\nOptions: {options}"
        assert human["value"] == ("<image>\n" if "image" in row else "") + text
        assert gpt["value"] == f"The answer is {'ABCD'[problem['answer']]}."
        assert (problem["image"] == "image.png") == ("image" in row)
        if "image" in row:
            assert (folder / "scienceqa/images/test" / row["image"]).is_file()
        places[len(problem["choices"])][problem["answer"]] += 1
    assert set(places) == {2, 3, 4}
    for options, counts in places.items():
        assert len(counts) == options and max(counts.values()) - min(counts.values()) <= 1
    assert {problem["subject"] for problem in problems.values()} == {
        "natural science", "social science", "language science",
    }  # fmt: skip


def test_textvqa(folder):
    lines = _lines(folder / "textvqa/llava_textvqa_val_v051_ocr.jsonl")
    annotation = json.loads((folder / "textvqa/TextVQA_0.5.1_val.json").read_text())
    answers = {(row["image_id"], row["question"]): row["answers"] for row in annotation["data"]}
    assert len(lines) == len(answers) == len(annotation["data"])
    given = Counter()
    for line in lines:
        question, tokens, suffix = line["text"].split("\n")
        assert "\n" + suffix == SHORT_SUFFIX and tokens.startswith("Reference OCR token: ")
        expected = answers[line["question_id"], question]
        assert len(expected) == 10 and len(set(expected)) == 1
        words = tokens.removeprefix("Reference OCR token: ").lower().split(", ")
        assert len(set(words)) == 4 and any(word.startswith(expected[0]) for word in words)
        if expected[0] in words:
            given[words.index(expected[0])] += 1
        assert (folder / "textvqa/train_images" / line["image"]).is_file()
        assert line["image"].split(".")[0] == line["question_id"]
    assert set(given) == {0, 1, 2, 3}, "the right word can stand anywhere"


def test_pope(folder):
    lines = _lines(folder / "pope/llava_pope_test.jsonl")
    assert len({line["question_id"] for line in lines}) == len(lines)
    for category in ("random", "popular", "adversarial"):
        labels = _lines(folder / f"pope/coco/coco_pope_{category}.json")
        own = [line for line in lines if line["category"] == category]
        assert [label["question_id"] for label in labels] == [line["question_id"] for line in own]
        assert Counter(label["label"] for label in labels) == {"yes": len(own) // 2, "no": len(own) // 2}
        for line, label in zip(own, labels, strict=True):
            assert line["text"] == label["text"] + SHORT_SUFFIX and line["image"] == label["image"]
            assert (folder / "pope/val2014" / line["image"]).is_file()


def test_mme(folder):
    lines = _lines(folder / "MME/llava_mme.jsonl")
    release = folder / "MME/MME_Benchmark_release_version"
    asked = defaultdict(list)
    for line in lines:
        assert line["question_id"].split("/")[0] == line["category"] and line["text"].endswith(SHORT_SUFFIX)
        asked[line["image"]].append(line["text"].removesuffix(SHORT_SUFFIX) + " Please answer yes or no.")
    assert len({line["category"] for line in lines}) == 8
    for image, questions in asked.items():
        rows = [row.split("\t") for row in (release / image).with_suffix(".txt").read_text().splitlines()]
        assert [row[0] for row in rows] == questions
        assert sorted(row[1] for row in rows) == ["No", "Yes"]
        assert (release / image).is_file()


def _table(folder):
    with open(folder / "mmbench/mmbench_dev_20230712.tsv", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_mmbench(folder):
    rows = _table(folder)
    questions = defaultdict(list)
    for row in rows:
        questions[int(row["index"]) % 1_000_000].append(row)
    assert len(rows) == 4 * len(questions)
    for rotations in questions.values():
        options = [[row[letter] for letter in "ABCD"] for row in rotations]
        assert all(options[turn] == options[0][turn:] + options[0][:turn] for turn in range(4))
        assert len({row[row["answer"]] for row in rotations}) == 1
        assert sorted(row["answer"] for row in rotations) == list("ABCD")
        assert len({(row["question"], row["hint"], row["image"]) for row in rotations}) == 1
        assert [int(row["index"]) // 1_000_000 for row in rotations] == [0, 1, 2, 3]
        with Image.open(io.BytesIO(base64.b64decode(rotations[0]["image"]))) as picture:
            assert picture.size == (80, 80)
    assert all(row["category"] and row["l2-category"] and row["split"] == "dev" for row in rows)


def _right(name, question):
    """The text that answers a loaded question rightly."""
    if name == "gqa":
        return question.gold["answer"].capitalize() + "."
    if name == "sqa":
        return "ABCDE"[question.gold]
    if name == "textvqa":
        return question.gold[0].upper()
    return question.gold.capitalize() if name in ("pope", "mme") else question.gold


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_scorer_gives_full_marks_to_right_answers_and_few_to_blind_ones(name, folder):
    benchmark = BENCHMARKS[name]
    questions = benchmark.load(*benchmark.find(folder))
    assert benchmark.score(questions, [_right(name, question) for question in questions]).value == 100.0
    for question in questions[:20]:
        suffix = LETTER_SUFFIX if name in ("sqa", "mmbench") else SHORT_SUFFIX
        assert question.text.endswith(suffix)
    for blind in ("Yes", "A", "top left", "OPEN"):
        value = benchmark.score(questions, [blind] * len(questions)).value
        limit = {"gqa": 20, "sqa": 45, "textvqa": 15, "pope": 67, "mme": 26, "mmbench": 6}[name]
        assert value <= limit, (blind, value)


def test_summary_tells_numbers_and_chance(folder, mini_build):
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) == set(WRITERS)
    assert summary == json.loads((mini_build / "manifest.json").read_text())["counts"]["benchmarks"]
    for name, entry in summary.items():
        assert entry["questions"] > 0 and entry["chance"], name
        share = entry["held_out_pair"] / (entry["questions"] / (4 if name == "mmbench" else 1))
        assert 0.2 < share < 0.7, (name, share)
    assert summary["gqa"]["chance"]["accuracy"] < 32


def test_full_size_is_about_three_thousand_questions(folder, mini_config):
    summary = json.loads((folder / "summary.json").read_text())
    total = sum(entry["questions"] for entry in summary.values()) / mini_config.eval_scale
    assert 2850 <= total <= 3150


def test_benchmarks_are_reproducible(tmp_path):
    for part in "ab":
        for name in ("pope", "mmbench"):
            run_benchmark(BenchmarkJob(name, Setting(tmp_path / part, 0, 0.1, 32)))
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_benchmarks_use_scenes_of_their_own():
    pools = [{scene.key for scene in scene_pool(0, benchmark, 50)} for benchmark in range(6)]
    assert len(set().union(*pools)) == 300
    for scene in scene_pool(0, 2, 50):
        assert scene.held_out_pair == contains_held_out_pair(scene.names)


def _item(scene, answer, kind="what_at"):
    return Item(
        0,
        scene,
        Question(kind, f"{kind}?", answer, f"It is {answer}.", () if answer in ("Yes", "No") else ("x", "y")),
    )


def test_balanced_takes_answers_equally(held_out_scenes):
    items = [_item(scene, "abc"[min(index // 60, 2)]) for index, scene in enumerate(held_out_scenes[:200])]
    chosen = balanced(items, 30)
    assert Counter(item.question.answer for item in chosen) == {"a": 10, "b": 10, "c": 10}
    assert 10 <= sum(item.scene.held_out_pair for item in chosen) <= 20
    assert len(balanced(items, 500)) == 200, "no more than there are"


def test_blind_accuracy_knows_the_commonest_answer(held_out_scenes):
    scene = held_out_scenes[0]
    open_questions = [_item(scene, answer) for answer in ("cat", "cat", "dog", "owl")]
    assert blind_accuracy(open_questions) == 50.0
    assert blind_accuracy([*open_questions, *[_item(scene, "Yes", "presence")] * 4]) == 50.0
    assert blind_accuracy([_item(scene, "cat"), _item(scene, "dog")]) == 50.0
