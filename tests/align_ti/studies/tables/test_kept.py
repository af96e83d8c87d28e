"""``--report-only`` where nothing was trained: the records that come with the code, tabulated as they stand."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from align_ti.studies.tables.catalogue import TABLES, find_table, rows_of, with_teachers
from align_ti.studies.tables.kept import KEPT_RECORDS, nothing_here, read_kept
from align_ti.studies.tables.recipe import recipe
from align_ti.studies.tables.record import Record, keep
from align_ti.studies.tables.report import write_report
from align_ti.studies.tables.rows import read_lines
from align_ti.studies.tables.setting import Setting
from align_ti.studies.tables.trial import plan_trials
from llava.errors import InputError
from llava.eval.registry import BENCHMARKS

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """What git keeps alone, as it is now: no models, no data, no environment."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not in a repository")
    folder = tmp_path_factory.mktemp("clone") / "align-ti"
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def table_of(clone: Path, script: str, *flags: str, **environment: str) -> subprocess.CompletedProcess:
    variables = {"PATH": os.environ["PATH"], "HOME": "/tmp", "PYTHON": sys.executable, "PRESET": "mini"}
    command = ["bash", str(clone / "scripts/align-ti.sh"), "table", script, *flags]
    return subprocess.run(
        command, env=variables | environment, cwd=clone, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(("script", "folder"), [("table5", "runs"), ("table10", "runs/llama")])
def test_a_fresh_clone_tabulates_the_kept_records(clone, script, folder):
    """The same numbers as the kept table has, in a folder of the runs, with a word on what was not compared. Table 10's
    runs have the names of Table 15's, whose records are in the same file."""
    before = {path: path.read_bytes() for path in (clone / "docs" / "results").rglob("*") if path.is_file()}
    done = table_of(clone, script, "--report-only")
    assert done.returncode == 0, done.stderr[-3000:]
    made = json.loads((clone / "playground" / "mini" / folder / "results" / f"{script}.json").read_text())
    kept = json.loads((ROOT / "docs" / "results" / f"{script}.json").read_text())
    numbers = ("name", "scores", "held_out", "mean", "differences", "seconds")
    assert [[row[key] for key in numbers] for row in made["rows"]] == [
        [row[key] for key in numbers] for row in kept["rows"]
    ]
    assert (made["seeds"], made["teachers"]) == (kept["seeds"], kept["teachers"])
    assert "- models and data: not compared: records of docs/results/trials.jsonl are tabulated" in done.stdout
    assert "- machine: tabulated on " in done.stdout and f"results/{script}.*" in done.stderr
    after = {path: path.read_bytes() for path in (clone / "docs" / "results").rglob("*") if path.is_file()}
    assert after == before, "nothing is written into docs/ unless that is asked for"


KEPT_TABLES = sorted(name for name in TABLES if KEPT_RECORDS.with_name(f"{name}.json").is_file())


@pytest.mark.parametrize("name", KEPT_TABLES)
def test_every_kept_table_is_made_of_the_kept_records(name, monkeypatch, tmp_path):
    """Those of other teachers, layers, shares of the data and architectures as well."""
    kept = json.loads(KEPT_RECORDS.with_name(f"{name}.json").read_text())
    monkeypatch.chdir(tmp_path)
    table = find_table(name)
    runs = rows_of(table)
    if table.teachers:
        table, runs = with_teachers(table, {size: f"/no/{size}" for size in ("small", "medium", "large")}, "/no/medium")
    found = read_kept(name, plan_trials(runs, range(5), tmp_path), [KEPT_RECORDS], Setting(kept["preset"]))
    lines, seeds = read_lines(found.trials)
    assert [(line.name, line.scores, line.held_out) for line in lines] == [
        (row["name"], row["scores"], row["held_out"]) for row in kept["rows"]
    ]
    assert seeds == kept["seeds"] and {row.name: row.scores for row in found.teachers} == kept["teachers"]


@pytest.fixture
def trials(models):
    return plan_trials(rows_of(find_table("table15")), range(2), models / "tables")


def add(setting, file: Path, trials, score: float, **changes: str) -> None:
    """Keep a record of each trial, as it would be made now but for some changes."""
    for number, trial in enumerate(trials):
        made = {**recipe(trial, setting), **changes}
        if trial.name == "sft":
            made.pop("teacher_path", None)
        keep(file, Record(trial.name, trial.seed, made, dict.fromkeys(BENCHMARKS, score + number), None, {}, "abc"))


def scores(kept) -> list[float]:
    return [trial.record().scores["gqa"] for trial in kept.trials]


def test_records_of_other_models_and_data(models, trials, setting, tmp_path):
    """They count whatever is here; the last of a run and seed does, and a file that lacks some is passed over."""
    file, part = tmp_path / "all" / "trials.jsonl", tmp_path / "part" / "trials.jsonl"
    other = {"teacher_path": "weights other", "model_name_or_path": "weights x", "data_path": "content y",
             "benchmarks": "questions z"}  # fmt: skip
    add(setting(), file, trials, 50, **other)
    add(setting(), file, trials, 10, **other)
    add(setting(), part, trials[:2], 70)
    elsewhere = setting("--eval_root", "/none")
    kept = read_kept("table15", trials, [tmp_path / "no" / "trials.jsonl", part, file], elsewhere)
    assert scores(kept) == [10 + number for number in range(6)] and kept.teachers == [] and str(file) in kept.note
    assert not list(models.glob("tables/**/*")), "nothing is written"
    with pytest.raises(InputError, match="no students of table15 here, and no record file .* has a common seed of all"):
        read_kept("table15", trials, [part], elsewhere)
    with pytest.raises(InputError, match="has a common seed of all its rows"):
        read_kept("table15", trials, [file], setting("--warmup_ratio", "0.5"))


@pytest.mark.parametrize("name", ["model_name_or_path", "teacher_path", "data_path", "benchmarks"])
def test_records_of_two_models_are_not_mixed(trials, setting, tmp_path, name):
    """What the table beside them was made of counts; without it, it is not guessed."""
    file, changed = tmp_path / "trials.jsonl", {"teacher_path": "weights a"}
    add(setting(), file, trials, 10, **changed)
    table = find_table("table15")
    from_first = read_kept("table15", trials, [file], setting())
    write_report("table15", table, from_first.trials, tmp_path, {}, [])
    others = [trial for trial in trials if name != "teacher_path" or trial.name != "sft"]  # SFT has no teacher
    add(setting(), file, others, 50, **(changed | {name: "weights b"}))
    assert scores(read_kept("table15", trials, [file], setting())) == scores(from_first)
    (tmp_path / "table15.json").unlink()
    with pytest.raises(InputError, match="with several teachers, first stages, data or questions, and no table15.json"):
        read_kept("table15", trials, [file], setting())


def test_what_is_here_comes_first(trials, finish):
    assert nothing_here(trials)
    finish(trials[4], 5.0)
    assert not nothing_here(trials)
