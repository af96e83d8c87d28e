"""CHAIR: what counts as a mention, the figures by hand, COCO's files, and the command line."""

import json
import math
import random
import re
from pathlib import Path

import pytest
from PIL import Image

from llava.errors import InputError
from llava.eval.benchmarks.chair import BENCHMARK
from llava.eval.chair_questions import main as write_questions
from llava.eval.chair_synonyms import coco_vocabulary
from llava.eval.chair_vocabulary import Vocabulary, plural
from llava.eval.evaluate import Task
from llava.eval.run import main

COCO = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush"""
CATEGORIES = COCO.replace("\n", " ").split(", ")

IMAGES = {17: "COCO_val2014_000000000017.jpg", 18: "COCO_val2014_000000000018.jpg", 19: "COCO_val2014_000000000019.jpg"}


@pytest.fixture(scope="module")
def coco():
    return coco_vocabulary()


def write(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = content if isinstance(content, list) else [content]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    """An evaluation root with COCO's annotation of three images, in the published form, and questions about two."""
    folder = tmp_path / "eval/chair"
    images = [{"id": number, "file_name": name, "height": 4, "width": 4} for number, name in IMAGES.items()]
    segments = [(17, "dog"), (17, "dog"), (17, "couch"), (18, "person"), (18, "tennis racket")]
    captions = [
        (17, "A puppy sleeps on a sofa next to a remote."),
        (17, "The dog is asleep."),
        (18, "A man playing tennis"),
        (19, "An empty road."),
    ]
    numbers = {name: number for number, name in enumerate(CATEGORIES, 1)}
    write(
        folder / "annotations/instances_val2014.json",
        {
            "images": images,
            "categories": [{"id": number, "name": name, "supercategory": "x"} for name, number in numbers.items()],
            "annotations": [
                {"id": at, "image_id": image, "category_id": numbers[name], "segmentation": [[0, 0, 1, 0, 1, 1]]}
                for at, (image, name) in enumerate(segments)
            ],
        },
    )
    write(
        folder / "annotations/captions_val2014.json",
        {
            "images": images,
            "annotations": [{"id": at, "image_id": i, "caption": text} for at, (i, text) in enumerate(captions)],
        },
    )
    rows = [{"question_id": n, "image": IMAGES[n], "text": "Describe this image in detail."} for n in (17, 18)]
    write(folder / "questions.jsonl", rows)
    for name in IMAGES.values():
        (folder / "val2014").mkdir(exist_ok=True)
        Image.new("RGB", (32, 24), (20, 120, 200)).save(folder / "val2014" / name)
    return tmp_path / "eval"


def test_the_vocabulary_has_the_80_categories_in_both_numbers(coco):
    assert coco.objects == set(CATEGORIES) and len(CATEGORIES) == 80
    for name in CATEGORIES:
        assert coco.mentions(f"I see {plural(name)} there.") == [name]
        assert coco.mentions(f"{name.upper()}!") == ([name] if name != "orange" else [])


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("A hot dog and a dog.", ["hot dog", "dog"]),
        ("It is hot. Dogs lie about.", ["dog"]),  # no phrase reaches over a full stop
        ("The toilet seat is up", ["toilet"]),
        ("a teddy bear next to a bear", ["teddy bear", "bear"]),
        ("Two men, three women and some children", ["person"] * 3),
        ("A policewoman's car", ["person", "car"]),
        ("A baby elephant with its mother, and a baby.", ["elephant", "person", "person"]),
        ("passenger trains and passengers", ["train", "person"]),
        ("an orange cat with two oranges and a slice of orange", ["cat", "orange", "orange"]),
        ("Glasses of wine, cups of coffee and pairs of scissors", ["wine glass", "cup", "scissors"]),
        ("waiting at the bus stop by the train tracks", []),
        ("a bus stopping at the stop sign", ["bus", "stop sign"]),
        ("T.V., tv-set and television", ["tv", "tv", "tv"]),
        ("knives, mice, geese, sheep, calves, buses, benches", "knife mouse bird sheep cow bus bench".split()),
        ("The dining table: tables and a desk", ["dining table"] * 3),
        ("A fire-hydrant", ["fire hydrant"]),
        ("manatee humanity carpet category", []),  # whole words only
        ("", []),
        ("猫 ¿?", []),
    ],
)
def test_mentions(coco, text, objects):
    assert coco.mentions(text) == objects


def test_mentions_are_the_longest_phrases_from_the_left(coco):
    """A single pattern with long phrases first finds the same, in texts made of the vocabulary's own words."""
    phrases = {" ".join(words): name for words, name in coco._phrases.items()}
    longest_first = sorted(phrases, key=lambda phrase: -phrase.count(" "))
    pattern = re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, longest_first))})(?!\S)")
    rng, parts = random.Random(0), sorted({word for phrase in phrases for word in phrase.split()} | {",", "the"})
    for _ in range(200):
        text = " ".join(rng.choice(parts if rng.random() < 0.5 else longest_first) for _ in range(30))
        expected = [phrases[found] for found in pattern.findall(text) if phrases[found] is not None]
        assert coco.mentions(text) == expected, text


def test_a_wording_means_one_object():
    with pytest.raises(InputError, match="'bat' is a wording of 'animal' and of 'club'"):
        Vocabulary({"animal": ["bat"], "club": ["bat"]})
    with pytest.raises(InputError, match="has no letters"):
        Vocabulary({"animal": [" "]})


def test_truth_is_what_is_segmented_or_said(root):
    task = Task.load(BENCHMARK, root)
    assert [question.gold.objects for question in task.questions] == [
        {"dog", "couch", "remote"}, {"person", "tennis racket"},
    ]  # fmt: skip
    task.check_pictures()


def test_figures_by_hand(root):
    task = Task.load(BENCHMARK, root)
    texts = ["A dog on a couch. The dog has a ball and a cat.", "A woman with a racket."]
    result = BENCHMARK.score(task.questions, texts)
    metrics = result.metrics
    assert result.value == metrics["chair_i"]["percent"] == pytest.approx(100 * 2 / 7)
    residuals = (2 - 2 / 7 * 5, 0 - 2 / 7 * 2)
    error = 100 * math.sqrt(2 * sum(r * r for r in residuals)) / 7
    assert metrics["chair_i"]["standard_error"] == pytest.approx(error) and metrics["chair_i"]["count"] == 7
    assert metrics["chair_s"] == {"percent": 50.0, "standard_error": pytest.approx(50.0), "count": 2}
    assert metrics["recall"]["percent"] == pytest.approx(100 * 4 / 5) and metrics["recall"]["count"] == 5
    assert (metrics["mentions"], metrics["hallucinated"], metrics["empty"]) == (7, 2, 0)
    assert metrics["most_hallucinated"] == {"sports ball": 1, "cat": 1}


def test_empty_answers_are_counted_and_recall_nothing(root):
    task = Task.load(BENCHMARK, root)
    metrics = BENCHMARK.score(task.questions, [None, " \n"]).metrics
    assert (metrics["empty"], metrics["without_objects"], metrics["descriptions"]) == (2, 2, 2)
    assert metrics["chair_i"] == {"percent": 0.0, "standard_error": None, "count": 0}
    assert metrics["chair_s"]["percent"] == metrics["recall"]["percent"] == 0.0
    metrics = BENCHMARK.score(task.questions, ["Nothing is there.", "A man."]).metrics
    assert (metrics["empty"], metrics["without_objects"]) == (0, 1)


def test_objects_and_truth_of_a_data_set_of_ones_own(tmp_path):
    folder = tmp_path / "chair"
    write(folder / "objects.json", {"cat": ["cats"], "ice cream": ["ice creams", "sundae"], "cream": []})
    write(folder / "truth.jsonl", [{"image": "a.png", "objects": ["ice cream"]}, {"image": "b.png", "objects": []}])
    write(folder / "questions.jsonl", [{"question_id": 1, "image": "a.png", "text": "Describe."}])
    (question,) = Task.load(BENCHMARK, tmp_path).questions
    result = BENCHMARK.score([question], ["A sundae, an ice cream, two Cats and cream."])
    assert result.value == 50.0 and result.metrics["recall"]["percent"] == 100.0
    assert question.picture.path == folder / "val2014/a.png"
    for path, content, message in (
        ("questions.jsonl", {"question_id": 1, "image": "c.png", "text": "x"}, "no image 'c.png', which .*questions"),
        ("truth.jsonl", {"image": "a.png", "objects": ["dog"]}, "entry 1: object 'dog' is not in objects.json"),
        ("truth.jsonl", {"image": "a.png", "objects": "cat"}, "'objects' is 'cat', expected a list of names"),
        ("objects.json", {"cat": "cats"}, "expected an object of lists of wordings"),
        ("objects.json", {"cat": ["pet"], "dog": ["pet"]}, "objects.json: 'pet' is a wording of 'cat' and of 'dog'"),
    ):
        before = (folder / path).read_text()
        write(folder / path, content)
        with pytest.raises(InputError, match=message):
            Task.load(BENCHMARK, tmp_path)
        (folder / path).write_text(before)
    (folder / "truth.jsonl").unlink()
    with pytest.raises(InputError, match="truth.jsonl does not exist; next to objects.json"):
        Task.load(BENCHMARK, tmp_path)


def test_missing_and_foreign_files_of_coco(root):
    folder = root / "chair"

    def fails(message):
        with pytest.raises(InputError, match=message):
            Task.load(BENCHMARK, root)

    write(folder / "questions.jsonl", {"question_id": 1, "image": "COCO_val2014_000000000020.jpg", "text": "x"})
    fails("000020.jpg' is not in COCO's annotation, which has 3 images such as 'COCO_val2014_000000000017.jpg'")
    captions = folder / "annotations/captions_val2014.json"
    write(folder / "questions.jsonl", {"question_id": 1, "image": IMAGES[19], "text": "x"})
    write(captions, {"annotations": [{"image_id": 17, "caption": "A dog."}]})
    fails("019.jpg' has no reference caption")
    write(captions, {"annotations": [{"image_id": 17}]})
    fails("captions_val2014.json: expected COCO's captions; .* 'caption'")
    captions.rename(captions.with_name("captions_val2017.json"))
    fails("instances and captions of split 'val2014' are needed together")
    captions.with_name("captions_val2017.json").unlink()
    fails("expected .*annotations/captions_.*; docs/evaluation.md")
    instances = folder / "annotations/instances_val2014.json"
    write(captions, {"annotations": []})
    content = json.loads(instances.read_text())
    content["categories"][3]["name"] = "aerosol can"
    write(instances, content)
    fails("category 'aerosol can' is none of COCO's 80")
    write(instances, {"images": [], "annotations": []})
    fails("an object with a list 'categories'")
    write(instances, {**content, "annotations": [{"image_id": 17, "category_id": 999}]})
    fails("lacks or misstates 999")
    (folder / "questions.jsonl").unlink()
    fails("question file of CHAIR not found: expected .*questions.jsonl; docs/evaluation.md")


def test_questions_about_images_of_coco(root, capsys):
    path = root / "chair/questions.jsonl"
    with pytest.raises(InputError, match="exists; pass --overwrite"):
        write_questions(["--eval-root", str(root)])
    with pytest.raises(InputError, match="--number is 4; it must be 1 to 3"):
        write_questions(["--eval-root", str(root), "--number", "4", "--overwrite"])
    chosen = []
    for seed in ("1", "1", "4"):
        write_questions(["--eval-root", str(root), "--number", "2", "--seed", seed, "--overwrite"])
        chosen.append([json.loads(line) for line in path.read_text().splitlines()])
    assert chosen[0] == chosen[1] != chosen[2]
    assert all(IMAGES[row["question_id"]] == row["image"] for row in chosen[0])
    assert len(Task.load(BENCHMARK, root).questions) == 2
    assert "2 questions in" in capsys.readouterr().out


def test_command_line(root, checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    where = ["--benchmark", "chair", "--model-path", str(checkpoint), "--eval-root", str(root)]
    main([*where, "--output-dir", str(out), "--max-new-tokens", "4"])
    content = json.loads((out / "chair.json").read_text())
    assert content["answers"]["answered"] == content["metrics"]["descriptions"] == 2
    assert capsys.readouterr().out == f"CHAIR: {content['score']:.2f}\n"
    assert not (out / "scores.json").exists(), "CHAIR is in no mean"
    answers = tmp_path / "answers.jsonl"
    texts = ["A dog and a cat.", "A person."]
    write(answers, [{"question_id": n, "text": text} for n, text in zip((17, 18), texts, strict=True)])
    main(
        [
            "--benchmark",
            "chair",
            "--answers-file",
            str(answers),
            "--eval-root",
            str(root),
            "--output-dir",
            str(out),
            "--overwrite",
        ]
    )
    assert json.loads((out / "chair.json").read_text())["score"] == pytest.approx(100 / 3)
