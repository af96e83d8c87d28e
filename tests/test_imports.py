"""The layers of both packages: no module imports from a layer above its own, and no imports lead in a circle.

All imports count, also those inside functions and those for type checkers alone.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = (  # bottom up; rooms side by side on a layer do not import each other
    ("llava",),
    ("llava.errors",),
    ("llava.constants",),
    ("llava.conversation", "llava.files", "llava.flags", "llava.console", "llava.cores", "llava.fusion"),
    ("llava.model",),
    ("llava.data",),  # annotations, check
    ("llava.mm_utils",),  # LLaVA's names, for programs written for it
    ("llava.inference",),  # a checkpoint ready for use
    ("llava.eval",),  # benchmarks, lmms
    ("llava.prepare",),  # training mixes and benchmarks on disk
    ("llava.train",),  # plan
    ("llava.export",),
    ("llava.serve",),
    ("align_ti.numerics", "align_ti.settings", "align_ti.transfer"),
    ("align_ti.attention",),  # ribbon
    ("align_ti.candidates",),
    ("align_ti.losses",),
    ("align_ti.config",),
    ("align_ti.passes",),
    ("align_ti.objective", "align_ti.irs"),
    ("align_ti.training",),
    ("align_ti.recipes",),
    ("align_ti.launch",),
    ("align_ti.studies", "align_ti.web", "align_ti.checkpoint"),
    ("align_ti.cli", "align_ti.demo"),
    ("align_ti",),  # the public names
)
"""Rooms: a module, or a package with all in it; ``llava`` and ``align_ti`` stand for their ``__init__`` alone."""

KNOWN: set[tuple[str, str]] = set()
"""Imports that are still to be mended. The list may only become shorter."""


@dataclass(frozen=True)
class Import:
    """One import statement's target."""

    importer: str
    imported: str
    place: str  # file:line

    def __str__(self) -> str:
        return f"{self.place}: {self.importer} imports {self.imported}"


def modules_in(root: Path, packages: Sequence[str]) -> dict[str, Path]:
    """Every module of some packages by its dotted name; a package's own name is its ``__init__``."""
    found = {}
    for package in packages:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(modules: Mapping[str, Path], root: Path) -> list[Import]:
    """All imports of one of the modules by another."""
    found = []
    for importer, file in modules.items():
        package = importer if file.name == "__init__.py" else importer.rpartition(".")[0]
        for line, name in _names(ast.parse(file.read_text(encoding="utf-8")), package):
            while name and name not in modules:  # a class or function: the module that it is in
                name = name.rpartition(".")[0]
            if name and name != importer:
                found.append(Import(importer, name, f"{file.relative_to(root)}:{line}"))
    return found


def _names(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def layer_of(module: str, layers: Sequence[Sequence[str]]) -> tuple[int, str]:
    """A module's layer and room.

    Raises:
        KeyError: it has none.
    """
    rooms = {room: index for index, layer in enumerate(layers) for room in layer}
    name = module
    while name not in rooms or ("." not in name and name != module):
        if not name:
            raise KeyError(f"{module} has no place in LAYERS of tests/test_imports.py; give it one")
        name = name.rpartition(".")[0]
    return rooms[name], name


def imports_upward(imports: Sequence[Import], layers: Sequence[Sequence[str]]) -> list[Import]:
    """Those from a layer above the importer's, or from another room on its own layer."""
    found = []
    for each in imports:
        (own, own_room), (other, other_room) = (layer_of(name, layers) for name in (each.importer, each.imported))
        if other > own or (other == own and other_room != own_room):
            found.append(each)
    return found


def circles(imports: Sequence[Import]) -> list[list[Import]]:
    """Imports that lead back to where they started: a shortest circle for each module that is in one."""
    after: dict[str, list[Import]] = {}
    for each in imports:
        after.setdefault(each.importer, []).append(each)
    found: dict[frozenset[str], list[Import]] = {}
    for start in after:
        paths: list[list[Import]] = [[]]
        seen: set[str] = set()
        while paths:
            path = paths.pop(0)
            for each in after.get(path[-1].imported if path else start, []):
                if each.imported == start:
                    found.setdefault(frozenset(step.importer for step in [*path, each]), [*path, each])
                    paths = []
                    break
                if each.imported not in seen:
                    seen.add(each.imported)
                    paths.append([*path, each])
    return list(found.values())


def in_lines(imports: Sequence[Import]) -> str:
    return "".join(f"\n  {each}" for each in imports)


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return imports_of(modules_in(ROOT, ("llava", "align_ti")), ROOT)


def test_no_import_goes_upward(imports):
    upward = imports_upward(imports, LAYERS)
    new = [each for each in upward if (each.importer, each.imported) not in KNOWN]
    assert not new, f"imports from a layer above:{in_lines(new)}"
    stale = KNOWN - {(each.importer, each.imported) for each in upward}
    assert not stale, f"mended; take them out of KNOWN: {sorted(stale)}"


def test_no_modules_import_each_other_in_a_circle(imports):
    found = circles(imports)
    assert not found, "circles:" + "\n".join(in_lines(circle) for circle in found)


def test_the_imports_were_read(imports):
    assert ("llava.train.trainer", "llava.errors") in {(each.importer, each.imported) for each in imports}
    assert len(imports) > 500


@pytest.fixture
def small(tmp_path):
    """``write({"low.a": text, ...})``: packages ``low`` and ``high``, and the imports between their modules."""

    def write(texts: dict[str, str]) -> list[Import]:
        for name in ("low", "high"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "__init__.py").write_text("")
        for name, text in texts.items():
            (tmp_path / f"{name.replace('.', '/')}.py").write_text(text)
        return imports_of(modules_in(tmp_path, ("low", "high")), tmp_path)

    return write


SMALL = (("low",), ("low.a", "low.b"), ("high",), ("high.x",))


@pytest.mark.parametrize(
    "statement",
    [
        "import high.x",
        "from high import x",
        "from high.x import value",
        "def f():\n    from high.x import value",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import high.x as y",
    ],
)
def test_every_way_to_import_from_above_is_found(small, statement):
    (found,) = imports_upward(small({"low.a": statement, "high.x": "value = 1"}), SMALL)
    line = len(statement.splitlines())
    assert str(found) == f"low/a.py:{line}: low.a imports high.x"


def test_rooms_on_one_layer_do_not_import_each_other(small):
    (found,) = imports_upward(small({"low.a": "from . import b", "low.b": "", "high.x": "import low.a"}), SMALL)
    assert (found.importer, found.imported) == ("low.a", "low.b")


def test_a_circle_is_found_once_with_its_lines(small):
    texts = {"low.a": "import high.x", "high.x": "\nfrom low import b", "low.b": "def f():\n    from .a import g"}
    (found,) = circles(small(texts))
    assert {str(each) for each in found} == {
        "low/a.py:1: low.a imports high.x",
        "high/x.py:2: high.x imports low.b",
        "low/b.py:2: low.b imports low.a",
    }
    assert circles(small({"low.b": ""})) == []


def test_a_module_without_a_place_is_named(small):
    with pytest.raises(KeyError, match="high.y has no place"):
        imports_upward(small({"high.y": "import low.a", "low.a": ""}), SMALL)
