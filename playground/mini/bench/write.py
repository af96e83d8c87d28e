"""Write all six benchmarks and a summary of what was written."""

from collections.abc import Callable
from dataclasses import dataclass

from playground.mini.bench import gqa, mmbench, mme, pope, scienceqa, textvqa
from playground.mini.bench.common import Setting, Summary, write_json

WRITERS: dict[str, Callable[[Setting], Summary]] = {
    "gqa": gqa.write,
    "scienceqa": scienceqa.write,
    "textvqa": textvqa.write,
    "pope": pope.write,
    "MME": mme.write,
    "mmbench": mmbench.write,
}
"""The benchmarks by the name of their folder."""


@dataclass(frozen=True)
class BenchmarkJob:
    """One benchmark to write, for a worker process."""

    name: str
    setting: Setting


def run_benchmark(job: BenchmarkJob) -> Summary:
    """Write one benchmark."""
    return WRITERS[job.name](job.setting)


def write_summary(setting: Setting, summaries: dict[str, Summary]) -> None:
    """``summary.json``: number of questions and score without using the picture, by benchmark."""
    write_json(setting.folder / "summary.json", {name: summary.to_json() for name, summary in summaries.items()})
