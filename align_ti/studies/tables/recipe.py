"""The recipe of a student, by which it is never confused with a student trained with different settings.

It is the resolved recipe: it does not matter whether a value comes from the pair or from a flag. Models and data are
identified by their content, wherever the files are.
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
"""Flags of distillation that affect neither losses nor steps."""

OF_THE_LENGTH = ("num_train_epochs", "max_steps")
MODELS = ("teacher_path", "model_name_or_path", "vision_tower", "pretrain_mm_mlp_adapter", "lora_weight_path")
WEIGHTS = ("*.safetensors", "mm_projector.bin", "non_lora_trainables.bin", "pytorch_model*.bin")
EVALUATION = ("benchmarks", "conv_mode", "held_out_data")


def recipe(trial: Trial, setting: Setting, held_out: Path | None = None) -> dict[str, str]:
    """The recipe with which a trial's student would be trained and evaluated now.

    Args:
        trial: Trial of :func:`align_ti.studies.tables.trial.plan_trials`.
        setting: Settings that the students share.
        held_out: Conversations for the cross-entropy, if it is measured.

    Returns:
        The result of :func:`made_by`, and ``benchmarks``, ``conv_mode`` and ``held_out_data``, which describe the
        evaluation.

    Raises:
        InputError: The settings are invalid, or a benchmark is missing.
    """
    made = made_by(setting.recipe(trial.run))
    made["benchmarks"] = questions(setting.eval_root)
    if setting.places.text("eval_conv_mode"):
        made["conv_mode"] = setting.places.text("eval_conv_mode")
    if held_out is not None:
        made["held_out_data"] = fingerprint([held_out])
    return made


def made_by(found: Recipe) -> dict[str, str]:
    """The part of a recipe that determines the student, independent of the machine.

    Returns:
        The training module and its flags by name, except those of ``OF_THE_TRIAL`` and those that affect neither losses
        nor steps; and ``batch``, the number of samples per step over all processes. Data is represented by a hash,
        models by :func:`weights`.
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
    """Identity of a checkpoint: a hash of its weights, or its name if there are no weight files."""
    if model.suffix == ".bin":
        return fingerprint([model], "weights")
    files = [file for pattern in WEIGHTS for file in model.glob(pattern)]
    return fingerprint(files, "weights") if files else _name(model)


def fingerprint(files: Iterable[Path], kind: str = "content") -> str:
    """``KIND HASH`` of the content of files, in the order of their names; if one is missing, its path."""
    files = sorted(files)
    missing = [file for file in files if not file.is_file()]
    if missing:
        return _name(missing[0])
    return f"{kind} {_hash(tuple((file, file.stat().st_mtime_ns) for file in files))}"


def _name(path: Path) -> str:
    """A path, relative to the repository if it is inside; the name of a model on the hub is unchanged."""
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
    """Identity of the benchmarks in an evaluation root: a hash of all questions and expected answers.

    Raises:
        InputError: A benchmark is missing.
    """
    whole = hashlib.sha256()
    for benchmark in BENCHMARKS.values():
        for question in benchmark.load(*benchmark.find(root)):
            asked = [benchmark.name, question.question_id, question.text, question.gold]
            whole.update(json.dumps(asked, sort_keys=True, default=str).encode())
    return f"questions {whole.hexdigest()[:12]}"


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Names of entries that differ between two recipes; those of the evaluation count only if ``wanted`` has them."""
    names = [*wanted, *(name for name in found if name not in wanted and name not in EVALUATION)]
    return [name for name in names if found.get(name) != wanted.get(name)]


def check_recipes(trials: Iterable[Trial], setting: Setting, held_out: Path | None = None) -> None:
    """Reject folders whose student, finished or started, was trained with different settings.

    Args:
        trials: The trials; those with empty folders pass.
        setting, held_out: As for :func:`recipe`.

    Raises:
        InputError: A recipe differs from the current one.
    """
    for trial in trials:
        found = trial.recipe()
        if found is not None:
            wanted = recipe(trial, setting, held_out)
            if "held_out_data" not in found:  # the cross-entropy was not measured
                wanted.pop("held_out_data", None)
            _compare(trial, found, wanted)


def check_alike(trials: Sequence[Trial], setting: Setting) -> None:
    """Reject students that differ in more than their rows do, or whose teacher is not the current one.

    Flags that all students share, and what they were evaluated on, do not matter.

    Raises:
        InputError: Two students or a teacher differ.
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
                f"the students in {trial.folder} and {other.folder} cannot be compared: {name} is "
                f"{found.get(name, 'not set')!r} and {others.get(name, 'not set')!r}; with --folder, name a folder "
                "whose students were trained with the same settings, or remove one of them"
            )


def _compare(trial: Trial, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    different = differences(found, wanted)
    if different:
        name = different[0]
        raise InputError(
            f"the student in {trial.folder} was trained with different settings: its {name} is "
            f"{found.get(name, 'not set')!r}, now it would be {wanted.get(name, 'not set')!r}; remove the folder to "
            "train it again, or name another one with --folder"
        )


def check_flags(runs: Collection[Run], flags: Sequence[str]) -> None:
    """Reject flags for all students that a row of the table sets itself, since its label would become wrong.

    Raises:
        InputError: There is such a flag.
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
    """Reject a teacher that does not exist.

    Raises:
        InputError: It does not exist.
    """
    teacher = trial.run.teacher
    if teacher and not Path(teacher).exists() and len(Path(teacher).parts) > 2:  # a name on the hub has two parts
        raise InputError(
            f"the teacher {teacher} of {trial.name!r} does not exist; train it with scripts/teacher/ first"
        )
