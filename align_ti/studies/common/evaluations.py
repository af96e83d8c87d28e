"""Where the evaluation of a checkpoint lies."""

from collections.abc import Mapping
from pathlib import Path


def scores_of(checkpoint: str) -> Path | None:
    """The folder of a checkpoint's evaluation: in its own, or beside it as by the demo; None without one."""
    model = Path(checkpoint)
    places = (model / "eval", model.parent / "eval" / model.name)
    return next((place for place in places if (place / "scores.json").exists()), None)


def named_scores(checkpoints: Mapping[str, str]) -> list[str]:
    """``NAME=FOLDER`` of those that were evaluated."""
    return [f"{name}={folder}" for name, path in checkpoints.items() if (folder := scores_of(path)) is not None]
