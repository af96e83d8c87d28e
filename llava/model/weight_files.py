"""Weight files of a folder, and checks that they exist and are complete.

An interrupted copy, download or save leaves a truncated file. Libraries report that late, and without the file's name.
Only the beginning and the end of each file are read here, so that large models take no time.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llava.errors import InputError

PROJECTOR_FILE = "mm_projector.bin"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
OTHER_WEIGHTS = "non_lora_trainables.bin"
"""Weights that a LoRA run trains in addition to its adapters: the projector."""
MODEL_FILES = ("model.safetensors", "pytorch_model.bin")
"""A model's weights in one file; the index of several files has the same name followed by ``.index.json``."""
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
STATE_FOLDERS = "global_step*"
"""DeepSpeed's part of a checkpoint; the file ``latest`` names the folder in use."""
POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class BrokenFile:
    """A weight file that cannot be read.

    Attributes:
        path: Path of the file, which may be missing.
        problem: What is wrong, with the size; the end of a sentence that starts with the path.
    """

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.path} {self.problem}"


def model_files(folder: Path) -> list[Path]:
    """A model's weight files, in the order in which transformers searches for them.

    Args:
        folder: Folder of a model or a tower; hub names are skipped.

    Returns:
        The single file, or the files named in the index, whether they exist or not; empty if there is neither.

    Raises:
        InputError: An index cannot be read.
    """
    for name in MODEL_FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            names = _named_by(index)
            if names is None:
                raise InputError(f"{index} {_unreadable_index(index)}. Copy or download it again")
            return [folder / name for name in names]
    return []


def read_weights(folder: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Some of a model's weights, in the dtype of their files.

    Args:
        folder: Folder of a model or a tower; hub names are skipped.
        wanted: Whether to read a weight of this name.

    Returns:
        Tensors by name; empty if there are none.
    """
    weights: dict[str, Tensor] = {}
    for file in model_files(folder):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                weights |= {name: opened.get_tensor(name) for name in opened.keys() if wanted(name)}
        else:
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            weights |= {name: tensor for name, tensor in loaded.items() if wanted(name)}
    return weights


def check_weight_files(folder: str | Path) -> None:
    """Reject a folder with incomplete weights before they are loaded.

    Only files that would be loaded are checked: the model's own files, an adapter, a projector.

    Args:
        folder: Folder of a model, a tower, an adapter or a projector; hub names are skipped.

    Raises:
        InputError: A file is missing or truncated; the message has the file, its size, and what to do.
    """
    folder = Path(folder)
    others = [folder / name for name in (*ADAPTER_FILES, PROJECTOR_FILE, OTHER_WEIGHTS)]
    _refuse([*model_files(folder), *(file for file in others if file.is_file())])


def check_weight_file(file: str | Path) -> None:
    """Reject a weight file that is missing or truncated.

    Raises:
        InputError: A file is missing or truncated; the message has the file, its size, and what to do.
    """
    _refuse([Path(file)])


def broken_weight_files(folder: str | Path) -> list[BrokenFile]:
    """All weight and training state files in a folder that are missing or truncated.

    This checks files named in an index, every ``.safetensors``, ``.bin``, ``.pt`` and ``.pth`` file in the folder
    (also of the optimizer, the scheduler and the random states), and DeepSpeed's ``global_step*`` folders.

    Args:
        folder: Folder of a model, or a ``checkpoint-STEP`` folder.

    Returns:
        The broken files, sorted by path; empty if all are complete, or if there is no such folder.
    """
    folder = Path(folder)
    files = {file for file in folder.glob("*") if file.suffix in SUFFIXES}
    broken = []
    for index in folder.glob("*.index.json"):
        names = _named_by(index)
        if names is None:
            broken.append(BrokenFile(index, _unreadable_index(index)))
        files |= {folder / name for name in names or ()}
    latest = folder / "latest"
    if latest.is_file():
        state = folder / latest.read_text().strip()
        if state == folder or not any(state.glob("*")):
            broken.append(BrokenFile(state, "is missing or empty, and the file 'latest' names it"))
    for state in folder.glob(STATE_FOLDERS):
        files |= {file for file in state.rglob("*") if file.suffix in SUFFIXES}
    broken += [BrokenFile(file, problem) for file in files if (problem := _problem(file))]
    return sorted(broken, key=lambda found: found.path)


def _refuse(files: list[Path]) -> None:
    broken = [BrokenFile(file, problem) for file in files if (problem := _problem(file))]
    if broken:
        more = f"; {len(broken) - 1} more of its files are broken" if len(broken) > 1 else ""
        raise InputError(
            f"{broken[0]}{more}. A copy, a download or a save did not finish: copy or download the file again, or use "
            "an earlier checkpoint if a training run wrote it"
        )


def _named_by(index: Path) -> list[str] | None:
    """The files named in an index, sorted; None if it cannot be read."""
    try:
        return sorted({str(name) for name in json.loads(index.read_text())["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _unreadable_index(index: Path) -> str:
    return f"({index.stat().st_size:,} bytes) is no readable list of weight files"


def _problem(file: Path) -> str | None:
    """What is wrong with a weight file; None if it is complete."""
    if not file.is_file():
        return "is missing"
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(len(POINTER))
    if start == POINTER:
        return f"({size:,} bytes) is a pointer of Git LFS, not the file itself: run `git lfs pull`"
    if file.suffix == ".safetensors":
        return _safetensors_problem(file, size)
    if start.startswith(b"PK"):
        try:
            zipfile.ZipFile(file).close()
        except (zipfile.BadZipFile, OSError) as error:
            return f"({size:,} bytes) is cut short ({error})"
        return None
    # Before version 1.6 PyTorch wrote pickles, which do not record their length.
    return None if start.startswith(b"\x80") else f"({size:,} bytes) is not a file that PyTorch wrote"


def _safetensors_problem(file: Path, size: int) -> str | None:
    try:
        with safe_open(file, framework="pt"):
            return None
    except (SafetensorError, OSError) as error:
        expected = _size_in_header(file)
        if expected is None or expected == size:
            return f"({size:,} bytes) is broken ({error})"
        return f"has {size:,} bytes, and its header asks for {expected:,}"


def _size_in_header(file: Path) -> int | None:
    """The size that a safetensors file should have; None if its header cannot be read."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length)) if length <= file.stat().st_size else {}
        header.pop("__metadata__", None)
        return 8 + length + max(entry["data_offsets"][1] for entry in header.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
