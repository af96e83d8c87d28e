"""Rows of a table: the results of one run's trials, by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from align_ti.studies.common.intervals import Estimate, paired_difference
from align_ti.studies.tables.catalogue import Table
from align_ti.studies.tables.trial import Trial
from llava.errors import InputError
from llava.eval.registry import BENCHMARKS


@dataclass(frozen=True)
class Line:
    """One row of a table: the scores of a run by benchmark, one for each seed."""

    name: str
    label: str
    scores: Mapping[str, list[float]]
    seconds: float | None
    """Mean training time over uninterrupted runs; None if all were interrupted."""
    held_out: list[float] | None = None
    """Cross-entropy on held-out conversations by seed, in nats per token, where measured."""

    @property
    def averages(self) -> list[float]:
        """The mean of the six benchmarks by seed."""
        return [sum(of_seed) / len(of_seed) for of_seed in zip(*self.scores.values(), strict=True)]

    def difference(self, baseline: "Line") -> Estimate:
        """The averages minus the baseline's, paired by seed."""
        return paired_difference(self.averages, baseline.averages)

    def differences(self, baseline: "Line") -> dict[str, Estimate]:
        """The scores minus the baseline's, paired by seed, by benchmark."""
        return {name: paired_difference(values, baseline.scores[name]) for name, values in self.scores.items()}

    def held_out_difference(self, baseline: "Line") -> Estimate | None:
        """The held-out losses minus the baseline's, paired by seed; None if one of them was not measured."""
        if self.held_out is None or baseline.held_out is None:
            return None
        return paired_difference(self.held_out, baseline.held_out)


def read_lines(trials: Sequence[Trial]) -> tuple[list[Line], list[int]]:
    """The rows over the seeds that all runs have finished, and these seeds.

    Raises:
        InputError: No seed is finished by all runs.
    """
    names = list(dict.fromkeys(trial.name for trial in trials))
    finished = {(trial.name, trial.seed): record for trial in trials if (record := trial.record())}
    seeds = [
        seed for seed in sorted({trial.seed for trial in trials}) if all((name, seed) in finished for name in names)
    ]
    if not seeds:
        missing = next(trial for trial in trials if not trial.record_file.is_file())
        raise InputError(f"no seed has been finished by all runs: {missing.record_file} is missing")
    labels = {trial.name: trial.run.label for trial in trials}
    lines = []
    for name in names:
        records = [finished[name, seed] for seed in seeds]
        scores = {benchmark: [record.scores[benchmark] for record in records] for benchmark in BENCHMARKS}
        seconds = [record.seconds["train"] for record in records if "train" in record.seconds]
        losses = [record.held_out for record in records if record.held_out is not None]
        mean_seconds = sum(seconds) / len(seconds) if seconds else None
        lines.append(Line(name, labels[name], scores, mean_seconds, losses if len(losses) == len(records) else None))
    return lines, seeds


def find_baseline(lines: Sequence[Line], table: Table) -> Line:
    """The row that the others are compared with."""
    return next(line for line in lines if line.name == table.baseline)
