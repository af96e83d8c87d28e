"""What decides how a student is made, so that another one is never taken for it.

It is the resolved recipe: pair and flags count alike. Models and data are known by what is in them, wherever they lie.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from align_ti.recipes.flags import parse_flags
from align_ti.recipes.resolve import Recipe
from align_ti.studies.common.provenance import REPOSITORY
from align_ti.studies.tables.runs import Run
from align_ti.studies.tables.setting import Setting
from align_ti.studies.tables.trial import Trial
from align_ti.training import train
from llava.data.annotations.json_stream import split_paths
from llava.errors import InputError
from llava.eval.registry import BENCHMARKS
from llava.train.run_record import FREE_TO_CHANGE

OF_THE_TRIAL = frozenset({"output_dir", "run_name", "seed", "resume"})
"""Flags that the runner sets for each student."""

OF_DISTILLATION = frozenset(train.FREE_TO_CHANGE)
"""Flags of distillation that change neither losses nor steps."""

OF_THE_LENGTH = ("num_train_epochs", "max_steps")
MODELS = ("teacher_path", "model_name_or_path", "vision_tower", "pretrain_mm_mlp_adapter", "lora_weight_path")
WEIGHTS = ("*.safetensors", "mm_projector.bin", "non_lora_trainables.bin", "pytorch_model*.bin")
EVALUATION = ("benchmarks", "conv_mode", "held_out_data")


def recipe(trial: Trial, setting: Setting, held_out: Path | None = None) -> dict[str, str]:
    """How a trial's student would be made and evaluated now.

    Args:
        trial: Trial of :func:`align_ti.studies.tables.trial.plan_trials`.
        setting: What it shares with the others.
        held_out: Conversations for the cross-entropy, if that is asked for.

    Returns:
        What :func:`made_by` says of its recipe; ``benchmarks``, ``conv_mode`` and ``held_out_data``: what the student
        is evaluated on.

    Raises:
        InputError: The settings are refused, or a benchmark is not there.
    """
    made = made_by(setting.recipe(trial.run))
    made["benchmarks"] = questions(setting.eval_root)
    if setting.places.text("eval_conv_mode"):
        made["conv_mode"] = setting.places.text("eval_conv_mode")
    if held_out is not None:
        made["held_out_data"] = fingerprint([held_out])
    return made


def made_by(found: Recipe) -> dict[str, str]:
    """What a recipe makes, whatever machine trains it.

    Returns:
        The module that trains and its flags by name, but those of ``OF_THE_TRIAL`` and those that change neither losses
        nor steps; ``batch``, samples a step over all processes. Data are given by a hash, models by :func:`weights`.
    """
    made = {"module": found.module} | {name: " ".join(words) or "True" for name, words in found.flags.items()}
    made["batch"] = str(found.global_batch)
    for name in OF_THE_TRIAL | FREE_TO_CHANGE | OF_DISTILLATION:
        made.pop(name, None)
    for name in MODELS:
        if name in made:
            made[name] = weights(Path(made[name]))
    if "data_path" in made:
        made["data_path"] = ", ".join(fingerprint([file]) for file in split_paths(made["data_path"]))
    return made


def weights(model: Path) -> str:
    """What a checkpoint is known by: a hash of its weights, wherever it lies; its name where there are none."""
    if model.suffix == ".bin":
        return fingerprint([model], "weights")
    files = [file for pattern in WEIGHTS for file in model.glob(pattern)]
    return fingerprint(files, "weights") if files else _name(model)


def fingerprint(files: Iterable[Path], kind: str = "content") -> str:
    """``KIND HASH`` of what is in files, in the order of their names; the path of one that is not there."""
    files = sorted(files)
    missing = [file for file in files if not file.is_file()]
    if missing:
        return _name(missing[0])
    return f"{kind} {_hash(tuple((file, file.stat().st_mtime_ns) for file in files))}"


def _name(path: Path) -> str:
    """A path inside the repository from there; that is also the name of a model of the hub."""
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)


@cache
def _hash(files: tuple[tuple[Path, int], ...]) -> str:
    whole = hashlib.sha256()
    for file, _ in files:
        with open(file, "rb") as content:
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()[:12]


@cache
def questions(root: Path) -> str:
    """What the benchmarks below an evaluation root are known by: a hash of all questions and expected answers.

    Raises:
        InputError: One of them is not there.
    """
    whole = hashlib.sha256()
    for benchmark in BENCHMARKS.values():
        for question in benchmark.load(*benchmark.find(root)):
            asked = [benchmark.name, question.question_id, question.text, question.gold]
            whole.update(json.dumps(asked, sort_keys=True, default=str).encode())
    return f"questions {whole.hexdigest()[:12]}"


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Names of what is not the same in two recipes; what students are evaluated on counts where it is wanted alone."""
    names = [*wanted, *(name for name in found if name not in wanted and name not in EVALUATION)]
    return [name for name in names if found.get(name) != wanted.get(name)]


def check_recipes(trials: Iterable[Trial], setting: Setting, held_out: Path | None = None) -> None:
    """Refuse folders whose student, finished or begun, was trained with other settings than it would be now.

    Args:
        trials: Those with nothing in their folders pass.
        setting, held_out: As for :func:`recipe`.

    Raises:
        InputError: Something of a recipe is different.
    """
    for trial in trials:
        found = trial.recipe()
        if found is not None:
            wanted = recipe(trial, setting, held_out)
            if "held_out_data" not in found:  # it was not asked for
                wanted.pop("held_out_data", None)
            _compare(trial, found, wanted)


def check_alike(trials: Sequence[Trial], setting: Setting) -> None:
    """Refuse to compare students that differ in more than their rows do, or that had another teacher than the present.

    Whatever flags they were trained with, and whatever they were evaluated on.

    Raises:
        InputError: Two of them differ, or a teacher does.
    """
    taught = weights(Path(setting.teacher))
    made = [(trial, found, made_by(setting.recipe(trial.run))) for trial in trials if (found := trial.recipe())]
    for trial, found, wanted in made:
        _compare(trial, {"teacher_path": found.get("teacher_path", taught)}, {"teacher_path": taught})
        other, others, others_wanted = made[0]
        rows = differences(wanted, others_wanted)
        name = next((name for name in differences(found, others) if name not in (*rows, *EVALUATION)), None)
        if name is not None:
            raise InputError(
                f"{trial.folder} and {other.folder} hold students that cannot be compared: {name} is "
                f"{found.get(name, 'not set')!r} and {others.get(name, 'not set')!r}; name a folder with --folder "
                "whose students were made alike, or remove one of them"
            )


def _compare(trial: Trial, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    different = differences(found, wanted)
    if different:
        name = different[0]
        raise InputError(
            f"{trial.folder} holds a student made otherwise: its {name} is {found.get(name, 'not set')!r}, now it "
            f"would be {wanted.get(name, 'not set')!r}; remove the folder to train it again, or "
            "name another one with --folder"
        )


def check_flags(runs: Collection[Run], flags: Sequence[str]) -> None:
    """Refuse flags for all students that a row sets, since its label would no longer be true.

    Raises:
        InputError: There is one.
    """
    of_rows = {name for run in runs for name in parse_flags(run.flags)}
    if any(run.teacher for run in runs):
        of_rows.add("teacher_path")
    if any(run.data_share != 100 for run in runs):
        of_rows |= {*OF_THE_LENGTH}
    for name in parse_flags(flags):
        if name in {"losses", "data_share", *OF_THE_TRIAL, *of_rows}:
            raise InputError(f"--{name} is set by the rows of this table; it cannot be given for all of them")
        if name == "gradient_accumulation_steps":
            raise InputError(
                f"--{name} would change the global batch with the number of GPUs; give --global_batch, or "
                "--per_device_train_batch_size"
            )


def check_teacher(trial: Trial) -> None:
    """Refuse a teacher that is not there.

    Raises:
        InputError: It is not there.
    """
    teacher = trial.run.teacher
    if teacher and not Path(teacher).exists() and len(Path(teacher).parts) > 2:  # a hub's name has two parts
        raise InputError(f"the teacher {teacher} of {trial.name!r} is not there; train it with scripts/teacher/ first")
