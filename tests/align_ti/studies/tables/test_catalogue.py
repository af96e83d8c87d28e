"""Tables whose rows exist, are different students and say what they are."""

import re
from dataclasses import replace

import pytest

from align_ti.studies.tables.catalogue import TABLES, find_table, rows_of, with_layers, with_teachers
from align_ti.studies.tables.runs import RUNS, find_runs
from llava.errors import InputError


def test_every_table_names_runs_that_exist():
    for table in TABLES.values():
        assert table.baseline in table.runs and set(table.runs) <= set(RUNS)
        assert all(name in table.runs for _, points in table.lines for name in points.values())
    assert len(find_table("table14").runs) == 15
    flags = [(run.recipe, run.flags, run.data_share) for run in RUNS.values()]
    assert len(set(flags)) == len(flags), "two names for one run"
    with pytest.raises(InputError, match="no table 'table99'; there are: table3"):
        find_table("table99")
    with pytest.raises(InputError, match="no run 'x'"):
        find_runs(["sft", "x"])


def test_rows_say_what_a_table_compares():
    """Also where a run that other tables share stands in a row; its flags are the same."""
    for table in TABLES.values():
        rows = rows_of(table)
        assert list(rows) == list(table.runs) and set(table.labels) <= set(rows)
        assert len({run.label for run in rows.values()}) == len(rows)
        assert all(replace(run, label=RUNS[name].label) == RUNS[name] for name, run in rows.items())
    assert [run.label for run in rows_of(find_table("table8")).values()] == [
        "IVA, student's weights",
        "IVA, teacher's weights",
    ]
    for name, form in {
        "figure5": r"TPA, (nucleus|greedy), d = [1248]",
        "figure8": r".*, (25|50|75|100)% of the data",
    }.items():
        assert all(re.fullmatch(form, run.label) for run in rows_of(find_table(name)).values())


def test_rows_under_several_teachers():
    table, runs = with_teachers(find_table("table9"), {"small": "/s", "large": "/l"})
    assert table.runs == tuple(runs) and table.baseline == "sft+kd+iva+tpa@small"
    assert [run.teacher for run in runs.values()] == ["/s", "/l"]
    assert {run.flags for run in runs.values()} == {RUNS["sft+kd+iva+tpa"].flags}


def test_students_under_the_presets_own_teacher_are_shared():
    table, runs = with_teachers(find_table("table9"), {"small": "/s", "medium": "/own"}, own="/own")
    assert table.runs == ("sft+kd+iva+tpa@small", "sft+kd+iva+tpa")
    assert runs["sft+kd+iva+tpa"] == replace(RUNS["sft+kd+iva+tpa"], label="Align-TI, medium teacher")


@pytest.mark.parametrize(("layers", "expected"), [(28, [0, 7, 14, 21, 27]), (4, [0, 1, 2, 3]), (1, [0])])
def test_layers_of_teachers(layers, expected):
    """Those of the paper with its teacher; a layer is one row where a teacher has few."""
    table = find_table("table7")
    found, runs = with_layers(table, find_runs(table.runs), layers)
    assert found.runs == tuple(runs) and found.baseline == found.runs[0] == "iva-at-0"
    assert [run.label for run in runs.values()] == [f"IVA, layer {layer} of 0 to {layers - 1}" for layer in expected]
    others = find_runs(["sft", "sft+kd"])
    assert with_layers(find_table("table15"), others, layers)[1] == others


def test_shares_of_the_data_and_a_longer_baseline():
    assert RUNS["sft+kd-150%"] == replace(RUNS["sft+kd"], label="Vanilla KD, 1.5 times as long", data_share=150)
    for label, points in find_table("figure8").lines:
        assert all(RUNS[name].data_share == share for share, name in points.items()), label
