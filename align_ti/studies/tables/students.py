"""Finished students of the tables, for measurements on the models themselves.

Only seeds that all runs have are used, so that students can be compared seed by seed. Runs without students are left
out.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from align_ti.studies.tables.recipe import check_alike
from align_ti.studies.tables.runs import find_runs
from align_ti.studies.tables.setting import Setting
from align_ti.studies.tables.trial import Trial, plan_trials

logger = logging.getLogger(__name__)


def find_students(folder: Path, names: Mapping[str, str], setting: Setting) -> dict[str, list[Trial]]:
    """Trained students by name, with the same seeds.

    Args:
        folder: Folder of the tables' students.
        names: Map from name to run of the catalogue.
        setting: Settings that the students share.

    Raises:
        InputError: There is no such run, or students cannot be compared; see :func:`check_alike`.
    """
    found: dict[str, dict[int, Trial]] = {}
    for name, run in names.items():
        seeds = [int(match[1]) for path in (folder / run).glob("*") if (match := re.fullmatch(r"seed(\d+)", path.name))]
        trials = [trial for trial in plan_trials(find_runs([run]), sorted(seeds), folder) if trial.is_trained]
        if trials:
            found[name] = {trial.seed: trial for trial in trials}
        else:
            logger.info("%s has no finished student", folder / run)
    check_alike([trial for of in found.values() for trial in of.values()], setting)
    shared = set.intersection(*map(set, found.values())) if found else set()
    return {name: [trial for seed, trial in of.items() if seed in shared] for name, of in found.items()}
