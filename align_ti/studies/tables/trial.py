"""One student of a table: a run with a seed, and the files that it leaves behind."""

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
    """A run with a seed, in a folder of its own.

    Attributes:
        name: Name of the run.
        run: How its student is trained.
        seed: Random seed of the second stage.
        folder: Where its files go.
        kept: Its record where that was kept elsewhere; see :mod:`align_ti.studies.tables.kept`.
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
        """Whether the training came to its end, which writes this file last."""
        return (self.model / "trainer_state.json").is_file()

    @property
    def scores_folder(self) -> Path:
        """Its evaluation on the benchmarks."""
        return self.folder / "eval"

    @property
    def record_file(self) -> Path:
        """Written last: a trial that has it is finished."""
        return self.folder / "record.json"

    @property
    def held_out_file(self) -> Path:
        """Of :mod:`llava.eval.held_out`."""
        return self.folder / "held_out.json"

    @property
    def seconds_file(self) -> Path:
        """How long its parts took; see :meth:`seconds`."""
        return self.folder / "seconds.json"

    @property
    def recipe_file(self) -> Path:
        """How the student is made, written before that; see :mod:`align_ti.studies.tables.recipe`."""
        return self.folder / "recipe.json"

    def record(self) -> Record | None:
        """What came of it; None where it is not finished.

        Raises:
            InputError: Its file is damaged.
        """
        if self.kept is not None:
            return self.kept
        file = self.record_file
        return read_record(file.read_text(encoding="utf-8"), str(file)) if file.is_file() else None

    def is_finished(self, with_held_out: bool) -> bool:
        """Whether nothing is left to do."""
        record = self.record()
        return record is not None and not (with_held_out and record.held_out is None)

    def recipe(self) -> dict[str, str] | None:
        """How what is here, a student or the scores of one, was made; None where nothing is.

        Raises:
            InputError: The file is damaged.
        """
        record = self.record()
        if record is not None:
            return dict(record.recipe)
        made = any(path.exists() for path in (self.model, self.scores_folder, self.held_out_file))
        return current(read_json(self.recipe_file, MADE_AGAIN)) if made and self.recipe_file.is_file() else None

    def seconds(self) -> dict[str, float]:
        """Seconds by part, ``train`` and ``evaluate``; a training that was interrupted is left out.

        Raises:
            InputError: The file is damaged.
        """
        return read_json(self.seconds_file, MADE_AGAIN) if self.seconds_file.is_file() else {}

    def took(self, part: str, seconds: float) -> None:
        """Keep how long a part took."""
        write_json(self.seconds_file, self.seconds() | {part: round(seconds, 1)}, indent=None)


def plan_trials(runs: Mapping[str, Run], seeds: Sequence[int], root: Path) -> list[Trial]:
    """Seed by seed, so that a table stopped early has whole rows."""
    return [Trial(name, run, seed, root / name / f"seed{seed}") for seed in seeds for name, run in runs.items()]
