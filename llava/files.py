"""Atomic writing of small files, JSON, and hashes of files.

Importing this module imports neither torch nor transformers.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from llava.errors import InputError

WEIGHT_FILES = ("*.safetensors", "*.bin")
SAMPLES, SAMPLE_BYTES = 16, 4096
"""Number and size of the samples that :func:`model_fingerprint` reads from each weight file."""


def write_text(path: Path, text: str) -> None:
    """Write a small file under a temporary name and rename it, so that a reader sees the old file or the new one.

    A link stays and its target is replaced; what is no file (``/dev/stdout``) is written to directly.
    """
    if path.is_relative_to("/dev") or (path.exists() and not path.is_file()):
        path.write_text(text, encoding="utf-8")
        return
    path = path.resolve()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object, indent: int | None = 1) -> None:
    """Write JSON and a newline with :func:`write_text`; ``indent=None`` writes one line."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path, remedy: str = "") -> Any:
    """Contents of a JSON file.

    Args:
        path: The file.
        remedy: What to do about a damaged one; it ends the message.

    Raises:
        InputError: The file does not exist or is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}{'; ' if remedy else ''}{remedy}") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_fingerprint(path: str, base: str | None = None) -> str:
    """Hash of a checkpoint's content, by which a retrained checkpoint under an old name is noticed.

    It covers config.json and samples of the weight files, not all of their bytes. For a hub name, the name is hashed.

    Args:
        path: Checkpoint folder or hub name.
        base: The language model that a projector-only checkpoint belongs to.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for place in filter(None, (path, base)):
        folder = Path(place)
        if not folder.is_dir():
            digest.update(place.encode())
            continue
        config = folder / "config.json"
        digest.update(config.read_bytes() if config.is_file() else b"")
        for file in sorted(found for pattern in WEIGHT_FILES for found in folder.glob(pattern)):
            size = file.stat().st_size
            digest.update(f"{file.name} {size}".encode())
            with file.open("rb") as weights:
                for sample in range(SAMPLES):
                    weights.seek(max(0, size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
                    digest.update(weights.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]
