"""What a run leaves in its folder: the resolved configuration, and checkpoints to resume from."""

import dataclasses
import json
import logging
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from llava.errors import InputError

logger = logging.getLogger(__name__)


def _plain(value: Any) -> Any:
    """Anything as something JSON can hold."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    return str(value)


HERE = Path(__file__).resolve().parent


def code_commit(folder: Path = HERE) -> str | None:
    """The commit of the checkout that ``folder`` (where the code runs from) is in; None if it is in none.

    It ends in ``-dirty`` where files were changed, those of ``docs/`` aside: results are written there.
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


def write_run_config(output_dir: str | Path, **groups: Any) -> Path:
    """Write the resolved configuration of a run to ``run_config.json``.

    Args:
        output_dir: the run's folder; made if absent.
        groups: named dataclass instances (the parsed arguments) or dictionaries.

    Returns:
        The file written. It also holds the command line, the versions of the main packages and the commit.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
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
            record[name] = {key: _plain(value) for key, value in fields.items() if "token" not in key}
        else:
            record[name] = _plain(group)
    path = folder / "run_config.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def _is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end (the trainer state is written last)."""
    state = checkpoint / "trainer_state.json"
    try:
        json.loads(state.read_text())
    except (OSError, ValueError):
        return False
    weights = ("*.safetensors", "*.bin", "global_step*")
    return any(any(checkpoint.glob(pattern)) for pattern in weights)


def find_checkpoint(output_dir: str | Path, resume: str) -> str | None:
    """The checkpoint to resume from.

    Args:
        output_dir: the run's folder, with ``checkpoint-STEP`` folders.
        resume: ``auto`` (newest whole checkpoint, if any), ``never``, or the folder of a checkpoint.

    Returns:
        The folder, or None to start from the beginning. Checkpoints cut short by a kill are passed over with a warning.

    Raises:
        InputError: if the folder asked for is not a whole checkpoint.
    """
    if resume == "never":
        return None
    if resume != "auto":
        if not _is_whole(Path(resume)):
            raise InputError(
                f"--resume {resume}: not a whole checkpoint (trainer_state.json and weights expected there)"
            )
        return resume
    numbered = []
    for folder in Path(output_dir).glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", folder.name)
        if match and folder.is_dir():
            numbered.append((int(match[1]), folder))
    for _, folder in sorted(numbered, reverse=True):
        if _is_whole(folder):
            logger.info("resuming from %s", folder)
            return str(folder)
        logger.warning("passing over %s: it was not written to its end", folder)
    return None
