"""Check a benchmark's files (found, missing or wrong), reading them as the evaluation does."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.eval.benchmark import MissingFile, picture_folder
from llava.inference.question import Question
from llava.prepare.benchmarks.layout import manifest_path
from llava.prepare.benchmarks.sources import BenchmarkSource
from llava.prepare.download import sha256_of

FOUND, MISSING, WRONG = "found", "missing", "wrong"


@dataclass
class Item:
    """One line of the report.

    Attributes:
        what: Kind of file.
        state: ``found``, ``missing`` or ``wrong``.
        path: Path of the file, or where it should be.
        note: Origin, address, or what is wrong.
        more: Further notes, one line each.
    """

    what: str
    state: str
    path: Path
    note: str = ""
    more: list[str] = field(default_factory=list)


@dataclass
class State:
    """The state of a benchmark's files, and the comparison of its counts with the published ones."""

    items: list[Item]
    counts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the evaluation can run and gives scores comparable with published ones."""
        return all(item.state == FOUND for item in self.items)


def check(source: BenchmarkSource, root: Path, origins: dict[str, Any]) -> State:
    """Check all files that the evaluation of a benchmark reads.

    Args:
        source: The benchmark.
        root: The evaluation root.
        origins: Records of its files, see :func:`llava.prepare.benchmarks.layout.records`.
    """
    folder = source.folder(root)
    state = State([])
    for file in source.files:
        path = file.find(folder)
        if path is not None:
            state.items.append(_found("published", path, root, origins, manifest_path(source, root)))
        elif not file.for_questions:
            size = f" ({file.size})" if file.size else ""
            item = Item("published", MISSING, folder / file.place, f"{file.url}{size}")
            part = folder / f"{file.archive or file.place}.part"
            if part.is_file():
                item.more.append(f"{part.stat().st_size:,} bytes are downloaded; --download continues from there")
            if file.archive:
                item.more.append(f"--download extracts it from that archive, or from a copy that you put in {folder}")
            if file.terms:
                item.more.append(f"{file.terms}: pass --accept_terms to download it")
            state.items.append(item)
    questions = source.question_file(folder)
    if source.make is not None:
        state.items.append(_question_item(source, questions, folder, root, origins))
    if questions is not None:
        _read(source, questions, folder, state)
    elif source.pictures is not None:
        state.items.append(_picture_item(source, folder, []))
    return state


def _found(what: str, path: Path, root: Path, origins: dict[str, Any], manifest: Path) -> Item:
    record = origins.get(path.relative_to(root).as_posix(), {})
    item = Item(what, FOUND, path, str(record.get("origin", "")))
    if record.get("sha256") and path.is_file() and sha256_of(path) != record["sha256"]:
        item.state = WRONG
        item.note = (
            f"its content has changed since it was put there; remove it and get it again, or remove {manifest} "
            "to accept it as it is"
        )
    return item


def _question_item(
    source: BenchmarkSource, path: Path | None, folder: Path, root: Path, origins: dict[str, Any]
) -> Item:
    if path is None:
        target = folder / source.benchmark.questions[0]
        return Item("questions", MISSING, target, "from LLaVA's eval.zip, or made from the published files")
    item = _found("questions", path, root, origins, manifest_path(source, root))
    size = path.stat().st_size
    if item.state == FOUND and source.question_bytes not in (None, size):
        item.more.append(f"not LLaVA's file: it has {size:,} bytes, LLaVA's has {source.question_bytes:,}")
    return item


def _read(source: BenchmarkSource, path: Path, folder: Path, state: State) -> None:
    """Read the benchmark as the evaluation does; count the questions and check that the images exist."""
    try:
        questions = source.benchmark.load(folder, path)
    except MissingFile:
        questions = []  # the missing file is reported on a line of its own
    except InputError as error:
        state.items.append(Item("contents", WRONG, path, str(error)))
        questions = []
    if questions:
        found = tally(questions)
        for figure in source.expected.get(path.name, ()):
            number = found[figure.what]
            state.counts.append({**asdict(figure), "found": number, "agrees": figure.agrees(number)})
        off = [
            f"{count['found']:,} {count['what'] or 'questions'}, {count['rows']:,} published ({count['stated_by']})"
            for count in state.counts
            if not count["agrees"]
        ]
        total = f"{len(questions):,} questions"
        state.items.append(Item("contents", WRONG if off else FOUND, path, "; ".join(off) or total))
    if source.pictures is not None or any(q.picture and not q.picture.exists() for q in questions):
        state.items.append(_picture_item(source, folder, questions))


def tally(questions: Sequence[Question]) -> Counter:
    """Numbers of questions (all under "", by category, with an image, without rotations) and of images."""
    found = Counter({"": len(questions)})
    found.update(question.category for question in questions if question.category)
    shown = [question.picture for question in questions if question.picture is not None]
    found["with an image"] = len(shown)
    found["images"] = len({picture.identity for picture in shown})
    found["asked once"] = len({question.group or index for index, question in enumerate(questions)})
    return found


def _picture_item(source: BenchmarkSource, folder: Path, questions: Sequence[Question]) -> Item:
    """Whether every question's image exists; if there are no questions yet, whether the folder exists."""
    pictures = source.pictures
    path = picture_folder(folder, pictures.places) if pictures else folder
    absent = [q.picture for q in questions if q.picture is not None and not q.picture.exists()]
    if questions and not absent:
        return Item("images", FOUND, path)
    if not questions and path.is_dir():
        return Item("images", FOUND, path, "not checked: there are no questions yet")
    item = Item("images", WRONG if questions and path.is_dir() else MISSING, path)
    problem = f"the images of {len(absent):,} of {len(questions):,} questions are missing"
    if pictures is None:
        item.note = f"{problem}, the first: {absent[0].name}"
        item.more += [source.absent_pictures] if source.absent_pictures else []
        return item
    if item.state == WRONG:
        item.more.append(f"{problem}, the first: {absent[0].name}")
    item.note = f"{pictures.get}, to be unpacked in {folder / pictures.unpack_in}"
    shared = folder.parent.parent / pictures.shared
    if pictures.shared and shared.is_dir():
        item.more.append(f"or use the training data's: ln -s {shared.resolve()} {folder / pictures.places[0]}")
    item.more += [f"or a mirror: {mirror}" for mirror in pictures.mirrors]
    return item
