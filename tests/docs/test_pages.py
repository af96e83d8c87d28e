"""The pages of docs/ name files, modules, flags, variables and messages that exist.

The site itself is built strictly by a workflow; these checks need no Sphinx.
"""

import ast
import contextlib
import importlib
import importlib.util
import io
import operator
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from align_ti.cli import DATA
from align_ti.recipes.files import PAIRS, RECIPES, names_in
from align_ti.recipes.keys import GIVEN
from align_ti.recipes.resolve import resolve
from align_ti.studies.figures import FIGURES, command_of
from llava.train.parsing import RENAMED_FLAGS, FlagParser
from llava.train.plan import PlanArguments
from tests.runs import run_module

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
PATH = re.compile(r"(?<![\w/.-])(?:\.ci|\.github|align_ti|docs|llava|playground|scripts|tests)/[\w./*-]*")
MODULE = re.compile(r"(?<![\w/.-])(?:align_ti|llava|playground)(?:\.\w+)+")
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
VARIABLE = re.compile(r"(?<![\w$-])([A-Z][A-Z0-9_]{2,})(?==)|(?<!`)`([A-Z][A-Z0-9_]{4,})`(?!`)")
MADE = (
    "playground/data",
    "playground/mini/build",
    "playground/mini/runs",
    "playground/mini/quick",
    "docs/_build",
    "docs/api",
)
"""Folders that are not in the repository: made by its programs."""
OTHER_PROGRAMS = ("lmms_eval", "tensorboard", "sphinx-build")
"""Programs of other packages, whose flags are not checked."""

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def fences(path: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(text(path)) if name == language]


def commands(path: Path) -> list[list[str]]:
    """The words of every command line in a page's bash blocks."""
    lines = "".join(fences(path, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if not re.match(r"https?:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


@page
def test_paths_exist(page: Path) -> None:
    for found in PATH.findall(text(page)):
        path = found.rstrip(".")
        if not path.startswith(MADE):
            assert (ROOT / path).exists() or any(ROOT.glob(path)), path


@page
def test_modules_exist(page: Path) -> None:
    for name in MODULE.findall(text(page)):
        module, rest = name, []
        while not is_module(module):  # what follows the module is something in it
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
        if rest:
            assert operator.attrgetter(".".join(rest))(importlib.import_module(module)) is not None, name


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@cache
def flags_of(module: str) -> frozenset[str]:
    """All flags that ``python -m MODULE --help`` prints; for a training also those of its plan."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as end:
        run_module([*module.split(), "--help"])
    assert not end.value.code, module
    plan = FlagParser(PlanArguments).flags if module.endswith("train") else ()
    return frozenset(FLAG.findall(out.getvalue())) | frozenset(plan)


STAGE_MODULES = {
    "pretrain": ["llava.train.train"],
    "finetune": ["llava.train.train"],
    "distill": ["align_ti.training.train"],
    "plan": ["align_ti.training.train"],
    "export": ["llava.export"],
    "chat": ["llava.serve.cli"],
    "web": ["align_ti.web.server"],
    "demo": ["align_ti.demo"],
}
"""Modules behind the commands of ``align-ti``."""
OF_RECIPES = frozenset(f"--{name}" for name in ("pair", "print", *GIVEN))
"""Flags that every command with a recipe has."""


def modules_of(words: list[str]) -> list[str]:
    """The modules among whose flags those of a command are; none for other programs."""
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    if words[:2] == ["python", "-m"]:
        group = words[3:4] == ["benchmarks"]
        return [words[2] + " benchmarks" * group] if words[2] not in OTHER_PROGRAMS else []
    if words[:1] == ["align-ti"] and len(words) > 2:
        return modules_of_command(words[1], words[2])
    if words[:1] != ["bash"] or not words[1].startswith("scripts/"):
        return []
    started = re.search(r"align-ti\.sh\"? (\w+) (\S+)", text(ROOT / words[1]))
    return modules_of_command(*started.groups()) if started else []


def modules_of_command(command: str, subject: str) -> list[str]:
    """The modules behind ``align-ti COMMAND SUBJECT``."""
    if command == "data":
        return [" ".join(DATA[subject])]
    if command == "eval":
        return ["llava.eval.ask" if subject == "ask" else "llava.eval.run"]
    if command == "table" and subject in FIGURES:
        module = command_of(subject, None, ["--image", "x"] if subject == "table17" else [], needs=False)[0]
        return [module]
    if command == "table":
        return ["align_ti.studies.tables", "align_ti.training.train"]
    return STAGE_MODULES.get(command, [])


@page
def test_commands_have_known_flags(page: Path) -> None:
    for words in commands(page):
        flags = {word.partition("=")[0] for word in words if word.startswith("--") and len(word) > 2}
        modules = modules_of(words)
        if modules and flags:
            assert flags <= OF_RECIPES.union(*map(flags_of, modules)), shlex.join(words)


def test_flags_in_running_text_are_known() -> None:
    modules = {module for path in PAGES for words in commands(path) for module in modules_of(words)}
    known = frozenset({"--help", *RENAMED_FLAGS, *OF_RECIPES}).union(
        *map(flags_of, modules | {"align_ti.training.train"})
    )
    for path in PAGES:
        for code in INLINE.findall(text(path)):
            external = any(name in code for name in OTHER_PROGRAMS)
            flags = FLAG.findall(code)
            assert external or {flag.removesuffix("-") for flag in flags} <= known, (path.name, code)


@page
def test_variables_are_read_somewhere(page: Path) -> None:
    sources = [*(ROOT / "scripts").rglob("*"), *(ROOT / "playground").rglob("*.sh"), *(ROOT / "align_ti").rglob("*.py")]
    code = "\n".join(text(path) for path in sources if path.suffix in (".sh", ".py", ".sbatch"))
    code += text(ROOT / "llava/train/run_record.py")
    for first, second in VARIABLE.findall(text(page)):
        assert re.search(rf"(?<!\w){first or second}(?!\w)", code), first or second


def test_the_recipes_page_has_every_pair_with_its_models() -> None:
    page = text(ROOT / "docs/recipes.md").partition("## What a recipe sets")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")
    ]
    named = {name: row for row in rows for name in INLINE.findall(row[0])}
    assert sorted(named) == names_in(PAIRS)
    for name, row in named.items():
        if not name.startswith("mini"):
            recipe = resolve("align-ti", name)
            models = [recipe.text("teacher_lm"), recipe.text("student_lm"), f"`{recipe.text('version')}`"]
            assert row[1:4] == models, name


def test_the_recipes_page_has_the_values_of_align_ti() -> None:
    recipe, checked = resolve("align-ti"), 0
    for line in text(ROOT / "docs/recipes.md").partition("The values of `align-ti`")[2].splitlines():
        names, *rest = (cell.strip() for cell in line.strip("|").split(" | ")) if line.startswith("| `") else ("", "")
        for name, value in zip(INLINE.findall(names), re.split(r", ", rest[0]), strict=False):
            numbers = {"global_batch": recipe.global_batch, "per_device_train_batch_size": recipe.per_device}
            assert value.strip("` ") == str(numbers.get(name) or recipe.text(name)), name
            checked += 1
    assert checked >= 17


def test_the_recipes_page_names_every_recipe() -> None:
    named = INLINE.findall(text(ROOT / "docs/recipes.md"))
    assert set(names_in(RECIPES)) <= set(named)


def message_patterns() -> list[re.Pattern[str]]:
    """The code's texts with 14 fixed characters or more, as patterns: what an f-string fills in may be anything."""
    found = []
    for path in [*(ROOT / "llava").rglob("*.py"), *(ROOT / "align_ti").rglob("*.py")]:
        tree = ast.parse(text(path))
        joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
        inside = {id(part) for node in joined for part in ast.walk(node) if part is not node}
        for node in ast.walk(tree):
            parts: list[str | None] = []
            if isinstance(node, ast.JoinedStr) and id(node) not in inside:
                parts = [str(part.value) if isinstance(part, ast.Constant) else None for part in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                parts = [node.value]
            if sum(len(part) for part in parts if part is not None) >= 14:
                pattern = "".join(".*?" if part is None else re.escape(part) for part in parts)
                found.append(re.compile(re.sub(r"(\\?\s)+", r"\\s+", pattern)))
    return found


def test_quoted_messages_are_the_codes_own() -> None:
    patterns = message_patterns()
    for path in PAGES:
        for block in fences(path, "text"):
            for message in re.findall(r"^(?:error|warning): (.+?)(?=^error: |^warning: |\Z)", block, re.M | re.S):
                flat = " ".join(message.split())
                assert any(pattern.match(flat) for pattern in patterns), (path.name, flat)
