"""What scripts/tables/figure*.sh and table17.sh run, and one of them from its start to its files."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ("figure2", "figure4", "figure6", "figure7", "figure10", "table17")


def run(script, *flags, **environment):
    """Run a script from another folder, as a user would."""
    variables = {"PATH": os.environ["PATH"], "HOME": "/tmp", "PYTHON": sys.executable, "NUM_GPUS": "0", **environment}
    command = ["bash", str(ROOT / "scripts/tables" / f"{script}.sh"), *flags]
    return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, timeout=300)


def words_of(script, *flags, **environment):
    done = run(script, *flags, PRINT_ONLY="1", **environment)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


def values(words, flag):
    return [words[index + 1] for index, word in enumerate(words) if word == flag]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("preset", ["mini", "qwen2-7b-0.5b"])
def test_commands(script, preset):
    words = words_of(script, "--one", "more", PRESET=preset, IMAGE="some.png", TABLES="/no/tables")
    runs = "playground/mini/runs" if preset == "mini" else "checkpoints/qwen2-7b-0.5b"
    module, chosen = {
        "figure2": ("exposure_bias", ["student-vanilla-kd"]),
        "figure4": ("attention.relevance", ["teacher", "student-sft", "student-align-ti"]),
        "figure6": ("exposure_bias", ["student-sft", "student-vanilla-kd", "student-align-ti"]),
        "figure7": ("attention.report", ["teacher", "student-vanilla-kd", "student-align-ti"]),
        "figure10": ("attention.report", ["teacher"]),
        "table17": ("cost.inference", ["teacher", "student-align-ti"]),
    }[script]
    assert words[1:3] == ["-m", f"align_ti.studies.{module}"] and words[-2:] == ["--one", "more"]
    assert values(words, "--out") == [f"{runs}/results"] and values(words, "--name") == [script]
    given = [named.partition("=")[2] for flag in ("--student", "--model") for named in values(words, flag)]
    assert given == [f"{runs}/{name}" for name in chosen]
    if module == "exposure_bias":
        assert values(words, "--teacher") == [f"{runs}/teacher"]
        assert values(words, "--max-new-tokens") == ["60" if preset == "mini" else "100"]
    if module == "attention.report":
        root = "playground/mini/build/eval" if preset == "mini" else "playground/data/eval"
        assert values(words, "--questions") == [f"{root}/gqa/llava_gqa_testdev_balanced.jsonl"]
        assert values(words, "--question-images") == [f"{root}/gqa/data/images"]
    if module != "cost.inference" and script != "figure10":
        kind = "held_out" if module == "exposure_bias" else "finetune"
        mix = "playground/data/MobileVLM_V2_FT_Mix2M" + ("-held-out" if kind == "held_out" else "")
        data = f"playground/mini/build/{kind}.json" if preset == "mini" else f"{mix}.json"
        assert values(words, "--data") == [data] and values(words, "--image-folder")


def test_the_paper_s_split_is_asked_for(tmp_path):
    """Without it the command that makes it is named; with it the held-out part is measured, whichever part is named."""
    mix = tmp_path / "my.mix.jsonl"
    here = {"PRESET": "qwen2-7b-0.5b", "STUDENT_FINETUNE_IMAGES": "/pictures", "TABLES": "/no/tables"}
    for script in ("figure2", "figure6"):
        done = run(script, **here, STUDENT_FINETUNE_DATA=str(mix))
        assert (
            done.returncode == 2 and f"held-out conversations {tmp_path}/my.mix-held-out.jsonl are not" in done.stderr
        )
        command = (
            f"-m align_ti.studies.hold_out --data_path {mix} --model_name_or_path Qwen/Qwen2-0.5B --version qwen\n"
        )
        assert command in done.stderr and f"STUDENT_FINETUNE_DATA={tmp_path}/my.mix-train.jsonl" in done.stderr
    for named in (mix, tmp_path / "my.mix-train.jsonl"):
        words = words_of("figure6", **here, STUDENT_FINETUNE_DATA=f"{named},/other.json")
        assert values(words, "--data") == [f"{tmp_path}/my.mix-held-out.jsonl"]
        assert values(words, "--image-folder") == ["/pictures"]
    words = words_of("figure6", **here, HELD_OUT_DATA="/own.json")
    assert values(words, "--data") == ["/own.json"] and not values(words, "--image-folder")
    done = run("figure6", PRESET="mini", HELD_OUT_DATA="/no/held_out.json")
    assert done.returncode == 2 and "run scripts/demo.sh" in done.stderr


def test_tables_that_have_teachers_or_a_preset_of_their_own():
    def teachers(**environment):
        words = words_of("table9", **environment)
        return words[words.index("--teachers") + 1 :]

    small, medium, large = teachers(PRESET="mini")
    assert small == "small=playground/mini/runs/small/teacher" and medium == "medium=playground/mini/runs/teacher"
    assert teachers() == [f"{size}=checkpoints/qwen3-{size}-0.6b/teacher" for size in ("1.7b", "4b", "8b")]
    assert teachers(TEACHERS="a=/a b=/b", CHECKPOINTS="/runs") == ["a=/a", "b=/b"]
    assert values(words_of("table5", PRESET="mini"), "--out") == ["playground/mini/runs/results"]
    assert values(words_of("table5", RESULTS="docs/results"), "--out") == ["docs/results"]
    assert values(words_of("table10"), "--folder") == ["checkpoints/vicuna-7b-mobilellama-1.4b/tables"]
    assert values(words_of("table10", PRESET="mini"), "--folder") == ["playground/mini/runs/llama/tables"]


def test_variables_and_scores(tmp_path):
    """Scores are those of the models that are measured: beside them (as the demo has them) or in their folders."""
    places = (tmp_path / "eval" / "teacher", tmp_path / "eval" / "student-align-ti", tmp_path / "other" / "eval")
    for place in places:
        place.mkdir(parents=True)
        (place / "scores.json").write_text("{}")
    here = {"PRESET": "mini", "CHECKPOINTS": str(tmp_path), "RESULTS": "/results"}
    words = words_of("table17", **here)
    assert values(words, "--scores") == [f"teacher={places[0]}", f"Align-TI={places[1]}"]
    assert values(words, "--out") == ["/results"]
    words = words_of("table17", **here, TEACHER=str(tmp_path / "other"))
    assert values(words, "--scores")[0] == f"teacher={places[2]}"
    words = words_of("table17", **here, TEACHER="/else/where")
    assert (
        values(words, "--scores") == [f"Align-TI={places[1]}"] and values(words, "--model")[0] == "teacher=/else/where"
    )
    assert values(words, "--image") == ["playground/mini/build/images/train/000000.png"]
    done = run("table17", PRESET="qwen2-7b-0.5b", PRINT_ONLY="1")
    assert done.returncode == 2 and "set IMAGE to a picture" in done.stderr and not done.stdout


def test_a_figure_from_its_script_to_its_files(world, tuned_teacher, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in ("teacher", "student-sft", "student-vanilla-kd", "student-align-ti"):
        (runs / name).symlink_to(tuned_teacher)
    places = {"PRESET": "mini", "CHECKPOINTS": str(runs), "RESULTS": str(tmp_path / "out"), "OMP_NUM_THREADS": "1",
              "HELD_OUT_DATA": str(world.data), "HELD_OUT_IMAGES": str(world.images)}  # fmt: skip
    for seed in ("seed0", "seed1"):
        (runs / "tables" / "sft+kd+tpa" / seed).mkdir(parents=True)
        (runs / "tables" / "sft+kd+tpa" / seed / "model").symlink_to(tuned_teacher)
    done = run("figure6", "--samples", "4", "--max-new-tokens", "8", **places)
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "out" / "figure6.json").read_text())
    assert list(content["students"]["zero"]) == ["SFT", "vanilla KD", "TPA", "Align-TI"] and content["samples"] == "4"
    assert [len(seeds) for seeds in content["by seed"]["leave-out"].values()] == [1, 1, 2, 1]
    assert content["seeds"] == "1 of SFT, 1 of vanilla KD, 2 of TPA, 1 of Align-TI"
    assert "'vanilla KD=" in content["command"] and f"written: {tmp_path / 'out'}/figure6." in done.stderr
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".md", ".png", ".pdf"}
    done = run("figure6", "--samples", "400", **places)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: 0 of 24 conversations")
