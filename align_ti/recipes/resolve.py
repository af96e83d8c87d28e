"""Resolve a recipe, a pair of models and command-line flags to the settings of a training."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from align_ti.recipes.files import (
    OF_THE_MINIATURE,
    PAIRS,
    RECIPES,
    SCRIPTS,
    Value,
    Values,
    as_mapping,
    names_in,
    overlay,
    read_pair,
    read_recipe,
    section,
)
from align_ti.recipes.flags import DISTILLATION, SUPERVISED, Flags, parse_flags, refuse_unknown_flags, trainer_flags
from align_ti.recipes.keys import GIVEN, KEYS, MAPPINGS, NAMES, SECTIONS
from llava.cores import cores
from llava.errors import InputError

SHARE = "share"


@dataclass(frozen=True)
class Recipe:
    """The resolved settings of a training stage.

    Attributes:
        name: Name of the recipe.
        pair: Name of the pair of models.
        asked_pair: The pair that the user named, a name or file; "" if none.
        module: Training module, run with ``python -m``.
        flags: Flags of the trainer, except those of the batch; each only once.
        keys: Values that are not flags; see :mod:`align_ti.recipes.keys`.
        given: Names given on the command line.
        global_batch: Samples per optimizer step, over all processes.
        per_device: Samples per process and forward pass; None: an even share of the global batch.
        cpu_processes: Number of processes on a CPU, which is then used unless GPUs are requested; None: use GPUs.
    """

    name: str
    pair: str
    asked_pair: str
    module: str
    flags: Flags
    keys: Mapping[str, Value]
    given: frozenset[str]
    global_batch: int
    per_device: int | None
    cpu_processes: int | None

    @property
    def needs_gpu(self) -> bool:
        """Whether the recipe is rejected on a machine without a GPU."""
        return str(self.keys.get("needs_gpu") or "").lower() in ("true", "1", "yes")

    @property
    def script(self) -> str:
        """The command that runs the recipe."""
        script = self.text("script")
        return f"bash {script}" if script else f"align-ti pretrain|finetune|distill {self.name}"

    def text(self, key: str) -> str:
        """The value of a key or flag; "" if it has none."""
        if key in self.flags:
            return " ".join(self.flags[key])
        value = self.keys.get(key)
        return value if isinstance(value, str) else ""


def resolve(name: str, pair: str | None = None, words: Sequence[str] = ()) -> Recipe:
    """Resolve a recipe: its own values, overridden by the pair's, overridden by the command line's.

    Args:
        name: A name in ``scripts/recipes``, or a YAML file.
        pair: A name in ``scripts/recipes/pairs``, or a YAML file; None or "": the recipe's own models.
        words: Flags of the trainer, or keys in ``GIVEN``.

    Raises:
        InputError: A file, key, flag or value is invalid; messages about keys name file and line.
    """
    shipped = name in names_in(RECIPES) and (not pair or pair in names_in(PAIRS))
    name, values = read_recipe(name)
    values = _with_pair(values, pair)
    given = parse_flags(words)
    if not shipped:
        _check_keys(values)
    module = values.values.get("module")
    if not isinstance(module, str):
        raise InputError(f"the recipe {name} has no `module`; expected {SUPERVISED} or {DISTILLATION}")
    own = {*values.values} - KEYS.keys() | {"per_device_train_batch_size"}
    _check_flags(module, [flag for flag in given if flag not in own])
    values = _with_flags(values, given)
    found = {key: _first(_expand(value, values)) for key, value in _prepared(values).items()}
    found = _with_share(found, values)
    trained: dict[str, tuple[str, ...]] = {
        key: (str(value),) for key, value in found.items() if key not in KEYS and value is not None
    }
    trained |= {key: given[key] for key in given if key not in KEYS}
    per_device = found.get("per_device_train_batch_size")
    processes = found.get("cpu_processes")
    return Recipe(
        name=name,
        pair=str(found.get("pair") or ""),
        asked_pair=pair or "",
        module=module,
        flags=_with_shipped_settings(trained),
        keys={key: value for key, value in found.items() if key in KEYS},
        given=frozenset(given),
        global_batch=_number(values, found, "global_batch"),
        per_device=None if per_device == SHARE else _number(values, found, "per_device_train_batch_size"),
        cpu_processes=None if processes is None else min(_number(values, found, "cpu_processes"), cores()),
    )


def for_plan(recipe: Recipe) -> Recipe:
    """The recipe with ``in_plans`` in place of missing models, except for those named on the command line."""
    flags = dict(recipe.flags)
    stand_ins = recipe.keys.get("in_plans")
    for name, value in (stand_ins if isinstance(stand_ins, dict) else {}).items():
        if name in recipe.given or value is None or Path(recipe.text(name)).exists():
            continue
        choices = value if isinstance(value, list) else [str(value)]
        flags[name] = (next((choice for choice in choices if Path(choice).exists()), choices[-1]),)
    return replace(recipe, flags=flags)


def _with_pair(values: Values, pair: str | None) -> Values:
    """The recipe's values overridden by the pair's: those for all recipes first, then section by section."""
    if not pair:
        return values
    name, of_pair = read_pair(pair)
    sections = values.values.get("pair_sections") or []
    known = {*SECTIONS, *sections} if isinstance(sections, list) else {*SECTIONS}
    for key, value in of_pair.values.items():
        if isinstance(value, dict) and key not in known and key not in KEYS:
            near = get_close_matches(key, sorted(known), n=1)
            raise InputError(
                f"{of_pair.places[key]}: no recipe reads a section {key!r}; "
                f"{f'did you mean {near[0]}?' if near else 'expected one of ' + ', '.join(sorted(known))}"
            )
    top = {key: value for key, value in of_pair.values.items() if key not in known}
    values = overlay(values, Values({"pair": name, **top}, {"pair": name, **of_pair.places}))
    for part in sections if isinstance(sections, list) else []:
        values = overlay(values, section(of_pair, part))
    return values


def _with_flags(values: Values, given: Flags) -> Values:
    above = {name: " ".join(words) or "True" for name, words in given.items()}
    return overlay(values, Values(dict(above), {name: f"--{name}" for name in above}))


def _prepared(values: Values) -> dict[str, Value]:
    """The values, with the prepared data in place of the published data if it exists."""
    found = dict(values.values)
    prepared = as_mapping(values, "prepared")
    place = _expand(prepared.get("data_path"), values)
    if isinstance(place, str) and Path(place).is_file():
        for key, value in prepared.items():
            if values.places.get(key) != f"--{key}":
                found[key] = value
    return found


def _expand(value: Value, values: Values, inside: tuple[str, ...] = ()) -> Value:
    """A value with ``${name}`` replaced.

    Raises:
        InputError: A name is not a key, has no text, or refers to itself.
    """
    if isinstance(value, list):
        return [str(_expand(item, values, inside)) for item in value]
    if isinstance(value, dict):
        return {key: _expand(item, values, inside) for key, item in value.items()}
    if value is None:
        return None

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        text = values.values.get(name)
        if name not in NAMES or name in inside or not isinstance(text, str):
            raise InputError(f"${{{name}}} in {value!r} stands for nothing; known are {', '.join(NAMES)}, if set")
        return str(_expand(text, values, (*inside, name)))

    return re.sub(r"\$\{([\w-]*)\}", replaced, value)


def _first(value: Value) -> Value:
    """The first file or folder of a list that exists, else the first."""
    if not isinstance(value, list) or not value:
        return value
    return next((item for item in value if Path(item).exists()), value[0])


def _with_share(found: dict[str, Value], values: Values) -> dict[str, Value]:
    """``num_train_epochs`` times ``data_share`` percent."""
    share = found.get("data_share")
    if share is None or share == "100":
        return found
    try:
        epochs = float(str(found.get("num_train_epochs"))) * float(str(share)) / 100
    except ValueError:
        epochs = 0.0
    if not epochs > 0:
        raise InputError(
            f"{values.places['data_share']}: data_share is {share!r} of num_train_epochs "
            f"{found.get('num_train_epochs')!r}; expected two numbers above 0"
        )
    return {**found, "num_train_epochs": f"{epochs:.6g}"}


def _with_shipped_settings(flags: Flags) -> Flags:
    """Resolve DeepSpeed settings in ``scripts/deepspeed``, so that they are found from any working directory."""
    file = Path(*flags.get("deepspeed", ("",)))
    shipped = SCRIPTS.parent / file
    if file.parts[:2] == ("scripts", "deepspeed") and not file.is_file() and shipped.is_file():
        return {**flags, "deepspeed": (str(shipped),)}
    return flags


def _number(values: Values, found: Mapping[str, Value], key: str) -> int:
    value = found.get(key)
    if not isinstance(value, str) or not value.isdecimal() or int(value) < 1:
        place = values.places.get(key, "the recipe")
        prefix = "" if place.startswith("--") else f"{place}: "
        raise InputError(f"{prefix}{'--' if not prefix else ''}{key} is {value!r}; expected a whole number, 1 or more")
    return int(value)


def _check_keys(values: Values) -> None:
    """Reject keys that neither the included recipes nor the trainer have.

    Raises:
        InputError: A key is unknown; the message names file, line and the most similar key.
    """
    for key, value in values.values.items():
        if isinstance(value, dict) and key not in MAPPINGS:
            raise InputError(f"{values.places[key]}: {key} has values of its own; expected a text")
    module = str(values.values.get("module"))
    unknown = _unknown_to_recipes([key for key in values.values if key not in KEYS], module)
    flags = trainer_flags(module) if unknown else None
    if flags is None:
        return
    from llava.train.parsing import nearest

    for key in unknown:
        if key not in flags:
            near = nearest(key, sorted({*flags, *KEYS}))
            advice = f"did you mean {near}?" if near else f"it is no flag of {module} and no key of a recipe"
            raise InputError(f"{values.places[key]}: unknown key {key!r}; {advice}")


def _check_flags(module: str, given: Sequence[str]) -> None:
    """Reject unknown flags of the command line.

    Raises:
        InputError: A flag is unknown.
    """
    unknown = _unknown_to_recipes([name for name in given if name not in GIVEN], module)
    if unknown:
        refuse_unknown_flags(module, unknown, GIVEN)


def _unknown_to_recipes(names: Sequence[str], module: str) -> list[str]:
    """The names that no included recipe or pair passes to a trainer.

    The files are read until all names are found. The remaining ones are checked by the trainer, whose import takes
    seconds.
    """
    left = list(names)
    files = (file for folder in (RECIPES, OF_THE_MINIATURE, PAIRS) for file in sorted(folder.glob("*.yaml")))
    while left and (file := next(files, None)):
        left = [name for name in left if name not in _flags_in(file, module)]
    return left


@cache
def _flags_in(file: Path, module: str) -> frozenset[str]:
    """Flags that a recipe (if it is one for the trainer) or a pair passes to the trainer."""
    if file.parent != PAIRS:
        values = read_recipe(str(file))[1].values
        return frozenset(values if values.get("module") == module else ()) - frozenset(KEYS)
    others = () if module == DISTILLATION else ("distill", "studies")
    parts = read_pair(file.stem)[1].values.items()
    return frozenset(
        key for part, value in parts if isinstance(value, dict) and part not in others for key in value
    ) - frozenset(KEYS)
