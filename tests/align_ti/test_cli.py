"""The command ``align-ti``: it answers at once, hands over to every program, and says what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from align_ti.cli import DATA, HANDED_OVER, USAGE

ROOT = Path(__file__).resolve().parents[2]


def align_ti(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "align_ti.cli", *words]
    return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("words", [["--help"], ["distill", "--help"], ["distill", "align-ti", "--print"]])
def test_nothing_heavy_is_imported_before_it_is_needed(words):
    """``align-ti --help`` runs in well under two seconds: neither torch nor transformers is imported."""
    program = (
        f"import runpy, sys\nsys.argv = ['align-ti', *{words!r}]\n"
        "try:\n    runpy.run_module('align_ti.cli', run_name='__main__')\nexcept SystemExit as end:\n"
        "    heavy = {'torch', 'transformers', 'numpy', 'deepspeed'} & set(sys.modules)\n"
        "    sys.exit(str(heavy) if heavy else end.code)\n"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "NUM_GPUS": "8"}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_command_is_listed_and_leads_to_a_program():
    listed = {line.split()[0] for line in USAGE.splitlines() if line.startswith("  ")}
    assert listed == {"data", "pretrain", "finetune", "distill", "plan", *HANDED_OVER}
    for module in (*HANDED_OVER.values(), *(words[0] for words in DATA.values())):
        path = ROOT / module.replace(".", "/")
        program = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert "run_cli(main)" in program.read_text(), module


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distil"], "no command 'distil'; did you mean distill?"),
        (["data", "prepar"], "no `align-ti data prepar`; there are: prepare, benchmarks, check, hold-out"),
        (["distill", "--tpa_d", "8"], "name the recipe before its flags; got '--tpa_d'"),
        (["distill", "align-ti", "--pair"], "--pair is the last word; expected a value behind it"),
        (["pretrain", "align-ti"], "the recipe align-ti is not for `align-ti pretrain`; use `align-ti distill`"),
        (["distill", "sft"], "the recipe sft is not for `align-ti distill`; use `align-ti pretrain or finetune`"),
        (["eval", "all", "--limit", "3"], "usage: align-ti eval all CHECKPOINT [flags of llava.eval.run]"),
    ],
)
def test_mistakes(words, message):
    done = align_ti(*words)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr and not done.stdout


def test_programs_are_handed_over_to():
    done = align_ti("data", "prepare", "--list")
    assert done.returncode == 0 and "teacher-pretrain" in done.stdout, done.stderr
    done = align_ti("eval", "--help")
    assert done.returncode == 0 and "align-ti eval all CHECKPOINT" in done.stdout


def test_a_plan_from_anywhere(tmp_path):
    """Of 16 GPUs, on a machine without one, with none of the data and models there."""
    done = align_ti("plan", "align-ti", "--plan_memory_gib", "40", NUM_GPUS="16", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert "teacher        Qwen/Qwen2-7B" in done.stdout and "16 GPUs x 2 accumulation steps" in done.stdout
    assert "GiB of 40" in done.stdout
