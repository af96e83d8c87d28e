"""Settings that all students of a table share: the pair of models, its paths, and flags for every training."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from align_ti.recipes.files import CHECKOUT
from align_ti.recipes.flags import parse_flags, words_of
from align_ti.recipes.resolve import Recipe, resolve
from align_ti.studies.tables.runs import Run

OF_TEACHERS = ("teacher_path", "teacher_zero3")
"""Flags that are not passed to a recipe without a teacher."""


@dataclass(frozen=True)
class Setting:
    """The pair and the flags of every training.

    Attributes:
        pair: Name or file of the pair; None: the recipes' own models.
        flags: Flags of every training, including paths such as ``--runs DIR``.
    """

    pair: str | None = None
    flags: tuple[str, ...] = ()

    @cached_property
    def places(self) -> Recipe:
        """The recipe ``studies`` with the paths of teacher, data, benchmarks and runs.

        Raises:
            InputError: There is no such pair, or a flag is unknown.
        """
        return resolve("studies", self.pair, self.flags)

    @property
    def runs(self) -> Path:
        """Folder of the pair's runs."""
        return Path(self.places.text("runs"))

    @property
    def teacher(self) -> str:
        """The teacher's checkpoint."""
        return self.places.text("teacher_path")

    @property
    def eval_root(self) -> Path:
        """Folder of the benchmarks."""
        return CHECKOUT / self.places.text("eval_root")

    def words(self, run: Run) -> list[str]:
        """The arguments of ``align-ti finetune|distill RECIPE`` for a run."""
        flags = parse_flags(self.flags)
        if not run.taught:
            flags = {name: values for name, values in flags.items() if name not in OF_TEACHERS}
        own = ["--teacher_path", run.teacher] if run.teacher else []
        share = ["--data_share", str(run.data_share)] if run.data_share != 100 else []
        return [*run.flags, *own, *share, *words_of(flags)]

    def recipe(self, run: Run) -> Recipe:
        """The recipe of a run's student.

        Raises:
            InputError: The settings are invalid.
        """
        return resolve(run.recipe, self.pair, self.words(run))

    def command(self, run: Run, more: Sequence[str]) -> list[str]:
        """The arguments of ``align-ti`` that train a run's student."""
        pair = ["--pair", self.pair] if self.pair else []
        return ["distill" if run.taught else "finetune", run.recipe, *pair, *self.words(run), *more]
