"""Read recipes and pairs: YAML files with text values, which may inherit from each other by ``base``.

Values are kept as text, as on the command line: ``1e-3`` is not converted to a float, and ``0.`` keeps its dot.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import yaml

from align_ti.recipes.keys import MAPPINGS
from llava.errors import InputError

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parents[1]
SCRIPTS = next(
    (folder for folder in (CHECKOUT / "scripts", PACKAGE / "scripts") if (folder / "recipes").is_dir()),
    CHECKOUT / "scripts",
)
"""Folder of the recipes and DeepSpeed settings: in a checkout, else the copy in the installed package."""
RECIPES, PAIRS = SCRIPTS / "recipes", SCRIPTS / "recipes" / "pairs"
OF_THE_MINIATURE = CHECKOUT / "playground" / "mini" / "recipes"
"""Folder of the recipes for stages that only the miniature has."""

Text = str | None
Value = Text | list[str] | dict[str, "Value"]
"""A value; None if it is empty."""


@dataclass(frozen=True)
class Values:
    """The values of a file, including those of its bases.

    Attributes:
        values: Values by key; None removes the value of a base.
        places: Location of every key (``SECTION.KEY`` in a section), as ``FILE, line N``.
    """

    values: dict[str, Value]
    places: dict[str, str] = field(default_factory=dict)


def read_recipe(name: str) -> tuple[str, Values]:
    """A recipe by its name in ``scripts/recipes``, or by the path of a file.

    Returns:
        Its name and its values.

    Raises:
        InputError: It does not exist, or the file is not a recipe.
    """
    file = find_file(name, RECIPES, "recipe")
    return file.stem, _read(file, RECIPES)


def read_pair(name: str) -> tuple[str, Values]:
    """A pair of models by its name in ``scripts/recipes/pairs``, or by the path of a file.

    Returns:
        Its name and its values.

    Raises:
        InputError: It does not exist, or the file is not a pair.
    """
    file = find_file(name, PAIRS, "pair")
    return file.stem, _read(file, PAIRS)


def names_in(folder: Path) -> list[str]:
    """Names of the recipes or pairs in a folder."""
    return sorted(file.stem for file in folder.glob("*.yaml"))


def find_file(name: str, folder: Path, kind: str) -> Path:
    """The file of a recipe or pair.

    Args:
        name: A name in the folder, or a path.
        folder: Folder of the files that are given by name.
        kind: ``recipe`` or ``pair``, for messages.

    Raises:
        InputError: There is no such file; the message names the most similar one.
    """
    if name.endswith((".yaml", ".yml")):
        file = Path(name)
        if not file.is_file():
            raise InputError(f"no {kind} at {name}; expected a YAML file, or one of {', '.join(names_in(folder))}")
        return file
    file = folder / f"{name}.yaml"
    if not name or "/" in name or not file.is_file():
        near = get_close_matches(name, names_in(folder), n=1)
        advice = f"did you mean {near[0]}? There are" if near else "there are"
        raise InputError(f"no {kind} {name!r}; {advice} {', '.join(names_in(folder))}, or the path of a YAML file")
    return file


def overlay(below: Values, above: Values) -> Values:
    """The values of two files, where those of the upper one win; mappings are merged key by key.

    ``prepared`` belongs to the ``data_path`` of its own file: a ``data_path`` in the upper file removes it.
    """
    values = dict(below.values)
    if "data_path" in above.values and "prepared" not in above.values:
        values.pop("prepared", None)
    for key, value in above.values.items():
        former = values.get(key)
        values[key] = {**former, **value} if isinstance(former, dict) and isinstance(value, dict) else value
    return Values(values, {**below.places, **above.places})


def section(pair: Values, name: str) -> Values:
    """The values of one section of a pair; empty if it has no such section."""
    found = pair.values.get(name)
    if not isinstance(found, dict):
        return Values({})
    prefix = f"{name}."
    return Values(
        found, {key.removeprefix(prefix): place for key, place in pair.places.items() if key.startswith(prefix)}
    )


def _read(file: Path, folder: Path, known: tuple[Path, ...] = ()) -> Values:
    """Read a file and its bases.

    Raises:
        InputError: It cannot be read, a base is missing, or the bases form a cycle.
    """
    if file.resolve() in known:
        raise InputError(f"{file} is its own base: {' -> '.join(map(str, known))}")
    own = _parse(file)
    base = own.values.pop("base", None)
    if base is None:
        return own
    place = own.places["base"]
    if not isinstance(base, str):
        raise InputError(f"{place}: base is {base!r}; expected a file")
    spelled = base if base.endswith((".yaml", ".yml")) else f"{base}.yaml"
    below = next((near / spelled for near in (file.parent, folder) if (near / spelled).is_file()), None)
    if below is None:
        raise InputError(f"{place}: no file {spelled} beside {file}, nor in {folder}")
    return _merge_sections(_read(below, folder, (*known, file.resolve())), own)


def _merge_sections(below: Values, above: Values) -> Values:
    """Like :func:`overlay`, for every section."""
    merged = overlay(below, above)
    for key, value in above.values.items():
        former = below.values.get(key)
        if key not in MAPPINGS and isinstance(former, dict) and isinstance(value, dict):
            merged.values[key] = overlay(Values(former), Values(value)).values
    return merged


def _parse(file: Path) -> Values:
    """Parse one file.

    Raises:
        InputError: It is not YAML, or not a mapping from keys to texts, lists of texts and mappings.
    """
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    if root is None:
        return Values({})
    places: dict[str, str] = {}
    return Values(_mapping(root, file, places, ""), places)


def _mapping(node: yaml.Node, file: Path, places: dict[str, str], prefix: str) -> dict[str, Value]:
    """The values of a mapping; records the location of each key."""
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{_place(node, file)}: expected `key: value`")
    found: dict[str, Value] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in found:
            raise InputError(f"{_place(key, file)}: {name} is there twice, before in {places[prefix + name]}")
        places[prefix + name] = _place(key, file)
        found[name] = _value(value, file, places, f"{prefix}{name}.")
    return found


def _value(node: yaml.Node, file: Path, places: dict[str, str], prefix: str) -> Value:
    if isinstance(node, yaml.ScalarNode):
        plain = str(node.value)
        return None if not node.style and plain in ("", "null", "~") else plain
    if isinstance(node, yaml.SequenceNode):
        return list(_texts(node, file))
    return _mapping(node, file, places, prefix)


def _texts(node: yaml.SequenceNode, file: Path) -> Iterator[str]:
    for item in node.value:
        if not isinstance(item, yaml.ScalarNode):
            raise InputError(f"{_place(item, file)}: expected a list of texts")
        yield str(item.value)


def _place(node: yaml.Node, file: Path) -> str:
    shown = file.relative_to(CHECKOUT) if file.is_relative_to(CHECKOUT) else file
    return f"{shown}, line {node.start_mark.line + 1}"


def as_mapping(values: Values, key: str) -> Mapping[str, Value]:
    """The value of a key that must be a mapping; empty if the key is missing.

    Raises:
        InputError: The value is not a mapping.
    """
    value = values.values.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{values.places[key]}: {key} is {value!r}; expected `key: value` lines below it")
    return value
