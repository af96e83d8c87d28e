"""Files of results are written whole or not at all."""

import resource
from dataclasses import asdict

import pytest

from align_ti.irs import LayerScores
from align_ti.studies.common.report import write_report


@pytest.mark.parametrize("name", ["scores.json", "study.json"])
def test_results_survive_a_full_disk(name, tmp_path):
    """A limit on the size of files stands in for the full disk: the former result is still there, and nothing else."""
    long = LayerScores([0.5] * 3000, 1, 2, 3)

    def write(scores: LayerScores) -> None:
        if name == "scores.json":
            scores.save(tmp_path / name)
        else:
            write_report(tmp_path, "study", asdict(scores), "text\n")

    write(LayerScores([0.25], 0, 1, 1))
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(long)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before and name in before
