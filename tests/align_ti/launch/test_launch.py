"""The launcher: which command it runs where, what it refuses, and what real launchers make of it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from align_ti.launch.job import Job, batch_flags, build_command, count_gpus
from align_ti.launch.machine import Machine, check_hostfile
from align_ti.recipes.resolve import resolve
from llava.errors import InputError
from tests.runs import COMMON

ROOT = Path(__file__).resolve().parents[3]


def job(**changes) -> Job:
    values = {"module": "m", "flags": ("--a", "b"), "global_batch": 128, "per_device": 4, "needs_gpu": True}
    return Job(**{**values, **changes})


def command(machine: Machine, present: int | None = None, **changes) -> str:
    return " ".join(build_command(job(**changes), machine, present)[0][1:])


def test_the_visible_devices_are_the_ones_used():
    """``--num_gpus`` would make DeepSpeed discard CUDA_VISIBLE_DEVICES and land on other people's GPUs."""
    mine = Machine(visible=("4", "5", "6", "7"))
    assert "--include localhost:4,5,6,7 " in command(mine, 4) and "--num_gpus" not in command(mine, 4)
    assert "--gradient_accumulation_steps 8" in command(mine, 4)
    assert "--include localhost:4,5 " in command(Machine(gpus=2, visible=("4", "5", "6", "7")), 4)
    named = command(Machine(visible=("GPU-8a", "GPU-9b")), 2)
    assert "torch.distributed.run --nnodes 1 --nproc_per_node 2" in named, "DeepSpeed's launcher knows numbers only"
    assert "--include localhost:0,1,2 " in command(Machine(gpus=3), 8, global_batch=12)


def test_gpus_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="NUM_GPUS is 8, but torch sees 0"):
        command(Machine(gpus=8), 0)
    with pytest.raises(InputError, match=r"NUM_GPUS is 8, but torch sees 4.*CUDA_VISIBLE_DEVICES=4,5,6,7"):
        command(Machine(gpus=8, visible=("4", "5", "6", "7")), 4)
    with pytest.raises(InputError, match="recipe needs a GPU"):
        command(Machine(), 0)
    with pytest.raises(InputError, match="recipe needs a GPU"):
        command(Machine(gpus=0), 0)
    assert "--use_cpu True" in command(Machine(cpu_processes=1), 0), "asked for"
    assert count_gpus(job(needs_gpu=False), Machine(), 0) == 0


def test_every_command_says_how_many_processes_it_was_computed_for():
    for machine, processes in (
        (Machine(gpus=8), 8),
        (Machine(gpus=8, launcher="torchrun"), 8),
        (Machine(gpus=8, nodes=2, launcher="torchrun", master_addr="node0"), 16),
        (Machine(cpu_processes=2), 2),
    ):
        assert f"--expected_processes {processes}" in command(machine)


def test_several_nodes_need_a_place_to_meet(tmp_path):
    with pytest.raises(InputError, match="MASTER_ADDR is not set"):
        command(Machine(gpus=8, nodes=2, launcher="torchrun"))
    assert "--rdzv_endpoint node0:29500" in command(
        Machine(gpus=8, nodes=2, launcher="torchrun", master_addr="node0"), 8
    )
    with pytest.raises(InputError, match="HOSTFILE and MASTER_ADDR is not set"):
        command(Machine(gpus=8, nodes=2))
    with pytest.raises(InputError, match="HOSTFILE=nowhere: no such file"):
        command(Machine(gpus=8, nodes=2, hostfile="nowhere", master_addr="node0"))
    hosts = tmp_path / "hosts"
    hosts.write_text("# ours\nnode0 slots=8\n\nnode1 slots=8  # the other\n")
    machine = Machine(gpus=8, nodes=2, hostfile=str(hosts), master_addr="node0")
    assert f"--hostfile {hosts} --num_gpus 8 --master_addr node0" in command(machine)
    some = Machine(gpus=2, visible=("6", "7"), nodes=2, hostfile=str(hosts), master_addr="node0")
    assert "--include node0:6,7@node1:6,7 " in command(some)


@pytest.mark.parametrize(
    "text, message",
    [
        ("node0 slots=8\n", "names 1 hosts"),
        ("node0 slots=8\nnode1 slots=4\n", "node1 has 4"),
        ("node0 8\nnode1 slots=8\n", "line 1"),
        ("node0 slots=eight\n", "line 1"),
    ],
)
def test_a_hostfile_that_does_not_fit(tmp_path, text, message):
    (tmp_path / "hosts").write_text(text)
    with pytest.raises(InputError, match=message):
        check_hostfile(str(tmp_path / "hosts"), 2, 8)


def test_a_batch_that_cannot_be_split_proposes_what_can():
    with pytest.raises(InputError) as error:
        batch_flags(job(), 7)
    text = str(error.value)
    assert "cannot be split over 7 processes" in text and "4 or 2 processes (NUM_GPUS)" in text
    assert "--global_batch 112 or 140" in text and "another model" in text
    with pytest.raises(InputError, match="--per_device_train_batch_size 2 or 4 or 8"):
        batch_flags(job(per_device=6), 8)


def test_batch_flags_given_by_hand_count():
    both = ("--gradient_accumulation_steps", "3", "--per_device_train_batch_size=2")
    assert "--gradient_accumulation_steps 32" not in command(Machine(gpus=1), flags=both)
    two = resolve("align-ti", words=["--per_device_train_batch_size", "2"])
    assert batch_flags(Job.of(two), 8)[1::2] == ["2", "8"]


def test_a_batch_may_be_shared():
    """``share`` in a recipe: every process takes its part in one forward pass."""
    assert batch_flags(job(per_device=None), 2)[1::2] == ["64", "1"]
    with pytest.raises(InputError, match="--global_batch 126 or 133"):
        batch_flags(job(per_device=None), 7)


@pytest.mark.parametrize(
    "name, value", [("NUM_GPUS", "many"), ("NUM_GPUS", "-1"), ("CPU_PROCESSES", "0"), ("LAUNCHER", "rocket")]
)
def test_odd_variables_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        Machine.from_environment({name: value})


STAND_IN_GPUS = """
import os, sys
if os.environ.get("STAND_IN_GPUS"):
    import torch
    visible = lambda: os.environ.get("CUDA_VISIBLE_DEVICES", os.environ["STAND_IN_GPUS"])
    torch.cuda.device_count = lambda: len(visible().split(","))
    torch.cuda.is_available = lambda: True
"""


def test_deepspeeds_own_launcher_gives_the_processes_those_devices(tmp_path):
    """The real runner, on a machine that is only said to have eight GPUs; each process tells what it may see."""
    pytest.importorskip("deepspeed")
    (tmp_path / "sitecustomize.py").write_text(STAND_IN_GPUS)
    (tmp_path / "tell.py").write_text(
        f"import os, pathlib\nfile = pathlib.Path({str(tmp_path)!r}) / f'told-{{os.environ[\"RANK\"]}}'\n"
        "file.write_text(os.environ['CUDA_VISIBLE_DEVICES'] + ' ' + os.environ['MASTER_PORT'])\n"
    )
    (tmp_path / "tell.yaml").write_text("module: tell\nglobal_batch: 8\nper_device_train_batch_size: 4\n")
    ports = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "align_ti.cli", "distill", str(tmp_path / "tell.yaml")],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "6,7", "STAND_IN_GPUS": "0,1,2,3,4,5,6,7",
                 "PYTHONPATH": f"{tmp_path}:{ROOT}"},
            cwd=ROOT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        told = [(tmp_path / f"told-{rank}").read_text().split() for rank in (0, 1)]
        assert [devices for devices, _ in told] == ["6,7", "6,7"], done.stderr
        ports.append(told[0][1])
    assert ports[0] != ports[1], "two trainings on one machine do not meet"


# ---- real trainings on two processes ----


def training(world, output: Path, *flags: str, **environment: str) -> subprocess.Popen[str]:
    """The supervised stage on two processes, as the scripts start it."""
    recipe = output.with_suffix(".yaml")
    recipe.write_text("module: llava.train.train\nglobal_batch: 4\nper_device_train_batch_size: 2\n")
    common = [word for word in COMMON]
    for name in ("--use_cpu", "--per_device_train_batch_size"):
        if name in common:
            del common[common.index(name) : common.index(name) + 2]
    command = [
        sys.executable, "-m", "align_ti.cli", "finetune", str(recipe), *common, "--model_name_or_path",
        str(world.student_lm), "--vision_tower", str(world.tower), "--data_path", str(world.data), "--image_folder",
        str(world.images), "--output_dir", str(output), *flags,
    ]  # fmt: skip
    variables = {"NUM_GPUS": "0", "CPU_PROCESSES": "2", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.Popen(
        command, env={**os.environ, **variables}, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.1)


@pytest.mark.timeout(400)
def test_an_error_is_one_line_and_the_last(world, tmp_path):
    process = training(world, tmp_path / "run", "--image_folder", str(tmp_path / "nowhere"))
    text = process.communicate(timeout=200)[0]
    assert process.returncode == 2
    last = text.rstrip().splitlines()[-1]
    assert last.startswith("error: image folder") and text.count("error: image folder") == 1
    assert "Traceback" not in text and len(text.splitlines()) < 12, text


@pytest.mark.timeout(400)
def test_workers_that_outlive_their_launcher_keep_the_folder(world, tmp_path):
    """SIGKILL reaches the launcher alone: what it started goes on, and nobody else may write there."""
    folder = tmp_path / "run"
    flags = ("--num_train_epochs", "400", "--save_strategy", "steps", "--save_steps", "5")
    flags += ("--logging_steps", "200")  # nobody reads what the first one says: a full pipe would stop it
    first = training(world, folder, *flags)
    wait_for(lambda: (folder / "checkpoint-5").exists(), first)
    owner = json.loads((folder / "run.lock").read_text())
    first.kill()
    first.wait()
    try:
        second = training(world, folder, *flags)
        text = second.communicate(timeout=200)[0]
        assert second.returncode == 2 and f"{folder} is in use: process {owner['process']} on this machine" in text
        assert text.count("is in use") == 1
    finally:
        os.kill(owner["process"], signal.SIGTERM)  # one rank is told; both save and leave
    until = time.monotonic() + 120
    while Path(f"/proc/{owner['process']}").exists() and time.monotonic() < until:
        time.sleep(0.2)
    third = training(world, folder, *flags)
    try:
        before = len(list(folder.glob("checkpoint-*")))
        wait_for(lambda: len(list(folder.glob("checkpoint-*"))) > before, third)
    finally:
        third.terminate()
        text = third.communicate(timeout=200)[0]
    assert third.returncode == 128 + signal.SIGTERM, text
    assert "resuming from" in text and text.rstrip().splitlines()[-1].startswith("stopped by SIGTERM after")
    assert "Traceback" not in text


@pytest.mark.timeout(400)
def test_processes_that_are_not_connected_do_not_train(world, tmp_path):
    """Two started processes without --use_cpu and GPUs would train two models into one folder."""
    flags = [word for word in COMMON]
    del flags[flags.index("--use_cpu") : flags.index("--use_cpu") + 2]
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m",
            "llava.train.train", *flags, "--model_name_or_path", str(world.student_lm), "--vision_tower",
            str(world.tower), "--data_path", str(world.data), "--image_folder", str(world.images), "--output_dir",
            str(tmp_path / "run"),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode != 0 and "started 2 processes, but only 1 would train together" in done.stderr
    assert not list((tmp_path / "run").glob("*.safetensors"))
