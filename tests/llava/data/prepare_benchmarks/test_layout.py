"""``python -m llava.prepare benchmarks``: from nothing to folders that the evaluation reads."""

import hashlib
import json
import subprocess
import sys

import pytest

from llava.errors import InputError
from llava.eval.evaluate import Task
from llava.eval.registry import BENCHMARKS
from llava.prepare import cli
from llava.prepare.benchmarks import layout, sources


def test_an_empty_place(run, tmp_path, block):
    status, text = run("--dry_run")
    assert status == 1 and not (tmp_path / "eval").exists()
    for source in sources.SOURCES.values():
        part = block(text, source.name)
        assert all(file.url in part for file in source.files if not file.for_questions)
        assert source.pictures is None or source.pictures.get in part
    assert "66 MB; only the 398 images of test-dev" in block(text, "gqa")
    assert "academic research only" in block(text, "mme") and "--accept_terms" in block(text, "mme")
    assert "0 of 6 ready" in text
    assert run("--only", "gqa,pope", "--dry-run")[1].count("published") >= 2  # dashes work as well
    with pytest.raises(InputError, match="unknown benchmark 'vqav2'; expected gqa, sqa"):
        run("--only", "vqav2")


def test_from_nothing_to_ready(run, small, web, tmp_path, add_pictures):
    """Without LLaVA's archive question files are made; the evaluation reads all six."""
    root = tmp_path / "eval"
    status, text = run("--download", "--accept_terms")
    assert status == 1 and "2 of 6 ready: mme, mmbench" in text, text
    assert "FAILED" not in text and layout.MADE in text and "questions1.2.zip" in text, "where it came from is said"
    add_pictures()
    status, text = run()
    assert status == 0 and "6 of 6 ready" in text, text
    assert f"bash scripts/eval/all.sh CHECKPOINT --eval-root {root}" in text
    for name, count in (("gqa", 3), ("sqa", 2), ("textvqa", 1), ("pope", 6), ("mme", 28), ("mmbench", 2)):
        task = Task.load(BENCHMARKS[name], root)
        assert len(task.questions) == count
        task.check_pictures()
    gqa = json.loads((root / "gqa.manifest.json").read_text())
    annotation = gqa["files"]["gqa/data/testdev_balanced_questions.json"]
    assert annotation["origin"].startswith("http://127.0.0.1") and annotation["origin"].endswith("questions1.2.zip")
    laid = (root / "gqa/data/testdev_balanced_questions.json").read_bytes()
    assert annotation["sha256"] == hashlib.sha256(laid).hexdigest() and list(json.loads(laid)) == ["0", "1", "2"]
    assert gqa["files"]["gqa/llava_gqa_testdev_balanced.jsonl"]["origin"] == layout.MADE
    assert gqa["expected"] == [
        {"what": "", "rows": 3, "unit": 1, "stated_by": "the sample", "found": 3, "agrees": True}
    ]
    assert not list(root.rglob("*.zip")) and not list(root.rglob("*.part*"))
    web.requests.clear()
    assert run("--download", "--accept_terms")[0] == 0 and web.requests == []


def test_terms_have_to_be_accepted(run, small, web):
    status, text = run("--download", "--only", "mme")
    assert status == 1 and "published  missing" in text and "--accept_terms" in text
    assert not any("MME_Benchmark" in path for path, _ in web.requests)


def test_a_broken_connection_is_resumed(run, small, web, tmp_path, monkeypatch):
    monkeypatch.setattr("llava.prepare.download.time.sleep", lambda _: None)
    web.dies_after = 1_000
    run("--download", "--only", "mmbench")
    root = tmp_path / "eval"
    body = web.files["mmbench_dev_20230712.tsv"]
    assert (root / "mmbench/mmbench_dev_20230712.tsv").read_bytes() == body
    asked = [wanted for path, wanted in web.requests if path.endswith(".tsv")]
    assert asked[0] is None and asked[1:] == [f"bytes={at}-" for at in range(1_000, len(body), 1_000)]


def test_llavas_own_question_files_are_taken_from_a_copy(run, small, web, eval_zip, tmp_path, llavas):
    web.files["eval.zip"] = eval_zip
    run("--download", "--accept_terms")
    for name, content in llavas.items():
        assert (tmp_path / "eval" / name).read_text() == content
    assert not any("Rosetta" in path for path, _ in web.requests), "needed only to make questions"
    manifest = json.loads((tmp_path / "eval/pope.manifest.json").read_text())
    assert manifest["files"]["pope/llava_pope_test.jsonl"]["origin"] == str(tmp_path / "eval/eval.zip")


def test_an_archive_that_the_user_has(run, tmp_path, eval_zip):
    archive = tmp_path / "downloads.zip"
    archive.write_bytes(eval_zip)
    status, text = run("--eval_zip", archive, "--only", "gqa")
    assert status == 1 and "published  missing" in text
    assert "LLaVA's own" in (tmp_path / "eval/gqa/llava_gqa_testdev_balanced.jsonl").read_text()
    with pytest.raises(InputError, match="none.zip does not exist; expected LLaVA's eval.zip"):
        run("--eval_zip", tmp_path / "none.zip")
    archive.write_bytes(eval_zip[:-200])
    with pytest.raises(InputError, match="downloads.zip cannot be unpacked"):
        run("--eval_zip", archive, "--only", "pope")


def test_archives_put_there_by_hand_are_unpacked_and_kept(run, small, tmp_path, add_pictures, web):
    root = tmp_path / "eval"
    for name, place in (("questions1.2.zip", "gqa/data"), ("MME_Benchmark_release_version.zip", "MME")):
        (root / place).mkdir(parents=True)
        (root / place / name).write_bytes(web.files[name])
    add_pictures()
    status, text = run("--only", "gqa,mme")
    assert status == 0, text
    assert (root / "gqa/data/questions1.2.zip").is_file() and (root / "MME/MME_Benchmark_release_version.zip").is_file()
    assert (root / "MME/MME_Benchmark_release_version/existence/1.jpg").is_file(), "LLaVA's layout"


def test_the_training_datas_pictures_are_offered(run, tmp_path, block):
    (tmp_path / "gqa/images").mkdir(parents=True)
    text = run("--dry_run", "--only", "gqa,textvqa")[1]
    assert f"ln -s {tmp_path}/gqa/images {tmp_path}/eval/gqa/data/images" in block(text, "gqa")
    assert "ln -s" not in block(text, "textvqa")


def test_every_benchmark_has_its_sources():
    assert list(sources.SOURCES) == list(BENCHMARKS)
    for source in sources.SOURCES.values():
        assert set(source.expected) == set(source.benchmark.questions)
        for file in (*source.files, sources.EVAL_ZIP):
            assert file.url.startswith(("https://", "http://"))


def test_list(capsys):
    assert cli.main(["benchmarks", "--list"]) == 0
    text = capsys.readouterr().out
    for source in sources.SOURCES.values():
        assert all(file.url in text for file in source.files) and f"{source.title}, " in text
    assert sources.EVAL_ZIP.sha256 in text and sources.EVAL_ZIP_PAGE in text


def test_as_a_program(tmp_path):
    command = [sys.executable, "-m", "llava.prepare", "benchmarks", "--root", str(tmp_path / "eval"), "--dry_run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "0 of 6 ready" in done.stdout and done.stderr == ""
