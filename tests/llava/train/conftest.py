"""Running the supervised stages in this process; benchmarks that can be learnt by heart."""

import json
from pathlib import Path

import pytest

from llava.train import train
from tests.llava.eval.conftest import gqa, paint, pope


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


@pytest.fixture
def benchmarks(tmp_path):
    """GQA and POPE, and their questions and answers as training data."""
    root = tmp_path / "eval root"
    gqa(root)
    pope(root)
    images = tmp_path / "images"
    paint(images, ["n1.jpg", "n2.jpg"])
    entries = []
    answers = json.loads((root / "gqa/data/testdev_balanced_questions.json").read_text())
    for line in (root / "gqa/llava_gqa_testdev_balanced.jsonl").read_text().splitlines():
        question = json.loads(line)
        turns = [("human", f"<image>\n{question['text']}"), ("gpt", answers[question["question_id"]]["answer"])]
        said = [{"from": speaker, "value": text} for speaker, text in turns]
        entries.append({"id": question["question_id"], "image": question["image"], "conversations": said})
    data = tmp_path / "gqa.json"
    data.write_text(json.dumps(entries))
    return root, images, data
