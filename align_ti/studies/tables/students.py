"""Finished students of the tables, for what is measured on the models themselves.

    python -m align_ti.studies.tables.students --folder DIR NAME=RUN [NAME=RUN ...]

prints ``NAME=CHECKPOINT`` for every run of the catalogue, a line a seed: of the seeds that all of them have, so that
they can be compared seed by seed. Runs without any student are left out. The scripts of ``scripts/tables`` call it.
"""

import argparse
import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from align_ti.studies.common.checkpoints import parse_named
from align_ti.studies.tables.catalogue import find_runs
from align_ti.studies.tables.recipe import check_alike
from align_ti.studies.tables.trial import Trial, plan_trials
from llava.errors import run_cli

logger = logging.getLogger(__name__)


def find_students(folder: Path, names: Mapping[str, str]) -> dict[str, list[Trial]]:
    """Trained students by name, of the same seeds.

    Args:
        folder: of the tables.
        names: name -> run of the catalogue.

    Raises:
        InputError: no such run, or students that cannot be compared; see :func:`check_alike`.
    """
    found: dict[str, dict[int, Trial]] = {}
    for name, run in names.items():
        seeds = [int(match[1]) for path in (folder / run).glob("*") if (match := re.fullmatch(r"seed(\d+)", path.name))]
        trials = [trial for trial in plan_trials(find_runs([run]), sorted(seeds), folder) if trial.is_trained]
        if trials:
            found[name] = {trial.seed: trial for trial in trials}
        else:
            logger.info("%s has no finished student", folder / run)
    check_alike([trial for of in found.values() for trial in of.values()])
    shared = set.intersection(*map(set, found.values())) if found else set()
    return {name: [trial for seed, trial in of.items() if seed in shared] for name, of in found.items()}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="of the tables' students")
    parser.add_argument("names", nargs="+", metavar="NAME=RUN")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, trials in find_students(arguments.folder, parse_named(arguments.names, "NAME=RUN")).items():
        for trial in trials:
            sys.stdout.write(f"{name}={trial.model}\n")


if __name__ == "__main__":
    run_cli(main)
