"""CHAIR: how many of the objects that a description names are not in the image.

The figures are those of Rohrbach et al., "Object Hallucination in Image Captioning" (EMNLP 2018): CHAIR_i is the share
of mentions of objects that are not in the image, CHAIR_s the share of descriptions with one. Lower is better; a model
that says little has little to be wrong about, so recall belongs to them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llava.errors import InputError
from llava.eval import chair_coco
from llava.eval.benchmark import Benchmark, Score, picture_folder, read_jsonl
from llava.eval.chair_vocabulary import Vocabulary, read_vocabulary
from llava.eval.ratio import share
from llava.inference.question import Picture, Question

OBJECTS, TRUTH = "objects.json", "truth.jsonl"
PICTURES = ("val2014", "images", "val2017", "train2014", "train2017")
SHOWN = 10
"""Number of objects whose hallucinations are reported one by one."""


@dataclass(frozen=True)
class Expected:
    """What a description is compared with: the objects of its image, among those of a vocabulary."""

    objects: frozenset[str]
    vocabulary: Vocabulary


def load(folder: Path, question_file: Path) -> list[Question]:
    """Requests for descriptions, with :class:`Expected` as ``gold``.

    The objects come from ``objects.json`` (for each object its further wordings) and ``truth.jsonl`` (``image`` and
    ``objects``) if the folder has them, otherwise from COCO's ``annotations/instances_*.json`` and
    ``annotations/captions_*.json``.

    Raises:
        InputError: A file is missing or malformed, or an image is not annotated.
    """
    rows = read_jsonl(question_file, ("question_id", "image", "text"))
    images = list(dict.fromkeys(str(row["image"]) for row in rows))
    if (folder / OBJECTS).is_file():
        vocabulary = read_vocabulary(folder / OBJECTS)
        truth = _read_truth(folder / TRUTH, vocabulary)
        for image in images:
            if image not in truth:
                raise InputError(
                    f"{folder / TRUTH} has no image {image!r}, which {question_file} asks about; "
                    "do they belong together?"
                )
    else:
        annotation, vocabulary = chair_coco.read(folder)
        truth = chair_coco.objects_of(images, annotation, vocabulary)
    place = picture_folder(folder, PICTURES)
    return [
        Question(
            row["question_id"],
            row["text"],
            Picture.file(place / row["image"]),
            gold=Expected(truth[str(row["image"])], vocabulary),
        )
        for row in rows
    ]


def _read_truth(path: Path, vocabulary: Vocabulary) -> dict[str, frozenset[str]]:
    if not path.is_file():
        raise InputError(f"{path} does not exist; next to {OBJECTS} there must be the objects of each image")
    truth = {}
    for number, row in enumerate(read_jsonl(path, ("image", "objects")), 1):
        objects = row["objects"]
        if not isinstance(objects, list) or not all(isinstance(each, str) for each in objects):
            raise InputError(f"{path}, entry {number}: 'objects' is {objects!r}, expected a list of names")
        unknown = sorted(set(objects) - vocabulary.objects)
        if unknown:
            raise InputError(f"{path}, entry {number}: object {unknown[0]!r} is not in {OBJECTS}")
        truth[str(row["image"])] = frozenset(objects)
    return truth


def score(questions: Sequence[Question], texts: Sequence[str | None]) -> Score:
    """CHAIR_i as the figure; CHAIR_s, recall, counts and standard errors over descriptions as metrics.

    A missing or empty answer is a description that mentions nothing: it counts in CHAIR_s and in recall.
    """
    mentioned, recalled, faulty = [], [], []
    invented: Counter[str] = Counter()
    for question, text in zip(questions, texts, strict=True):
        expected: Expected = question.gold
        said = expected.vocabulary.mentions(text or "")
        wrong = [name for name in said if name not in expected.objects]
        invented.update(wrong)
        mentioned.append((len(wrong), len(said)))
        faulty.append((int(bool(wrong)), 1))
        recalled.append((len(expected.objects & set(said)), len(expected.objects)))
    figures = {"chair_i": share(mentioned), "chair_s": share(faulty), "recall": share(recalled)}
    return Score(
        figures["chair_i"].percent,
        {
            **{name: asdict(figure) for name, figure in figures.items()},
            "descriptions": len(texts),
            "empty": sum(text is None or not text.strip() for text in texts),
            "without_objects": sum(not said for _, said in mentioned),
            "mentions": sum(said for _, said in mentioned),
            "hallucinated": sum(invented.values()),
            "most_hallucinated": dict(invented.most_common(SHOWN)),
        },
    )


BENCHMARK = Benchmark(
    name="chair",
    column="CHAIR",
    folders=("chair",),
    questions=("questions.jsonl",),
    load=load,
    score=score,
    max_new_tokens=256,
    get="docs/evaluation.md, section CHAIR, says which files belong there",
)
