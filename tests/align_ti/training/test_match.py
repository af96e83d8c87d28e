"""A teacher that was tuned on other images or another prompt is refused before any weight is read."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from align_ti.training.match import Input, check_input, check_loaded_processors
from llava.data.images import preprocess_image
from llava.errors import InputError
from llava.export.from_hf import import_from_hf
from llava.export.to_hf import export_to_hf
from tests.runs import COMMON, steps
from tests.two_processes import two_processes

FLAGS = ("--per_device_train_batch_size", "8", "--max_steps", "1", "--iva_layer", "1")
SIZE = {"height": 32, "width": 32}


@pytest.fixture
def teacher(tuned_teacher, tmp_path) -> Path:
    """A copy to change; tuned with ``qwen`` and ``square``."""
    return Path(shutil.copytree(tuned_teacher, tmp_path / "teacher"))


def edit(folder: Path, **changes) -> None:
    settings = json.loads((folder / "config.json").read_text()) | changes
    settings = {key: value for key, value in settings.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(settings))


def check(run, teacher: Path, out: Path, message: str, caplog, *flags: str) -> None:
    """Refused without the weights; with them and the flag, trained with a warning."""
    flags = ("--teacher_path", str(teacher), *FLAGS, *flags)
    weights = teacher / "model.safetensors"
    aside = shutil.move(weights, weights.with_suffix(".aside"))
    with pytest.raises(InputError, match=f"(?s)the teacher {teacher} .*{message}.*--allow_teacher_mismatch True"):
        run(out, *flags)
    assert not (out / "run_config.json").exists(), "nothing has begun"
    shutil.move(aside, weights)
    caplog.clear()
    assert steps(run(out, *flags, "--allow_teacher_mismatch", "True"), "kd")
    (warning,) = [entry for entry in caplog.records if "allow_teacher_mismatch" in entry.message]
    assert warning.levelno == logging.WARNING and str(teacher) in warning.message


def test_another_prompt(run, teacher, tmp_path, caplog):
    message = "its prompt template is 'qwen', this run's --version is 'v1' \\(give --version qwen\\)"
    check(run, teacher, tmp_path / "a", message, caplog, "--version", "v1")
    edit(teacher, mm_template="of my own")
    message = "template is 'of my own', this run's --version is 'qwen' \\(this package has no such template\\)"
    check(run, teacher, tmp_path / "b", message, caplog)
    edit(teacher, mm_template="chatml")  # another name of the same template
    caplog.clear()
    run(tmp_path / "c", "--teacher_path", str(teacher), "--version", "qwen_2", *FLAGS)
    assert "mismatch" not in caplog.text and "does not say" not in caplog.text
    again = ("--version", "qwen_2", *FLAGS, "--allow_teacher_mismatch", "True")  # no other run than before
    assert run(tmp_path / "c", "--teacher_path", str(teacher), *again)


def test_another_aspect_ratio(run, teacher, tmp_path, caplog):
    message = "its image_aspect_ratio is 'square', this run's 'pad' \\(give --image_aspect_ratio square\\)"
    check(run, teacher, tmp_path / "a", message, caplog, "--image_aspect_ratio", "pad")
    edit(teacher, image_aspect_ratio="anyres")
    check(run, teacher, tmp_path / "b", "'anyres', this run's 'square' \\(this package has no such way\\)", caplog)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_mean": [0.1, 0.2, 0.3]}, "image_mean \\[0.1, 0.2, 0.3\\] in the teacher's and \\[0.5, 0.5, 0.5\\] in"),
        ({"image_std": [0.2, 0.2, 0.2]}, "image_std \\[0.2, 0.2, 0.2\\] in the teacher's"),
        ({"resample": 2}, "resample 2 in the teacher's and 3 in this run's"),
        ({"do_rescale": False}, "do_rescale False in the teacher's and True in this run's"),
    ],
)
def test_another_image_processor(run, teacher, world, tmp_path, caplog, settings, message):
    """The teacher has its tower's processor in its own folder; the student's batches are made with another."""
    SiglipImageProcessorPil(**{"size": SIZE, **settings}).save_pretrained(teacher / "vision_tower")
    both = f"vision tower '{teacher}/vision_tower'.*this run's \\('{world.tower}'\\).*{message}"
    check(run, teacher, tmp_path / "run", f"{both}.*give --vision_tower {teacher}/vision_tower", caplog)


def test_images_of_another_size_cannot_be_allowed(run, teacher, tmp_path):
    SiglipImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(teacher / "vision_tower")
    flags = ("--teacher_path", str(teacher), *FLAGS, "--allow_teacher_mismatch", "True")
    with pytest.raises(InputError, match="\\[3, 32, 32\\] here, \\[3, 48, 48\\] there.*cannot read images of another"):
        run(tmp_path / "run", *flags)


def test_the_pixels_decide_not_the_settings():
    """CLIP's shorter side and crop give a square's pixels if images are padded first, and others if not."""
    crops = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIZE)
    plain = SiglipImageProcessorPil(size=SIZE, image_mean=list(crops.image_mean), image_std=list(crops.image_std))
    picture = Image.radial_gradient("L").convert("RGB").resize((60, 40))
    for aspect in ("pad", "square"):
        one, other = (Input("qwen", aspect, name, made) for name, made in (("a", crops), ("b", plain)))
        same = preprocess_image(picture, crops, aspect).equal(preprocess_image(picture, plain, aspect))
        assert same == (aspect == "pad")
        if same:
            check_input(one, other, "teacher")
            continue
        with pytest.raises(InputError, match="size {'height': 32, 'width': 32} in the teacher's and {'shortest_edge'"):
            check_input(one, other, "teacher")


def test_towers_that_tell_their_processor_only_when_loaded(caplog):
    """timm's and open_clip's: nothing is said before, everything after."""
    ours, theirs = (SiglipImageProcessorPil(size=SIZE, image_mean=[mean] * 3) for mean in (0.5, 0.4))
    before = Input("qwen", "pad", "timm:a"), Input("qwen", "pad", "timm:b")
    check_input(*before, "teacher")

    def model(processor):
        return SimpleNamespace(get_vision_tower=lambda: SimpleNamespace(image_processor=processor))

    check_loaded_processors(model(ours), model(ours), *before, "teacher", False)
    with pytest.raises(InputError, match="'timm:b'.*'timm:a'.*image_mean \\[0.4, 0.4, 0.4\\] in the teacher's"):
        check_loaded_processors(model(ours), model(theirs), *before, "teacher", False)
    check_loaded_processors(model(ours), model(theirs), *before, "teacher", True)
    assert "Training anyway" in caplog.text and "does not say" not in caplog.text


@pytest.mark.timeout(300)
def test_what_the_teacher_does_not_say_is_warned_of_once(world, teacher, tmp_path):
    edit(teacher, mm_template=..., image_aspect_ratio=...)
    log = two_processes(
        "align_ti.training.train", "--teacher_path", str(teacher), "--model_name_or_path", str(world.student_lm),
        "--vision_tower", str(world.tower), *COMMON, "--data_path", str(world.data), "--image_folder",
        str(world.images), "--output_dir", str(tmp_path / "run"), *FLAGS,
    )  # fmt: skip
    for text in ("does not say its prompt template (mm_template)", "does not say its image_aspect_ratio"):
        (line,) = [line for line in log.splitlines() if text in line]
        assert str(teacher) in line
    assert "assumed to be this run's, --version qwen" in log
    assert "assumed to be this run's, --image_aspect_ratio square" in log


def test_an_imported_teacher(run, teacher, world, tmp_path, caplog):
    """From transformers' form, which the command refuses with the way to import it."""
    export_to_hf(str(teacher), tmp_path / "hf")
    command = f"python -m llava.export --from hf --model_path {tmp_path}/hf --output FOLDER"
    for flag in ("--teacher_path", "--model_name_or_path"):
        with pytest.raises(InputError, match=f"{tmp_path}/hf is a LLaVA checkpoint in transformers' format.*{command}"):
            run(tmp_path / "run", *FLAGS, flag, str(tmp_path / "hf"))
    import_from_hf(str(tmp_path / "hf"), tmp_path / "imported")
    flags = ("--teacher_path", str(tmp_path / "imported"), *FLAGS)
    with pytest.raises(InputError, match="its image_aspect_ratio is 'square', this run's 'pad'"):
        run(tmp_path / "run", *flags, "--image_aspect_ratio", "pad")
    caplog.set_level(logging.INFO)
    assert steps(run(tmp_path / "run", *flags), "kd")
    assert "share one vision tower" in caplog.text
