"""Model cards from run folders."""

import json

import pytest
from huggingface_hub import ModelCard

from llava.errors import InputError
from llava.export.card import MARK, write_card, write_student_card
from llava.export.history import read_history
from llava.files import model_fingerprint
from tests.llava.export.run_folders import run


def test_card_of_a_distilled_student(student):
    write_student_card(student)
    card = ModelCard.load(student / "README.md")
    data = card.data.to_dict()
    assert data["base_model"] == ["Qwen/Qwen2-0.5B", "google/siglip-so400m-patch14-384"]
    assert data["datasets"] == ["Lin-Chen/ShareGPT4V", "mtgv/MobileVLM_V2_FT_Mix2M"]
    assert data["pipeline_tag"] == "image-text-to-text"
    assert data["library_name"] == "align-ti"
    assert {"llava", "distillation", "arxiv:2602.09483"} <= set(data["tags"])
    assert "model-index" not in data
    text = card.text
    assert text.index("Projector pretraining") < text.index("Distillation")
    assert "1.0 x SFT + 1.0 x KD + 1.0 x IVA + 0.5 x TPA" in text  # a record of before titles were written down
    assert "| IVA | layer 17 |" in text and "| TPA | d 4 |" in text
    assert "own.json" in text and "`teacher-7b`" in text and "2e-05" in text
    assert "| optimizer steps | 3 |" in text and "| optimizer steps | 7 |" in text
    assert "/secret" not in card.content and "/data" not in card.content


def test_scores(student, tmp_path):
    (student / "eval").mkdir()
    scores = {"gqa": 60.456, "pope": 86.0, "mme": 70.5, "avg": 72.3}
    (student / "eval" / "scores.json").write_text(json.dumps(scores))
    (student / "eval" / "mme.json").write_text(json.dumps({"score": 70.5, "limit": 100}))
    write_card(student, read_history(student))
    card = ModelCard.load(student / "README.md")
    results = {result.dataset_type: result for result in card.data.eval_results}
    assert results.keys() == {"gqa", "pope"}  # a part of a benchmark is no result to compare
    assert results["gqa"].metric_value == 60.46 and results["gqa"].metric_type == "accuracy"
    assert results["pope"].metric_type == "f1"
    assert card.data.model_name == "student-align-ti"
    assert "| GQA | 60.5 |" in card.text and "| mean | 72.3 |" in card.text
    assert "| MME (on about 100 of its questions) | 70.5 |" in card.text

    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "scores.json").write_text(json.dumps({"sqa": 1.0}))
    assert read_history(student, other).scores == {"sqa": 1.0}
    with pytest.raises(InputError, match="has no scores"):
        read_history(student, tmp_path / "nowhere")


def test_scores_of_other_weights_are_left_out(student, caplog):
    (student / "config.json").write_text("{}")
    (student / "model.safetensors").write_bytes(b"first weights")
    (student / "eval").mkdir()
    (student / "eval" / "scores.json").write_text(json.dumps({"gqa": 60.0, "pope": 80.0, "avg": 70.0}))
    settings = {"settings": {"weights": model_fingerprint(str(student))}}
    (student / "eval" / "gqa.json").write_text(json.dumps(settings))
    assert read_history(student).scores == {"gqa": 60.0, "pope": 80.0, "avg": 70.0}
    (student / "model.safetensors").write_bytes(b"other weights")
    assert read_history(student).scores == {"pope": 80.0}
    assert ": gqa" in caplog.text


def test_stages_are_followed_through_local_folders(student, tmp_path):
    last = run(tmp_path / "again", str(student), "more.json", model={"vision_tower": None})
    history = read_history(last)
    assert [stage.kind for stage in history.stages] == [
        "projector pretraining",
        "distillation",
        "supervised fine-tuning",
    ]
    assert history.base_model == "Qwen/Qwen2-0.5B"
    assert history.vision_tower == "google/siglip-so400m-patch14-384"


def test_a_run_that_names_itself_comes_to_an_end(tmp_path):
    run(tmp_path / "loop", str(tmp_path / "loop"), "data.json")
    assert 0 < len(read_history(tmp_path / "loop").stages) < 20


def test_local_names_stay_out_of_the_metadata(tmp_path):
    (tmp_path / "lm").mkdir()
    folder = run(tmp_path / "run", str(tmp_path / "lm"), "x.json", model={"vision_tower": "/models/siglip"})
    write_student_card(folder)
    card = ModelCard.load(folder / "README.md")
    assert "base_model" not in card.data.to_dict()
    assert "language model `lm`, vision tower `siglip`" in card.text
    assert str(tmp_path) not in card.content


def test_readme_of_somebody_else_stays(student, caplog):
    (student / "README.md").write_text("my own notes\n")
    write_student_card(student)
    assert (student / "README.md").read_text() == "my own notes\n"
    assert "is kept" in caplog.text


def test_own_card_is_replaced(student):
    write_student_card(student)
    (student / "eval").mkdir()
    (student / "eval" / "scores.json").write_text('{"gqa": 1.0}')
    write_student_card(student)
    assert "## Scores" in (student / "README.md").read_text()
    assert (student / "README.md").read_text().count(MARK) == 1


def test_a_card_never_ends_a_run(student, tmp_path, caplog, monkeypatch):
    (student / "trainer_state.json").write_text("not json")
    (student / "scores.json").write_text("[1]")
    write_student_card(student)
    assert (student / "README.md").exists()
    write_student_card(tmp_path / "no" / "such" / "folder")
    monkeypatch.setattr("llava.export.card.read_history", lambda folder: 1 / 0)
    write_student_card(student)
    assert "no model card was written" in caplog.text


def test_only_the_main_process_writes(student, monkeypatch):
    monkeypatch.setattr("llava.export.card.is_main_process", lambda: False)
    write_student_card(student)
    assert not (student / "README.md").exists()


def test_a_folder_without_history(tmp_path):
    write_card(tmp_path, read_history(tmp_path), usage="## Use\n\nSo.", name="x")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "transformers"
    assert "not recorded" in card.text and "## Training" not in card.text and "## Use" in card.text
