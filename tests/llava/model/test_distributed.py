"""Two processes, one whose batches have no picture: no hang, and one process's numbers in every mode."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llava.model import LlavaQwen2ForCausalLM

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MODES = ["ddp", "zero2", "zero3", "zero3_sharded_teacher"]


def one_process(folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The same training without any parallelism: summed losses of both ranks' batches, final projector."""
    spec = importlib.util.spec_from_file_location("distributed_steps", HERE / "distributed_steps.py")
    assert spec is not None and spec.loader is not None
    steps = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(steps)
    model = LlavaQwen2ForCausalLM.from_pretrained(folder / "student").train()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=steps.LEARNING_RATE)
    record = []
    for number in range(steps.STEPS):
        losses = [model(**steps.batch(rank, number)).loss for rank in (0, 1)]
        record.append(sum(float(loss.detach()) for loss in losses))
        optimizer.zero_grad()
        (sum(losses) / 2).backward()
        optimizer.step()
    return record, {f"model.mm_projector.{k}": v for k, v in model.model.mm_projector.state_dict().items()}


@pytest.mark.timeout(300)
def test_every_mode_equals_one_process(make_model, tmp_path):
    pytest.importorskip("deepspeed")
    make_model("qwen2", tied=True).save_pretrained(tmp_path / "student")
    make_model("qwen2").save_pretrained(tmp_path / "teacher")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(HERE / "distributed_steps.py"), str(tmp_path), *MODES],
        env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]

    losses, projector = one_process(tmp_path)
    assert losses[0] > losses[1] > losses[2]
    records = {mode: torch.tensor(json.loads((tmp_path / mode / "losses.json").read_text())) for mode in MODES}
    for mode in MODES:
        torch.testing.assert_close(records[mode][:, 0], torch.tensor(losses), rtol=1e-4, atol=1e-4, msg=mode)
        torch.testing.assert_close(records[mode][:, 1], records["ddp"][:, 1], rtol=1e-4, atol=1e-4, msg=mode)
        for folder in (tmp_path / mode, tmp_path / mode / "again"):
            saved = torch.load(folder / "mm_projector.bin", weights_only=True)
            torch.testing.assert_close(saved, projector, rtol=1e-3, atol=1e-4, msg=mode)
