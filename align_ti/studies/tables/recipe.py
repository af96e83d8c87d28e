"""What decides how a student is made, so that another one is never taken for it.

It is read off the very command that ``scripts/distill`` would run, so that environment, preset and flags count alike.
Models and data are known by what is in them, wherever they lie.
"""

import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from align_ti.studies.common.provenance import REPOSITORY
from align_ti.studies.tables.catalogue import Run
from align_ti.studies.tables.trial import Trial
from llava.data.annotations.json_stream import split_paths
from llava.errors import InputError
from llava.eval.registry import BENCHMARKS

OF_THE_TRIAL = ("output_dir", "run_name", "seed", "resume")
"""Flags that the runner sets for each student."""

OF_THE_MACHINE = (
    "image_folder", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "use_cpu",
    "expected_processes", "deepspeed", "ddp_timeout", "teacher_zero3", "gradient_checkpointing", "compile_losses",
    "ribbon_backend", "logging_dir", "logging_steps", "save_steps", "save_total_limit", "save_strategy", "report_to",
)  # fmt: skip
"""Flags that change neither losses nor steps."""

OF_THE_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")
OF_THE_LENGTH = ("num_train_epochs", "max_steps")
MODELS = ("teacher_path", "model_name_or_path", "vision_tower", "pretrain_mm_mlp_adapter", "lora_weight_path")
WEIGHTS = ("*.safetensors", "mm_projector.bin", "non_lora_trainables.bin", "pytorch_model*.bin")
EVALUATION = ("benchmarks", "conv_mode", "held_out_data")


def recipe(trial: Trial, flags: Sequence[str] = (), held_out: Path | None = None) -> dict[str, str]:
    """How a trial's student would be made and evaluated now.

    Args:
        trial: of :func:`align_ti.studies.tables.trial.plan_trials`.
        flags: added to its training command.
        held_out: conversations for the cross-entropy, if that is asked for.

    Returns:
        The module that trains and its flags by name (the last one counts where one is given twice), but those of
        ``OF_THE_TRIAL`` and ``OF_THE_MACHINE``; ``batch``, samples a step over all processes; ``benchmarks``,
        ``conv_mode`` and ``held_out_data``, what the student is evaluated on. Data are given by a hash, models by
        :func:`weights`.

    Raises:
        InputError: the script refuses the settings, or a benchmark is not there.
    """
    made = read_command(training_command(trial.run, tuple(flags)))
    made["benchmarks"] = questions(REPOSITORY / (os.environ.get("EVAL_ROOT") or "playground/data/eval"))
    if os.environ.get("CONV_MODE"):
        made["conv_mode"] = os.environ["CONV_MODE"]
    if held_out is not None:
        made["held_out_data"] = fingerprint([held_out])
    return made


def training_command(run: Run, flags: tuple[str, ...] = ()) -> list[str]:
    """What ``scripts/distill`` would run for one sample a step on one device, whatever this machine has.

    Raises:
        InputError: the script refuses the settings.
    """
    one = {"NUM_GPUS": "0", "NUM_NODES": "1", "CPU_PROCESSES": "1", "LAUNCHER": "python", "PRINT_ONLY": "words"}
    one |= {"FINETUNE_PER_DEVICE": "1", "DISTILL_PER_DEVICE": "1", "DRY_RUN": ""}
    return _printed(run.script, (*run.flags, *flags), tuple({**os.environ, **run_environment(run), **one}.items()))


@cache
def _printed(script: str, flags: tuple[str, ...], environment: tuple[tuple[str, str], ...]) -> list[str]:
    command = ["bash", str(REPOSITORY / "scripts" / "distill" / f"{script}.sh"), *flags]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{shlex.join(command)} ended with status {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout.removesuffix("\0").split("\0")


def run_environment(run: Run) -> dict[str, str]:
    """What a run says to its script through the environment."""
    return {"DATA_SHARE": str(run.data_share), **({"TEACHER": run.teacher} if run.teacher else {})}


def read_command(command: Sequence[str]) -> dict[str, str]:
    """The recipe of a training command ``python -m MODULE --flag value ...``."""
    start = command.index("-m") + 1
    values: dict[str, list[str]] = {}
    name = "module"
    for word in command[start:]:
        if word.startswith("--"):
            name, (_, equals, value) = _flag(word), word.partition("=")
            values[name] = [value] if equals else []
        else:
            values.setdefault(name, []).append(word)
    made = {name: " ".join(words) or "True" for name, words in values.items()}
    per_device = int(made.pop("per_device_train_batch_size", "1"))
    made["batch"] = str(per_device * int(made.pop("gradient_accumulation_steps", "1")))
    for name in (*OF_THE_TRIAL, *OF_THE_MACHINE):
        made.pop(name, None)
    for name in MODELS:
        if name in made:
            made[name] = weights(REPOSITORY / made[name])
    if "data_path" in made:
        made["data_path"] = ", ".join(fingerprint([REPOSITORY / file]) for file in split_paths(made["data_path"]))
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
        InputError: one of them is not there.
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


def check_recipes(trials: Iterable[Trial], flags: Sequence[str] = (), held_out: Path | None = None) -> None:
    """Refuse folders that hold a student, finished or begun, that is made otherwise than it would be now.

    Args:
        trials: those with nothing in their folders pass.
        flags, held_out: as for :func:`recipe`.

    Raises:
        InputError: something of a recipe is different.
    """
    for trial in trials:
        found = trial.recipe()
        if found is not None:
            wanted = recipe(trial, flags, held_out)
            if "held_out_data" not in found:  # it was not asked for
                wanted.pop("held_out_data", None)
            _compare(trial, found, wanted)


def check_alike(trials: Sequence[Trial]) -> None:
    """Refuse to compare students that differ in more than their rows do, or that had another teacher than the present.

    Whatever flags they were trained with, and whatever they were evaluated on.

    Raises:
        InputError: two of them differ, or a teacher does.
    """
    taught = weights(Path(os.environ.get("TEACHER", "")))
    made = [(trial, found, read_command(training_command(trial.run))) for trial in trials if (found := trial.recipe())]
    for trial, found, wanted in made:
        _compare(trial, {"teacher_path": found.get("teacher_path", taught)}, {"teacher_path": taught})
        other, others, others_wanted = made[0]
        rows = differences(wanted, others_wanted)
        name = next((name for name in differences(found, others) if name not in (*rows, *EVALUATION)), None)
        if name is not None:
            raise InputError(
                f"{trial.folder} and {other.folder} hold students that cannot be compared: {name} is "
                f"{found.get(name, 'not set')!r} and {others.get(name, 'not set')!r}; set TABLES to a folder whose "
                "students were made alike, or remove one of them"
            )


def _compare(trial: Trial, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    different = differences(found, wanted)
    if different:
        name = different[0]
        raise InputError(
            f"{trial.folder} holds a student made otherwise: its {name} is {found.get(name, 'not set')!r}, now it "
            f"would be {wanted.get(name, 'not set')!r}; remove the folder to train it again, or set TABLES to "
            "another one"
        )


def check_flags(runs: Collection[Run], flags: Sequence[str]) -> None:
    """Refuse flags for all students that a row sets, since its label would no longer be true.

    Raises:
        InputError: there is one.
    """
    of_rows = {_flag(word) for run in runs for word in run.flags if word.startswith("--")}
    if any(run.data_share != 100 for run in runs):
        of_rows |= {*OF_THE_LENGTH}
    for word in flags:
        if word.startswith("--") and _flag(word) in {"losses", "teacher_path", *OF_THE_TRIAL, *of_rows}:
            raise InputError(f"{word} is set by the rows of this table; it cannot be given for all of them")
        if word.startswith("--") and _flag(word) in OF_THE_BATCH:
            raise InputError(
                f"{word} would change the global batch with the number of GPUs; set FINETUNE_BATCH (the global batch), "
                "or FINETUNE_PER_DEVICE and DISTILL_PER_DEVICE"
            )


def check_teacher(trial: Trial) -> None:
    """Refuse a teacher that is not there.

    Raises:
        InputError: it is not there.
    """
    teacher = trial.run.teacher
    if teacher and not Path(teacher).exists() and len(Path(teacher).parts) > 2:  # a hub's name has two parts
        raise InputError(f"the teacher {teacher} of {trial.name!r} is not there; train it with scripts/teacher/ first")


def _flag(word: str) -> str:
    """The name of a flag, however it is written: LLaVA's underscores, also as dashes."""
    return word[2:].partition("=")[0].replace("-", "_")
