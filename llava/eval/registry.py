"""The benchmarks, those of the paper's table in its order.

To add one, define a :class:`Benchmark` in a new file in ``llava/eval/benchmarks`` and list it here.
"""

from collections.abc import Mapping
from types import MappingProxyType

from llava.errors import InputError
from llava.eval.benchmark import Benchmark
from llava.eval.benchmarks import chair, gqa, mmbench, mme, pope, sqa, textvqa

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

FURTHER: Mapping[str, Benchmark] = MappingProxyType({chair.BENCHMARK.name: chair.BENCHMARK})
"""Benchmarks outside the paper's table: run by name, never part of "all", of a mean or of ``scores.json``."""


def select(names: str) -> list[Benchmark]:
    """Benchmarks by comma-separated names; ``all`` means the whole table.

    Raises:
        InputError: A name is unknown.
    """
    if names == "all":
        return list(BENCHMARKS.values())
    known = {**BENCHMARKS, **FURTHER}
    chosen = []
    for name in names.split(","):
        if name not in known:
            raise InputError(f"unknown benchmark {name!r}; known: {', '.join(known)}, or all")
        chosen.append(known[name])
    return chosen
