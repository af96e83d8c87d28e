"""Find the evaluation of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path


def scores_of(checkpoint: str) -> Path | None:
    """Folder of a checkpoint's evaluation: in its own folder, or next to it as in the demo; None if there is none."""
    model = Path(checkpoint)
    places = (model / "eval", model.parent / "eval" / model.name)
    return next((place for place in places if (place / "scores.json").exists()), None)


def named_scores(checkpoints: Mapping[str, str]) -> list[str]:
    """``NAME=FOLDER`` of the checkpoints that were evaluated."""
    return [f"{name}={folder}" for name, path in checkpoints.items() if (folder := scores_of(path)) is not None]
