"""Running the supervised stages in this process."""

import json
from pathlib import Path

import pytest

from llava.train import train


@pytest.fixture
def run(world, monkeypatch):
    """Run ``llava.train.train`` in this process: flags in, trainer log out."""

    def run(output: Path, *flags: str, data: Path | None = None) -> list[dict]:
        argv = [
            "train",
            "--model_name_or_path",
            str(world.student_lm),
            "--vision_tower",
            str(world.tower),
            "--mm_projector_type",
            "mlp2x_gelu",
            "--data_path",
            str(data or world.data),
            "--image_folder",
            str(world.images),
            "--version",
            "qwen",
            "--output_dir",
            str(output),
            "--use_cpu",
            "True",
            "--report_to",
            "none",
            "--logging_steps",
            "1",
            "--save_strategy",
            "no",
            "--disable_tqdm",
            "True",
            "--learning_rate",
            "1e-3",
            "--dataloader_pin_memory",
            "False",
            *flags,
        ]
        monkeypatch.setattr("sys.argv", argv)
        train.main()
        return json.loads((output / "trainer_state.json").read_text())["log_history"]

    return run
