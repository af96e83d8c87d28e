"""``run_config.json``: the settings of a run, and whether a command describes the same run.

A run is resumed only by a command that would train the same model. Settings that may change are listed in one place,
``FREE_TO_CHANGE``; all others must be the same.
"""

import dataclasses
import json
import platform
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from llava.errors import InputError
from llava.files import file_sha256, model_fingerprint, write_json
from llava.model.vision_tower.keep import tower_fingerprint

RECORD_FILE = "run_config.json"
HERE = Path(__file__).resolve().parent

FREE_TO_CHANGE = frozenset(
    # output and logging
    "output_dir run_name project report_to disable_tqdm log_level log_level_replica log_on_each_node logging_dir "
    "logging_first_step logging_nan_inf_filter logging_steps logging_strategy include_num_input_tokens_seen debug "
    "skip_memory_metrics trackio_space_id trackio_bucket_id trackio_static_space_id "
    # checkpoints and evaluation
    "save_on_each_node save_only_model save_steps save_strategy save_total_limit enable_jit_checkpoint resume "
    "resume_from_checkpoint restore_callback_states_from_checkpoint do_train do_eval do_predict eval_strategy "
    "eval_steps eval_delay eval_on_start eval_accumulation_steps eval_do_concat_batches eval_use_gather_object "
    "per_device_eval_batch_size prediction_loss_only batch_eval_metrics include_for_metrics bf16_full_eval "
    "fp16_full_eval eval_data_path eval_benchmarks eval_benchmark_root eval_benchmark_limit push_to_hub hub_model_id "
    "hub_strategy hub_private_repo hub_always_push hub_revision "
    # devices and memory; `global_batch` takes the place of the first three
    "per_device_train_batch_size gradient_accumulation_steps processes expected_processes local_rank use_cpu "
    "deepspeed fsdp fsdp_config ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb ddp_find_unused_parameters "
    "ddp_static_graph ddp_timeout accelerator_config parallelism_config torch_empty_cache_steps "
    "activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs "
    "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor "
    "max_tokens_per_batch dataloader_in_order dataloader_multiprocessing_context "
    # kernels, and settings that affect only rounding
    "attn_implementation tf32 torch_compile torch_compile_backend torch_compile_mode use_liger_kernel "
    "liger_kernel_config fuse_layers "
    # paths (models and data are compared by content), and flags without effect
    "image_folder lazy_preprocess is_multimodal mm_use_im_patch_token".split()
)
"""Settings that a resumed run may change: they affect neither the losses (except for rounding) nor the steps."""

DERIVED = frozenset({"warmup_ratio"})
"""Settings that only set another one, which is compared instead (``warmup_ratio`` sets ``warmup_steps``)."""

CONTENTS = (
    "model_name_or_path",
    "teacher_path",
    "vision_tower",
    "pretrain_mm_mlp_adapter",
    "lora_weight_path",
    "data_path",
)
"""Settings that name files; they are compared by content, wherever the files are."""

SECRETS = ("hub_token",)


@dataclasses.dataclass(frozen=True)
class Difference:
    """A setting that differs between a run and a command."""

    name: str
    found: object
    asked: object

    def __str__(self) -> str:
        return f"{self.name} was {self.found}, now it is {self.asked}"


def describe_run(processes: int, **groups: Any) -> dict[str, Any]:
    """The record of a run that starts now.

    Args:
        processes: Number of training processes.
        groups: Named dataclass instances (the parsed arguments) or dictionaries.

    Returns:
        The content of ``run_config.json``: command, versions, commit, settings by group, global batch, and hashes of
            the files of ``CONTENTS``.
    """
    record: dict[str, Any] = {
        "stage": "distillation" if "distill" in groups else "supervised",
        "command": sys.argv,
        "commit": code_commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    for name, group in groups.items():
        if dataclasses.is_dataclass(group) and not isinstance(group, type):
            fields = {field.name: getattr(group, field.name) for field in dataclasses.fields(group)}
            record[name] = {key: _plain(value) for key, value in fields.items() if key not in SECRETS}
        else:
            record[name] = _plain(group)
    settings = dict(_settings(record))
    # A run may resume on other devices if a step trains on the same number of samples.
    per_device = settings.get("per_device_train_batch_size")
    if per_device is not None:
        record["global_batch"] = per_device * settings.get("gradient_accumulation_steps", 1) * processes
    record["processes"] = processes
    record["contents"] = {name: contents(str(settings[name])) for name in CONTENTS if settings.get(name)}
    tower = settings.get("vision_tower")
    if tower and Path(tower).is_dir():  # the run's own copy represents the tower
        record["contents"]["vision_tower"] = f"weights {tower_fingerprint(tower)}"
    return record


def write_record(folder: str | Path, record: Mapping[str, Any]) -> Path:
    """Write ``run_config.json`` to a run's folder, which is created if missing; returns the file."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RECORD_FILE
    write_json(path, record, indent=2)
    return path


def read_record(folder: str | Path) -> dict[str, Any] | None:
    """The record in a run's folder; None without one.

    Raises:
        InputError: The file cannot be read.
    """
    path = Path(folder) / RECORD_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); move it away, or choose another --output_dir") from error
    return dict(found)


def resumed(record: dict[str, Any], now: Mapping[str, Any], checkpoint: str) -> dict[str, Any]:
    """The record of a resumed run: the earlier record, with the time, command and checkpoint of the resumption."""
    entry = {
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "checkpoint": checkpoint,
        **{key: now[key] for key in ("command", "commit", "versions", "processes")},
    }
    return {**record, "resumed": [*record.get("resumed", []), entry]}


def defaults_of(**groups: Any) -> dict[str, Any]:
    """Defaults of all settings that have one, for records older than a setting."""
    return {
        field.name: _plain(field.default)
        for group in groups.values()
        if dataclasses.is_dataclass(group)
        for field in dataclasses.fields(group)
        if field.default is not dataclasses.MISSING
    }


def differences(
    record: Mapping[str, Any],
    asked: Mapping[str, Any],
    also_free: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> list[Difference]:
    """Settings of a command that differ from those of the run in a folder.

    Args:
        record: Record of the run, from ``read_record``.
        asked: Record of the command, from ``describe_run``.
        also_free: Further settings that may change.
        defaults: See ``defaults_of``; a setting that is in neither record nor defaults counts as unchanged.
    """
    out = []
    for name in ("stage", "global_batch"):
        if name in record and record[name] != asked.get(name):
            out.append(Difference(name, record[name], asked.get(name)))
    found, wanted = dict(_settings(record)), dict(_settings(asked))
    for name in sorted(wanted.keys() - FREE_TO_CHANGE - DERIVED - set(also_free) - set(SECRETS)):
        now = wanted[name]
        # A run whose record is older than a setting used the setting's default.
        before = found.get(name, (defaults or {}).get(name, now))
        # Files are compared by content: data or a tower may have moved, or changed under the same path. If the content
        # of one is unknown, the paths decide.
        held, holds = (about.get("contents", {}).get(name) for about in (record, asked))
        if (before == now) if held is None or holds is None else (held == holds):
            continue
        if before == now:
            before, now = f"{before} ({held})", f"the same path with different content ({holds})"
        out.append(Difference(name, before, now))
    return out


def contents(path: str) -> str:
    """Content of a model or data setting: a hash of the files (several data files separated by commas), or the hub name
    itself."""
    parts = [part.strip() for part in path.split(",") if part.strip()]
    return ", ".join(_contents_of(part) for part in parts)


def _contents_of(path: str) -> str:
    place = Path(path)
    if place.is_file():
        return f"sha256 {file_sha256(place)[:16]}"
    return f"weights {model_fingerprint(path)}" if place.is_dir() else path


def _settings(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values of all settings in a record."""
    for group in ("model", "data", "training", "distill"):
        found = record.get(group)
        if isinstance(found, Mapping):
            yield from found.items()


def _plain(value: object) -> Any:
    """A value converted to plain JSON types."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    return str(value)


def code_commit(folder: Path = HERE) -> str | None:
    """The commit of the checkout that contains ``folder`` (the running code); None if there is none.

    It ends in ``-dirty`` if files were changed, except in ``docs/``, where results are written.
    """

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10)

    try:
        commit = git("describe", "--always")
        changed = git("diff", "--quiet", "HEAD", "--", ":/", ":(exclude,top)docs")
    except (OSError, subprocess.SubprocessError):
        return None
    if commit.returncode:
        return None
    return commit.stdout.strip() + ("-dirty" if changed.returncode else "")
