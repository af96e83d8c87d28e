"""From a distillation to its card, and on to an export: what a user does."""

import json

from huggingface_hub import ModelCard
from transformers import AutoModelForImageTextToText

from align_ti.training import train as distill
from llava.export.__main__ import main
from tests.runs import COMMON


def test_a_finished_student_has_a_card_and_can_be_exported(world, tuned_teacher, tmp_path, monkeypatch):
    student = tmp_path / "student"
    flags = {
        "teacher_path": tuned_teacher,
        "model_name_or_path": world.student_lm,
        "vision_tower": world.tower,
        "data_path": world.data,
        "image_folder": world.images,
        "output_dir": student,
        "iva_layer": 1,
    }
    pairs = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    projector = ["--mm_projector_type", "mlp2x_gelu", "--max_steps", "2"]
    monkeypatch.setattr("sys.argv", ["train", *COMMON, *pairs, *projector])
    distill.main()
    card = ModelCard.load(student / "README.md")
    assert "1.0 x SFT" in card.text and "| IVA (Eq. 4) | layer 1, weights teacher, rows 0 |" in card.text
    assert f"| teacher | `{tuned_teacher.name}` |" in card.text
    assert "| optimizer steps | 2 |" in card.text
    assert str(tmp_path) not in card.content

    (student / "eval").mkdir()
    (student / "eval" / "scores.json").write_text(json.dumps({"gqa": 33.0}))
    main(["--to", "hf", "--model_path", str(student), "--output", str(tmp_path / "hf")])
    card = ModelCard.load(tmp_path / "hf" / "README.md")
    assert card.data.eval_results[0].metric_value == 33.0 and "distillation" in card.data.tags
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "hf").config.model_type == "llava"
