"""Check that a run prepares images and prompts as in the teacher's own training.

A batch is made once, with the student's settings, and both models read it. Almost everything is known from
configurations, before any model is loaded.
"""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from llava.conversation import Template, get_template
from llava.data.images import ASPECT_RATIOS, preprocess_image
from llava.errors import InputError
from llava.model.builder import read_checkpoint_config
from llava.model.config import OPTIONAL_TOWERS
from llava.model.protocol import VisionLanguageModel, vision_tower_of
from llava.model.vision_tower.hf import read_image_processor, resolve_tower
from llava.model.vision_tower.processors import ImageProcessor, pixel_difference, processor_settings
from llava.model.zero import is_main_process
from llava.train.arguments import DataArguments, ModelArguments
from llava.train.setup import read_model_config
from llava.train.tower import chosen_tower

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Input:
    """How samples are prepared for a model.

    Attributes:
        template: Name of the prompt template; None if a checkpoint does not record it.
        aspect_ratio: ``pad`` or ``square``; None if a checkpoint does not record it.
        tower: Name or absolute path of the vision tower.
        processor: The tower's image processor; None if the tower must be loaded to know it (timm, open_clip).
    """

    template: str | None
    aspect_ratio: str | None
    tower: str
    processor: ImageProcessor | None = None


def input_of_teacher(path: str) -> Input:
    """How samples were prepared in the training of a checkpoint; no weights are read.

    Raises:
        InputError: It is not a LLaVA-style checkpoint, or its vision tower does not exist.
    """
    settings = read_checkpoint_config(path)
    tower, processor = _tower(settings["mm_vision_tower"], path)
    return Input(settings.get("mm_template"), settings.get("image_aspect_ratio"), tower, processor)


def input_of_run(model_arguments: ModelArguments, data_arguments: DataArguments) -> Input:
    """How a run prepares samples; no weights are read.

    Raises:
        InputError: The template is unknown, or the vision tower is not named or does not exist.
    """
    get_template(model_arguments.version)
    path = model_arguments.model_name_or_path
    tower, processor = _tower(chosen_tower(model_arguments, read_model_config(path)), path)
    return Input(model_arguments.version, data_arguments.image_aspect_ratio, tower, processor)


def _tower(name: str, checkpoint: str) -> tuple[str, Any]:
    """A tower's absolute path or name, and its image processor if that is known without loading the tower."""
    if name.startswith(OPTIONAL_TOWERS):
        return name, None
    place = resolve_tower(name, checkpoint)
    return place, read_image_processor(place)


def check_input(run: Input, teacher: Input, path: str, allow: bool = False) -> None:
    """Reject a teacher whose training used different image preprocessing or another prompt than the run's batches.

    Settings that the teacher's checkpoint does not record are assumed to be those of the run, with a warning.

    Args:
        run: How the batches are prepared.
        teacher: How the teacher's training samples were prepared.
        path: Path of the teacher, for messages.
        allow: Warn about a mismatch instead of raising.

    Raises:
        InputError: There is a mismatch; the message has both values and what to do. If the teacher's tower takes
            images of another size, it is raised even with ``allow``.
    """
    _warn_of_what_is_unknown(run, teacher, path)
    problems = [_template_problem(run, teacher), _aspect_problem(run, teacher), _processor_problem(run, teacher)]
    found = "; ".join(problem for problem in problems if problem)
    if not found:
        return
    message = f"the teacher {path} was tuned with different input than this run's batches: {found}"
    if _sizes_differ(run, teacher):
        raise InputError(f"{message}. Its tower cannot read images of another size")
    if not allow:
        raise InputError(f"{message}. To train anyway, pass --allow_teacher_mismatch True")
    if is_main_process():
        logger.warning("%s. Training anyway (--allow_teacher_mismatch): expect worse targets", message)


def check_loaded_processors(
    student: VisionLanguageModel, teacher: VisionLanguageModel, run: Input, of_teacher: Input, path: str, allow: bool
) -> None:
    """The rest of :func:`check_input` for towers that must be loaded to know their image processor (timm, open_clip).

    Raises:
        InputError: As in :func:`check_input`.
    """
    if run.processor is not None and of_teacher.processor is not None:
        return
    one, other = (vision_tower_of(model).image_processor for model in (student, teacher))
    aspect = run.aspect_ratio
    check_input(Input(None, aspect, run.tower, one), Input(None, aspect, of_teacher.tower, other), path, allow)


def _warn_of_what_is_unknown(run: Input, teacher: Input, path: str) -> None:
    unknown = {
        "prompt template (mm_template)": (teacher.template, run.template, "--version"),
        "image_aspect_ratio": (teacher.aspect_ratio, run.aspect_ratio, "--image_aspect_ratio"),
    }
    for what, (theirs, ours, flag) in unknown.items():
        if theirs is None and ours is not None and is_main_process():
            logger.warning(
                "the config.json of the teacher %s does not say its %s: it is assumed to be this run's, %s %s. Check "
                "it, and write it there; a teacher that was tuned on another gives worse targets",
                path,
                what,
                flag,
                ours,
            )


def _template(name: str) -> Template | None:
    try:
        return get_template(name)
    except InputError:
        return None


def _template_problem(run: Input, teacher: Input) -> str | None:
    if run.template is None or teacher.template is None or teacher.template == run.template:
        return None
    theirs = _template(teacher.template)
    if theirs is not None and theirs == _template(run.template):
        return None
    advice = f"give --version {teacher.template}" if theirs else "this package has no such template"
    return f"its prompt template is {teacher.template!r}, this run's --version is {run.template!r} ({advice})"


def _aspect_problem(run: Input, teacher: Input) -> str | None:
    ours, theirs = run.aspect_ratio or "square", teacher.aspect_ratio or run.aspect_ratio or "square"
    if ours == theirs:
        return None
    advice = f"give --image_aspect_ratio {theirs}" if theirs in ASPECT_RATIOS else "this package has no such way"
    return f"its image_aspect_ratio is {theirs!r}, this run's {ours!r} ({advice})"


def _processor_problem(run: Input, teacher: Input) -> str | None:
    """Compared on images, as this run prepares them: other settings may give the same pixels."""
    if run.processor is None or teacher.processor is None:
        return None
    ways = (
        partial(preprocess_image, processor=processor, aspect_ratio=run.aspect_ratio)
        for processor in (run.processor, teacher.processor)
    )
    difference = pixel_difference(*ways)
    if difference is None:
        return None
    ours, theirs = processor_settings(run.processor), processor_settings(teacher.processor)
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    settings = ", ".join(f"{key} {theirs.get(key)} in the teacher's and {ours.get(key)} in this run's" for key in keys)
    return (
        f"its image processor (vision tower {teacher.tower!r}) and this run's ({run.tower!r}) give other pixels for an "
        f"image of {difference}: {settings or 'their classes differ'} (give --vision_tower {teacher.tower})"
    )


def _sizes_differ(run: Input, teacher: Input) -> bool:
    if run.processor is None or teacher.processor is None:
        return False
    square = Image.new("RGB", (32, 32))
    ours, theirs = (
        preprocess_image(square, processor, run.aspect_ratio).shape for processor in (run.processor, teacher.processor)
    )
    return ours != theirs
