"""What fails or is wrong is said, and does not spoil the rest."""

import json


def test_a_copy_that_is_not_llavas_is_refused(run, small, web, eval_zip, tmp_path, pack):
    web.files["eval.zip"] = pack(**{"gqa/llava_gqa_testdev_balanced.jsonl": "something else"})
    run("--download", "--only", "gqa")
    assert not (tmp_path / "eval/eval.zip").exists()
    assert "Is it 1?" in (tmp_path / "eval/gqa/llava_gqa_testdev_balanced.jsonl").read_text(), "made instead"


def test_one_refusal_does_not_stop_the_others(run, small, web, tmp_path, block):
    web.refused = ["random", "openmmlab"]
    status, text = run("--download", "--only", "pope,mmbench")
    assert status == 1
    assert "FAILED    http://127.0.0.1" in block(text, "pope") and "answered 404" in block(text, "pope")
    assert "download it with a browser and put it at" in block(text, "pope")
    assert not (tmp_path / "eval/pope/llava_pope_test.jsonl").exists(), "made from all or not at all"
    assert "FAILED" not in block(text, "mmbench") and "mmbench: " in text, "from the copy on the hub"
    origin = json.loads((tmp_path / "eval/mmbench.manifest.json").read_text())["files"]
    assert "/hub/datasets/" in origin["mmbench/mmbench_dev_20230712.tsv"]["origin"]


def test_what_is_wrong(run, small, web, tmp_path, add_pictures):
    root = tmp_path / "eval"
    run("--download", "--accept_terms")
    add_pictures()
    assert run("--dry_run")[0] == 0

    splits = root / "scienceqa/pid_splits.json"
    splits.write_text(splits.read_text().replace("7", "9"))
    status, text = run("--only", "sqa")
    assert status == 1 and "published  wrong" in text and "its content has changed" in text
    assert "contents   wrong" in text and "lacks 1 of the 2 questions" in text
    (root / "sqa.manifest.json").unlink()
    assert "its content has changed" not in run("--only", "sqa", "--dry_run")[1]

    questions = root / "gqa/llava_gqa_testdev_balanced.jsonl"
    questions.write_text("".join(questions.read_text().splitlines(keepends=True)[:-1]))
    text = run("--only", "gqa", "--dry_run")[1]
    assert "contents   wrong" in text and "2 questions, 3 published (the sample)" in text

    (root / "pope/val2014/COCO_1.jpg").unlink()
    text = run("--only", "pope", "--dry_run")[1]
    assert "images     wrong" in text and "the images of 6 of 6 questions are missing, the first: " in text

    (root / "MME/MME_Benchmark_release_version/count/1.jpg").unlink()
    text = run("--only", "mme", "--dry_run")[1]
    assert (
        "the images of 2 of 28 questions are missing" in text
        and "count/1.jpg" in text
        and "readme.txt says where" in text
    )


def test_counts_are_compared_with_the_published_ones(run, web, tmp_path, add_pictures, block):
    """The samples are no whole benchmarks, and the report says so for all six."""
    add_pictures()
    status, text = run("--download", "--accept_terms")
    assert status == 1 and "0 of 6 ready" in text
    for words in (
        "3 questions, 12,578 published (LLaVA's question file); 1 images, 398 published",
        "2 questions, 4,241 published (LLaVA's question file); 1 with an image, 2,017 published",
        "1 questions, 5,000 published",
        "6 questions, 8,910 published (LLaVA's question file); 2 adversarial, 3,000 published",
        "28 questions, 2,374 published",
        "2 questions, 4,377 published (LLaVA's evaluation); 1 asked once, 1,164 published",
    ):
        assert words in text
    assert "not LLaVA's file: " in block(text, "gqa") and "LLaVA's has 2,276,997" in block(text, "gqa")


def test_damaged_archives(run, tmp_path, pack, web):
    folder = tmp_path / "eval/gqa"
    folder.mkdir(parents=True)
    for content, words in (
        (web.files["questions1.2.zip"][:-50], "questions1.2.zip cannot be unpacked"),
        (pack(**{"other.json": "{}"}), "questions1.2.zip does not contain testdev_balanced_questions.json"),
    ):
        (folder / "questions1.2.zip").write_bytes(content)
        assert words in run("--only", "gqa")[1]
    (tmp_path / "eval/MME").mkdir()
    (tmp_path / "eval/MME/MME_Benchmark_release_version.zip").write_bytes(pack(**{"x/1.txt": ""}))
    assert "does not contain a folder 'existence'" in run("--only", "mme")[1]
    assert not list(tmp_path.rglob("*.part"))
