"""``--dry_run`` as a command: what it prints, which flags it takes, and that it waits for no network."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from align_ti.training import train as distill
from align_ti.training.arguments import DistillArguments
from llava.errors import InputError
from llava.train import train as supervised
from llava.train.arguments import DataArguments, ModelArguments
from llava.train.plan import PlanArguments, known_flags, parse_plan, plan, plan_asked_for
from llava.train.plan.data import steps

ROOT = Path(__file__).parents[3]
SIGLIP = "google/siglip-so400m-patch14-384"
ZERO2 = str(ROOT / "scripts/deepspeed/zero2.json")
DISTILLATION = [
    "--model_name_or_path", "Qwen/Qwen2-0.5B", "--teacher_path", "Qwen/Qwen2-7B",
    "--vision_tower", SIGLIP, "--mm_vision_select_layer", "-2", "--mm_projector_type", "mlp2x_gelu", "--data_path",
    "nowhere.json", "--model_max_length", "2048", "--bf16", "True", "--tf32", "True", "--deepspeed", ZERO2,
    "--gradient_checkpointing", "True", "--output_dir", "x", "--version", "qwen", "--dry_run", "True",
    "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2", "--plan_gpus", "16",
]  # fmt: skip


def shown(monkeypatch, capsys, module, *flags: str) -> str:
    monkeypatch.setattr(sys, "argv", ["train", *flags])
    module.main()
    return capsys.readouterr().out


def part(text: str, name: str) -> float:
    """The number behind a part's name."""
    return float(next(line for line in text.splitlines() if line.startswith(f"  {name} ")).split()[-2])


def total(text: str) -> float:
    """GiB of one GPU."""
    return float(text.split("memory per GPU")[1].split()[0])


# ---- what is printed ----


def test_a_distillation(monkeypatch, capsys):
    text = shown(monkeypatch, capsys, distill, *DISTILLATION)
    assert "128 = 4 per GPU x 16 GPUs x 2 accumulation steps" in text
    assert "teacher        Qwen/Qwen2-7B: 8.0" in text and "not found: nowhere.json" in text
    assert "steps          unknown without the data" in text
    assert "fits           yes" in text and "published configs" in text and "not measured on a GPU" in text
    parts = [float(line.split()[-2]) for line in text.splitlines() if line.startswith("  ") and line.endswith("GiB")]
    assert sum(parts) == pytest.approx(total(text), abs=0.06)
    assert part(text, "teacher weights") == pytest.approx(14.22, abs=0.01)


def test_methods_differ(monkeypatch, capsys):
    """All of these once had the same 19.7 GiB."""
    found = {}
    for name, flags in {
        "kd": ("--losses", "sft,kd"),
        "all": (),
        "64 draws": ("--tpa_d", "64"),
        "algorithm1": ("--ribbon", "algorithm1"),
        "64 draws, algorithm1": ("--tpa_d", "64", "--ribbon", "algorithm1"),
        "on-policy": ("--losses", "kd", "--on_policy_fraction", "1"),
    }.items():
        found[name] = shown(monkeypatch, capsys, distill, *DISTILLATION, *flags)
    memory = {name: total(text) for name, text in found.items()}
    assert memory["kd"] < memory["all"] < memory["64 draws"] < memory["64 draws, algorithm1"]
    assert memory["all"] < memory["algorithm1"] < memory["64 draws, algorithm1"]
    assert "fits           no" in found["64 draws, algorithm1"]
    assert "token at a time" in found["on-policy"] and "token at a time" not in found["kd"]
    assert "heads, visual tokens" in found["all"] and "heads, visual tokens" not in found["kd"]


def test_a_mix_that_is_not_there_has_published_steps(monkeypatch, capsys):
    data = ("--data_path", "some/where/MobileVLM_V2_FT_Mix2M.json")
    text = shown(monkeypatch, capsys, distill, *DISTILLATION, *data)
    assert "published: 2,400,000 samples, rounded to 100,000 (the paper's Table 12)" in text
    assert "steps          18,750 by the published numbers" in text  # 2.4 M / 128
    made = ("--data_path", "mixes/teacher-finetune.json")
    assert "published: 665,298 samples (https" in shown(monkeypatch, capsys, distill, *DISTILLATION, *made)


def test_data_that_are_there_are_added_to_published_ones(world, monkeypatch, capsys):
    data = ("--data_path", f"{world.data},llava_v1_5_mix665k.json", "--per_device_train_batch_size", "1")
    text = shown(monkeypatch, capsys, distill, *DISTILLATION, *data)
    assert f"steps          {-(-(665_298 + 24) // 32):,} by the published numbers" in text


def test_time_is_flops_over_speed(monkeypatch, capsys):
    """10 steps of 2 micro-batches: twice as long at half the speed."""
    hours = {}
    for speed in ("989", "494.5"):
        text = shown(monkeypatch, capsys, distill, *DISTILLATION, "--max_steps", "1000", "--plan_tflops", speed)
        hours[speed] = float(text.split("time           ")[1].split()[0])
    tflop = float(text.split("FLOPs          ")[1].split()[0])
    assert hours["989"] == pytest.approx(2 * 1000 * tflop / (989 * 0.4) / 3600, abs=0.06)
    assert hours["494.5"] == pytest.approx(2 * hours["989"], abs=0.11)


def test_a_plan_for_a_cpu_has_no_cuda_and_no_time(world, monkeypatch, capsys):
    text = shown(monkeypatch, capsys, distill, *DISTILLATION, "--use_cpu", "True")
    assert "not estimated for a CPU" in text and "CUDA" not in text
    assert " hours" in shown(monkeypatch, capsys, distill, *DISTILLATION, "--max_steps", "5")


def test_steps_are_those_that_training_takes(world, tmp_path, monkeypatch, capsys):
    flags = [
        "--model_name_or_path", str(world.student_lm), "--vision_tower", str(world.tower), "--version", "qwen",
        "--mm_projector_type", "mlp2x_gelu", "--data_path", str(world.data), "--image_folder", str(world.images),
        "--output_dir", str(tmp_path / "run"), "--per_device_train_batch_size", "5", "--num_train_epochs", "1.5",
        "--use_cpu", "True", "--report_to", "none", "--dataloader_pin_memory", "False", "--disable_tqdm", "True",
    ]  # fmt: skip
    text = shown(monkeypatch, capsys, supervised, *flags, "--dry_run")
    assert not (tmp_path / "run").exists() and "24 samples; one image is 4 tokens" in text
    shown(monkeypatch, capsys, supervised, *flags)
    taken = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"]
    assert f"steps          {taken:,};" in text
    weights = sum(p.stat().st_size for p in (tmp_path / "run").glob("model*.safetensors"))
    trained = int(text.split("trained")[1].split(";")[0].replace(",", ""))
    assert weights == pytest.approx(4 * trained, rel=0.05)  # float32, the tower left out, and a header


@pytest.mark.parametrize(
    "samples, changes, expected",
    [
        (1000, {}, 8),  # 125 a GPU, 16 micro-batches of 8, 2 a step
        (1001, {}, 8),
        (1000, {"num_train_epochs": 2.5}, 20),
        (1000, {"max_steps": 7}, 7),
        (3, {}, 1),
    ],
)
def test_steps(samples, changes, expected):
    arguments = PlanArguments(plan_gpus=8, gradient_accumulation_steps=2, **changes)
    assert steps(samples, arguments) == expected


def test_what_does_not_fit_is_said():
    model = ModelArguments("Qwen/Qwen2-7B", vision_tower=SIGLIP, mm_projector_type="mlp2x_gelu")
    arguments = PlanArguments(bf16=True, deepspeed=ZERO2, plan_gpus=8, plan_memory_gib=24)
    assert "fits           no: lower the per-device batch" in plan(model, DataArguments("none.json"), arguments)


# ---- flags ----


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--tpa_dd", "4"], r"unknown flag --tpa_dd; did you mean --tpa_d\?"),
        (["--learning_rat", "4"], r"unknown flag --learning_rat; did you mean --learning_rate\?"),
        (["--plan_gpu", "4"], r"unknown flag --plan_gpu; did you mean --plan_gpus\?"),
        (["--tpa_d", "many"], "argument --tpa_d: invalid int value"),
        (["--plan_mfu", "40"], "--plan_mfu is 40.0; expected a share"),
        (["--plan_gpus", "0"], "--plan_gpus is 0; expected a number above 0"),
        (["--plan_candidate_rows", "-1"], "--plan_candidate_rows is -1.0"),
    ],
)
def test_wrong_flags_are_refused_as_in_a_run(flags, message):
    with pytest.raises(InputError, match=message):
        parse_plan(DistillArguments, argv=[*DISTILLATION, *flags])


def test_all_flags_of_a_run_are_known():
    """transformers' own, LLaVA's, the method's, the plan's; and old names."""
    known = known_flags(DistillArguments)
    assert {"--learning_rate", "--local_rank", "--mm_projector_lr", "--tpa_d", "--plan_mfu", "--dry_run"} <= known
    assert "--tpa_d" not in known_flags()
    flags = ["--evaluation_strategy", "no", "--save_steps", "10", "--lr_scheduler_type", "cosine", "--seed=3"]
    arguments, model, data, method = parse_plan(DistillArguments, argv=[*DISTILLATION, *flags])
    assert (arguments.plan_gpus, arguments.bf16, data.data_path, method.tpa_d) == (16, True, "nowhere.json", 4)


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["--dry_run"], True), (["--dry_run", "--bf16"], True), (["--dry_run", "True"], True),
        (["--dry_run", "False"], False), (["--dry_run=0"], False), (["--x", "1"], False),
    ],
)  # fmt: skip
def test_the_flag(argv, expected):
    assert plan_asked_for(argv) is expected


# ---- without a network ----


@pytest.fixture
def closed_network(tmp_path):
    """An environment whose only way out is a proxy that hangs up; the number of connections it was asked for."""
    server = socket.create_server(("127.0.0.1", 0))
    asked: list[str] = []

    def hang_up():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # closed: the test is over
                return
            asked.append(connection.recv(1000).decode(errors="replace").partition("\r\n")[0])
            connection.close()

    threading.Thread(target=hang_up, daemon=True).start()
    proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and "OFFLINE" not in name}
    environment = {**kept, "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": str(ROOT)}
    environment |= {name: proxy for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    yield environment, asked
    server.close()


def command(environment: dict[str, str], *arguments: str) -> tuple[subprocess.CompletedProcess, float]:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    return done, time.monotonic() - started


@pytest.mark.timeout(600)
def test_no_network_is_waited_for(closed_network):
    """Known models need none; for others the hub is asked once. A plan once took 102 seconds here."""
    environment, asked = closed_network
    _, imports = command(
        environment, "-c", "import align_ti.training.train"
    )  # what a busy machine needs for that alone
    done, taken = command(environment, "-m", "align_ti.training.train", *DISTILLATION)
    assert done.returncode == 0, done.stderr
    assert "fits           yes" in done.stdout and not asked
    assert taken < imports + 12
    done, taken = command(
        environment, "-m", "align_ti.training.train", *DISTILLATION, "--teacher_path", "nobody/nothing"
    )
    assert done.returncode == 2 and len(asked) <= 1
    assert "error: no configuration of 'nobody/nothing'" in done.stderr and "cannot be reached" in done.stderr
    assert taken < imports + 12
