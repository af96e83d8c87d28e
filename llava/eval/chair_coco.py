"""The objects of COCO's images for CHAIR, from the annotation files as published."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.eval.benchmark import MissingFile
from llava.eval.chair_synonyms import coco_vocabulary
from llava.eval.chair_vocabulary import Vocabulary
from llava.files import read_json

INSTANCES, CAPTIONS = "instances_*.json", "captions_*.json"
FOLDERS = ("annotations", ".")


@dataclass(frozen=True)
class Annotation:
    """One or several splits of COCO.

    Attributes:
        images: Id of every image by its file name.
        categories: Names of the categories segmented in each image, by image id.
        captions: Reference captions by image id.
    """

    images: dict[str, int]
    categories: dict[int, set[str]]
    captions: dict[int, list[str]]


def find(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files of segmented instances and of captions in a benchmark's folder or its ``annotations``.

    Raises:
        MissingFile: There are none of one kind, or the two kinds are of different splits.
    """
    found = []
    for pattern in (INSTANCES, CAPTIONS):
        paths = next((paths for name in FOLDERS if (paths := sorted((folder / name).glob(pattern)))), [])
        if not paths:
            raise MissingFile(f"annotation of COCO not found: expected {folder / FOLDERS[0] / pattern}")
        found.append(paths)
    splits = [{path.stem.partition("_")[2] for path in paths} for paths in found]
    if splits[0] != splits[1]:
        lacking = sorted(splits[0] ^ splits[1])
        raise MissingFile(f"{found[0][0].parent}: instances and captions of split {lacking[0]!r} are needed together")
    return found[0], found[1]


def read(folder: Path) -> tuple[Annotation, Vocabulary]:
    """COCO's annotation in a folder, and the vocabulary of its categories.

    Raises:
        InputError: A file is missing, is not COCO's annotation, or has a category that is none of the 80.
    """
    instances, captions = find(folder)
    vocabulary = coco_vocabulary()
    annotation = Annotation({}, defaultdict(set), defaultdict(list))
    for path in instances:
        content = _content(path, ("images", "annotations", "categories"))
        try:
            names = {row["id"]: row["name"] for row in content["categories"]}
            annotation.images.update({row["file_name"]: row["id"] for row in content["images"]})
            for row in content["annotations"]:
                annotation.categories[row["image_id"]].add(names[row["category_id"]])
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: expected COCO's instances; an entry lacks or misstates {error}") from error
        unknown = sorted(set(names.values()) - vocabulary.objects)
        if unknown:
            raise InputError(f"{path}: category {unknown[0]!r} is none of COCO's 80; is this another data set?")
    for path in captions:
        content = _content(path, ("annotations",))
        try:
            for row in content["annotations"]:
                annotation.captions[row["image_id"]].append(row["caption"])
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: expected COCO's captions; an entry lacks or misstates {error}") from error
    return annotation, vocabulary


def _content(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    content = read_json(path)
    lacking = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if lacking:
        raise InputError(f"{path}: expected COCO's annotation, an object with a list {lacking[0]!r}")
    return content


def objects_of(names: Iterable[str], annotation: Annotation, vocabulary: Vocabulary) -> dict[str, frozenset[str]]:
    """The objects of some images by file name: segmented categories and those that a reference caption mentions.

    Raises:
        InputError: An image is unknown, or has no reference caption.
    """
    found = {}
    for name in names:
        number = annotation.images.get(Path(name).name)
        if number is None:
            example = next(iter(annotation.images), "none")
            raise InputError(
                f"image {name!r} is not in COCO's annotation, which has {len(annotation.images):,} images such as "
                f"{example!r}; do questions and annotation belong together?"
            )
        if number not in annotation.captions:
            raise InputError(f"image {name!r} has no reference caption; do captions and instances belong together?")
        said = (each for caption in annotation.captions[number] for each in vocabulary.mentions(caption))
        found[name] = frozenset(said) | annotation.categories.get(number, set())
    return found
