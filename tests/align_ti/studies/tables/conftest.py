"""A setting in which tables can be planned: benchmarks and data of the smallest size, models known by their weights."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from align_ti.studies.tables.record import Record
from align_ti.studies.tables.setting import Setting
from align_ti.studies.tables.trial import Trial
from llava.eval.registry import BENCHMARKS
from playground.mini.build import BuildConfig, build


@pytest.fixture(scope="session")
def mini_data(tmp_path_factory) -> Path:
    """The miniature's data of a few scenes; not to be changed."""
    folder = tmp_path_factory.mktemp("experiments") / "mini"
    build(folder, BuildConfig(2, 1, 2, 10, 1, held_out_scenes=3, eval_scale=0.02))
    return folder


@pytest.fixture
def models(tmp_path) -> Path:
    """A folder with ``teacher`` and ``student-pretrain``."""
    for name in ("teacher", "student-pretrain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
    return tmp_path


@pytest.fixture
def setting(models, mini_data) -> Callable[..., Setting]:
    """The miniature's setting with those models, and further flags."""

    def make(*flags: str) -> Setting:
        return Setting("mini", ("--runs", str(models), "--data_root", str(mini_data), *flags))

    return make


@pytest.fixture
def finish() -> Callable[..., None]:
    """Leave behind what a finished trial does: every benchmark has the same score."""

    def leave(
        trial: Trial,
        score: float,
        held_out: float | None = None,
        seconds: float | None = 60.0,
        made: Mapping[str, str] | None = None,
    ) -> None:
        trial.folder.mkdir(parents=True)
        took = {"evaluate": 5.0} | ({} if seconds is None else {"train": seconds})
        scores = dict.fromkeys(BENCHMARKS, score)
        record = Record(trial.name, trial.seed, made or {}, scores, held_out, took, "abc1234")
        trial.record_file.write_text(record.text())

    return leave
