"""The benchmarks, in the order of the paper's table.

To add one, define a :class:`Benchmark` in a new file in ``llava/eval/benchmarks`` and list it here.
"""

from collections.abc import Mapping
from types import MappingProxyType

from llava.errors import InputError
from llava.eval.benchmark import Benchmark
from llava.eval.benchmarks import gqa, mmbench, mme, pope, sqa, textvqa

BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        benchmark.name: benchmark
        for benchmark in (
            gqa.BENCHMARK,
            sqa.BENCHMARK,
            textvqa.BENCHMARK,
            pope.BENCHMARK,
            mme.BENCHMARK,
            mmbench.BENCHMARK,
        )
    }
)


def select(names: str) -> list[Benchmark]:
    """Benchmarks by comma-separated names; ``all`` means the whole table.

    Raises:
        InputError: A name is unknown.
    """
    if names == "all":
        return list(BENCHMARKS.values())
    chosen = []
    for name in names.split(","):
        if name not in BENCHMARKS:
            raise InputError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}, or all")
        chosen.append(BENCHMARKS[name])
    return chosen
