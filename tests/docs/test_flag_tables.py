"""The flag tables of the site hold every flag, with the default that the command line has."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from align_ti.training.arguments import DistillArguments
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.parsing import FlagParser
from llava.train.run_record import FREE_TO_CHANGE

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("flag_tables", ROOT / "docs/_ext/flag_tables.py")
assert SPEC is not None and SPEC.loader is not None
flag_tables = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(flag_tables)

CLASSES = (DistillArguments, ModelArguments, DataArguments, TrainingArguments)


@pytest.mark.parametrize("found", CLASSES)
def test_a_row_for_every_flag_that_the_class_adds(found: type) -> None:
    rows = flag_tables.flag_rows(f"{found.__module__}.{found.__qualname__}")
    parser = FlagParser(found)
    by_flag = {row.flag: row for row in rows}
    inherited = {field.name for field in dataclasses.fields(found.__mro__[1])} if found is TrainingArguments else set()
    own = {f"--{field.name}" for field in dataclasses.fields(found) if field.name not in inherited}
    assert own <= by_flag.keys() <= parser.flags
    for action in parser._actions:
        row = by_flag.get(action.option_strings[0])
        if row is not None:
            assert row.help == action.help
            assert (row.default is None) == action.required
            assert action.required or row.default == ("" if action.default is None else str(action.default))


def test_the_page_shows_all_classes() -> None:
    page = (ROOT / "docs/flags.md").read_text(encoding="utf-8")
    for found in CLASSES:
        assert f"```{{flags}} {found.__module__}.{found.__qualname__}\n" in page


def test_collections_are_listed_in_order() -> None:
    names = flag_tables.names_in("llava.train.run_record.FREE_TO_CHANGE")
    assert names == sorted(FREE_TO_CHANGE) and "output_dir" in names


def test_what_is_no_dataclass_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a dataclass"):
        flag_tables.flag_rows("llava.train.run_record.write_record")
