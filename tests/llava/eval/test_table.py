"""The paper's row from runs, in three formats, with the published rows."""

import json

import pytest

from llava.errors import InputError
from llava.eval.published import PUBLISHED
from llava.eval.registry import BENCHMARKS
from llava.eval.table import main

SCORES = {"gqa": 60.0, "sqa": 61.0, "textvqa": 62.04, "pope": 86.06, "mme": 70.0, "mmbench": 65.0}


def lines(capsys, *arguments):
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "student_1"
    folder.mkdir()
    for name, score in SCORES.items():
        (folder / f"{name}.json").write_text(json.dumps({"benchmark": name, "score": score}))
    return folder


def test_text(capsys, run_folder):
    heading, rule, row = lines(capsys, run_folder)
    assert heading.split() == ["Model", "GQA", "SQA", "TextVQA", "POPE", "MME", "MMB", "Avg"]
    assert set(rule) == {"-"}
    assert row.split() == ["student_1", "60.0", "61.0", "62.0", "86.1", "70.0", "65.0", "67.4"]
    assert len(heading) == len(row) == len(rule)


def test_markdown_and_latex(capsys, run_folder):
    heading, rule, row = lines(capsys, f"a|b_c={run_folder}", "--format", "markdown")
    assert heading == "| Model | GQA | SQA | TextVQA | POPE | MME | MMB | Avg |"
    assert rule == "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert row == "| a\\|b_c | 60.0 | 61.0 | 62.0 | 86.1 | 70.0 | 65.0 | 67.4 |"
    latex = lines(capsys, run_folder, "--format", "latex")
    assert latex[0] == r"\begin{tabular}{lccccccc}"
    assert r"student\_1 & 60.0 & 61.0 & 62.0 & 86.1 & 70.0 & 65.0 & 67.4 \\" in latex


def test_absent_benchmarks_leave_no_average(capsys, run_folder):
    (run_folder / "mme.json").unlink()
    assert lines(capsys, run_folder)[2].split()[-3:] == ["-", "65.0", "-"]
    assert r"-- & 65.0 & -- \\" in lines(capsys, run_folder, "--format", "latex")[4]


def test_files_of_scores(capsys, tmp_path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"teacher": {**SCORES, "avg": 1.0}, "student": {"gqa": 50}}))
    assert [line.split()[:2] for line in lines(capsys, results)[2:]] == [
        ["teacher", "60.0"],
        ["student", "50.0"],
    ]
    single = tmp_path / "scores.json"
    single.write_text(json.dumps(SCORES))
    assert lines(capsys, single)[2].split()[0] == tmp_path.name
    assert lines(capsys, f"mine={single}")[2].split()[0] == "mine"


def test_published_rows_stand_below(capsys, run_folder):
    rows = lines(capsys, run_folder, "--published")[2:]
    assert [row.split()[0] for row in rows] == ["student_1"] + ["Align-TI"] * 4
    assert rows[1].split()[-7:] == ["62.9", "71.4", "65.1", "86.1", "75.6", "71.8", "72.2"]
    assert all(list(scores) == list(BENCHMARKS) for scores in PUBLISHED.values())


def test_wrong_input(tmp_path):
    with pytest.raises(InputError, match="nothing to print"):
        main([])
    with pytest.raises(InputError, match="does not exist"):
        main([str(tmp_path / "none")])
    with pytest.raises(InputError, match="contains no scores"):
        main([str(tmp_path)])
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        main([str(path)])
    path.write_text('{"loss": 3}')
    with pytest.raises(InputError, match="expected scores by benchmark"):
        main([str(path)])
