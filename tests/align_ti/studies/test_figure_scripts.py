"""What ``align-ti table`` runs for figures and for tables of finished models, and one of them to its files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from align_ti.studies.figures import FIGURES, command_of
from align_ti.studies.tables.pairs import setting_of, teachers_of
from llava.errors import InputError

ROOT = Path(__file__).resolve().parents[3]


def run(name, *flags, **environment):
    """Run the command from another folder, as a user would."""
    variables = {"PATH": os.environ["PATH"], "HOME": "/tmp", "PYTHON": sys.executable, "NUM_GPUS": "0", **environment}
    command = ["bash", str(ROOT / "scripts/align-ti.sh"), "table", name, *flags]
    return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, timeout=300)


def words_of(name, *flags, pair=None):
    return ["python", "-m", *command_of(name, pair, flags, needs=False)]


def values(words, flag):
    return [words[index + 1] for index, word in enumerate(words) if word == flag]


@pytest.mark.parametrize("script", [name for name in FIGURES if name != "table4"])
@pytest.mark.parametrize("preset", ["mini", "qwen2-7b-0.5b"])
def test_commands(script, preset):
    picture = ["--image", "some.png"] if script == "table17" else []
    words = words_of(script, *picture, "--folder", "/no/tables", "--one", "more", pair=preset)
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
    here = ["--image-folder", "/pictures", "--folder", "/no/tables"]
    command = f"-m align_ti.studies.hold_out --data_path {mix} --model_name_or_path Qwen/Qwen2-0.5B --version qwen\n"
    for name in ("figure2", "figure6"):
        with pytest.raises(InputError) as error:
            command_of(name, None, [*here, "--data_path", str(mix)])
        said = str(error.value)
        assert f"held-out conversations {tmp_path}/my.mix-held-out.jsonl do not exist" in said
        assert command in said and f"--data_path {tmp_path}/my.mix-train.jsonl" in said
    for named in (mix, tmp_path / "my.mix-train.jsonl"):
        words = words_of("figure6", *here, "--data_path", f"{named},/other.json")
        assert values(words, "--data") == [f"{tmp_path}/my.mix-held-out.jsonl"]
        assert values(words, "--image-folder") == ["/pictures"]
    words = words_of("figure6", "--folder", "/no/tables", "--held_out_data", "/own.json", "--held-out-images=/mine")
    assert values(words, "--data") == ["/own.json"] and values(words, "--image-folder") == ["/mine"]
    with pytest.raises(InputError, match="run scripts/demo.sh"):
        command_of("figure6", "mini", ["--held_out_data", "/no/held_out.json"])


def test_tables_that_have_teachers_or_a_pair_of_their_own(monkeypatch):
    monkeypatch.chdir(ROOT)
    small, medium, large = teachers_of(setting_of("table9", "mini", []))
    assert small == "small=playground/mini/runs/small/teacher" and medium == "medium=playground/mini/runs/teacher"
    assert large == "large=playground/mini/runs/large/teacher"
    assert teachers_of(setting_of("table9", None, [])) == [
        f"{size}=checkpoints/qwen3-{size}-0.6b/teacher" for size in ("1.7b", "4b", "8b")
    ]
    with pytest.raises(InputError, match="the pair is qwen2-7b-0.5b; name the teachers"):
        teachers_of(setting_of("table9", "qwen2-7b-0.5b", []))
    assert str(setting_of("table5", "mini", []).runs) == "playground/mini/runs"
    assert str(setting_of("table10", None, []).runs) == "checkpoints/vicuna-7b-mobilellama-1.4b"
    llama = setting_of("table10", "mini", [])
    assert (str(llama.runs), llama.teacher) == ("playground/mini/runs/llama", "playground/mini/runs/teacher")
    moved = setting_of("table10", "mini", ["--runs", "/r", "--teacher_path", "/t"])
    assert (str(moved.runs), moved.teacher) == ("/r/llama", "/t")


def test_places_and_scores(tmp_path):
    """Scores are those of the models that are measured: beside them (as the demo has them) or in their folders."""
    places = (tmp_path / "eval" / "teacher", tmp_path / "eval" / "student-align-ti", tmp_path / "other" / "eval")
    for place in places:
        place.mkdir(parents=True)
        (place / "scores.json").write_text("{}")
    here = ["--runs", str(tmp_path), "--out", "/results"]
    words = words_of("table17", *here, pair="mini")
    assert values(words, "--scores") == [f"teacher={places[0]}", f"Align-TI={places[1]}"]
    assert values(words, "--out")[-1] == "/results", "the last one counts"
    words = words_of("table17", *here, "--teacher_path", str(tmp_path / "other"), pair="mini")
    assert values(words, "--scores")[0] == f"teacher={places[2]}"
    words = words_of("table17", *here, "--teacher_path", "/else/where", pair="mini")
    assert values(words, "--scores") == [f"Align-TI={places[1]}"]
    assert values(words, "--model")[0] == "teacher=/else/where"
    assert values(words, "--image") == ["playground/mini/build/images/train/000000.png"]
    with pytest.raises(InputError, match="give --image, an image"):
        command_of("table17", None, [])


def test_table4_runs_the_benchmark():
    words = words_of("table4", "--runs", "/runs", "--compile_losses", pair="mini")
    assert words[2] == "align_ti.studies.cost" and values(words, "--preset") == ["laptop"]
    assert values(words, "--rows_from") == ["/runs/student-align-ti"] and words[-1] == "--compile_losses"
    words = words_of("table4")
    assert values(words, "--preset") == ["paper"] and values(words, "--out") == ["checkpoints/qwen2-7b-0.5b/results"]


def test_a_figure_from_its_command_to_its_files(world, tuned_teacher, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in ("teacher", "student-sft", "student-vanilla-kd", "student-align-ti"):
        (runs / name).symlink_to(tuned_teacher)
    places = ["--pair", "mini", "--runs", str(runs), "--out", str(tmp_path / "out"), "--held_out_data", str(world.data)]
    places += ["--held_out_images", str(world.images)]
    for seed in ("seed0", "seed1"):
        (runs / "tables" / "sft+kd+tpa" / seed).mkdir(parents=True)
        (runs / "tables" / "sft+kd+tpa" / seed / "model").symlink_to(tuned_teacher)
    done = run("figure6", "--samples", "4", "--max-new-tokens", "8", *places, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "out" / "figure6.json").read_text())
    assert list(content["students"]["zero"]) == ["SFT", "vanilla KD", "TPA", "Align-TI"] and content["samples"] == "4"
    assert [len(seeds) for seeds in content["by seed"]["leave-out"].values()] == [1, 1, 2, 1]
    assert content["seeds"] == "1 of SFT, 1 of vanilla KD, 2 of TPA, 1 of Align-TI"
    assert "'vanilla KD=" in content["command"] and f"written: {tmp_path / 'out'}/figure6." in done.stderr
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".md", ".png", ".pdf"}
    done = run("figure6", "--samples", "400", *places, OMP_NUM_THREADS="1")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: 0 of 24 conversations")
