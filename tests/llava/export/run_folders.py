"""Run folders as training leaves them, without a training."""

import json
from pathlib import Path

from llava.train.run_record import describe_run, write_record


def run(folder: Path, base: str, data: str, steps: int = 7, **more) -> Path:
    """A run folder as the training entry points leave it."""
    model = {"model_name_or_path": base, "vision_tower": "google/siglip-so400m-patch14-384", "version": "qwen"}
    model |= more.pop("model", {})
    training = {"learning_rate": 2e-5, "num_train_epochs": 1.0, "seed": 42, "per_device_train_batch_size": 4}
    write_record(folder, describe_run(1, model=model, data={"data_path": data}, training=training, **more))
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": steps}))
    return folder
