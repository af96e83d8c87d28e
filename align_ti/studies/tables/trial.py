"""One student of a table: a run with a seed, and its files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from align_ti.studies.tables.record import Record, current, read_record
from align_ti.studies.tables.runs import Run
from llava.files import read_json, write_json

MADE_AGAIN = "remove it, and it is made again"
"""What to do about a damaged file of a trial."""


@dataclass(frozen=True)
class Trial:
    """A run with a seed, in its own folder.

    Attributes:
        name: Name of the run.
        run: The run, which defines how its student is trained.
        seed: Random seed of the second stage.
        folder: Folder of its files.
        kept: Its record, if that was kept elsewhere; see :mod:`align_ti.studies.tables.kept`.
    """

    name: str
    run: Run
    seed: int
    folder: Path
    kept: Record | None = None

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"

    @property
    def model(self) -> Path:
        """The student's checkpoint."""
        return self.folder / "model"

    @property
    def is_trained(self) -> bool:
        """Whether the training has finished; it writes this file last."""
        return (self.model / "trainer_state.json").is_file()

    @property
    def scores_folder(self) -> Path:
        """Folder of its evaluation on the benchmarks."""
        return self.folder / "eval"

    @property
    def record_file(self) -> Path:
        """File of its record, written last: a trial that has it is finished."""
        return self.folder / "record.json"

    @property
    def held_out_file(self) -> Path:
        """File of its cross-entropy, written by :mod:`llava.eval.held_out`."""
        return self.folder / "held_out.json"

    @property
    def seconds_file(self) -> Path:
        """File of the durations of its parts; see :meth:`seconds`."""
        return self.folder / "seconds.json"

    @property
    def recipe_file(self) -> Path:
        """File of its recipe, written before training; see :mod:`align_ti.studies.tables.recipe`."""
        return self.folder / "recipe.json"

    def record(self) -> Record | None:
        """Its record; None if it is not finished.

        Raises:
            InputError: The file is damaged.
        """
        if self.kept is not None:
            return self.kept
        file = self.record_file
        return read_record(file.read_text(encoding="utf-8"), str(file)) if file.is_file() else None

    def is_finished(self, with_held_out: bool) -> bool:
        """Whether all its parts are finished."""
        record = self.record()
        return record is not None and not (with_held_out and record.held_out is None)

    def recipe(self) -> dict[str, str] | None:
        """The recipe of the student or scores in its folder; None if there are none.

        Raises:
            InputError: The file is damaged.
        """
        record = self.record()
        if record is not None:
            return dict(record.recipe)
        made = any(path.exists() for path in (self.model, self.scores_folder, self.held_out_file))
        return current(read_json(self.recipe_file, MADE_AGAIN)) if made and self.recipe_file.is_file() else None

    def seconds(self) -> dict[str, float]:
        """Seconds by part, ``train`` and ``evaluate``; interrupted trainings are left out.

        Raises:
            InputError: The file is damaged.
        """
        return read_json(self.seconds_file, MADE_AGAIN) if self.seconds_file.is_file() else {}

    def took(self, part: str, seconds: float) -> None:
        """Record the duration of a part."""
        write_json(self.seconds_file, self.seconds() | {part: round(seconds, 1)}, indent=None)


def plan_trials(runs: Mapping[str, Run], seeds: Sequence[int], root: Path) -> list[Trial]:
    """The trials of a table, ordered by seed, so that a table that is stopped early has the first seeds of all rows."""
    return [Trial(name, run, seed, root / name / f"seed{seed}") for seed in seeds for name, run in runs.items()]
