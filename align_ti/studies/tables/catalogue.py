"""The paper's tables (and our own ``scales``), and the students that they compare."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from align_ti.studies.tables.runs import (
    COMPARED,
    DEFAULT_DRAWS,
    DEPTHS,
    DRAWS,
    Run,
    draw_label,
    drawing,
    find_runs,
    share_label,
    shares,
    subset_runs,
)
from align_ti.training.teacher import resolve_layer
from llava.errors import InputError


@dataclass(frozen=True)
class Table:
    """One table or figure of the paper.

    Attributes:
        title: What it compares, with the number in the paper.
        runs: Names of its rows, in order.
        baseline: The row that the others are compared with, seed by seed.
        paper: What the paper reports, in one sentence.
        teachers: Whether each row is trained under every given teacher, instead of only the pair's.
        beside_teacher: Whether the teacher's own scores are required.
        axis: For a figure: the quantity on its horizontal axis; then ``lines`` has the runs of each line.
        lines: ``(name of the line, {position: run})``.
        labels: Labels of rows in this table, where the run's own label would not show what is compared.
    """

    title: str
    runs: tuple[str, ...]
    baseline: str
    paper: str
    teachers: bool = False
    beside_teacher: bool = False
    axis: str = ""
    lines: tuple[tuple[str, Mapping[float, str]], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "table3": Table(
            "Distillation made for language models (Table 3)",
            ("sft+kd", "reverse-kl", "jsd", "skew-kl", "minillm", "gkd", "sft+kd+iva+tpa"),
            "sft+kd",
            "Forward KL is better than its variants, GKD 2.3 below it, Align-TI better than all.",
        ),
        "table5": Table(
            "IVA and TPA (Table 5)",
            ("sft", "sft+iva", "sft+kd+tpa", "sft+kd+iva+tpa"),
            "sft",
            "64.3 without both; IVA adds 0.8, TPA (whose first part is KD, Eq. 5) 2.1, both 2.4.",
        ),
        "table6": Table(
            "IVA against uniform alignment (Table 6)",
            ("sft+kd", "uniform", "uniform+rel", "teacher-mean", "sft+kd+iva"),
            "uniform",
            "IVA is 0.6 above uniform alignment.",
            labels=MappingProxyType({"sft+kd+iva": "IVA"}),
        ),
        "table7": Table(
            "Layer whose attention weighs the visual tokens (Table 7)",
            tuple(f"iva-at-{depth}" for depth in DEPTHS),
            "iva-at-0",
            "The layer at three quarters of the depth, which has the highest IRS, is best.",
        ),
        "table8": Table(
            "Whose attention weighs the visual tokens (Table 8)",
            ("student-weights", "sft+kd+iva"),
            "student-weights",
            "The teacher's weights are 0.4 better than the student's.",
            labels=MappingProxyType({"sft+kd+iva": "IVA, teacher's weights"}),
        ),
        "table9": Table(
            "Teachers of several sizes (Table 9)",
            ("sft+kd+iva+tpa",),
            "sft+kd+iva+tpa",
            "From 1.7B to 4B the student gains 1.4 on SQA and 1.3 on GQA, from there to 8B 0.1 on the mean.",
            teachers=True,
        ),
        "table10": Table(
            "A student of another architecture (Table 10)",
            tuple(COMPARED),
            "sft",
            "With MobileLLaMA vanilla KD gains 0.2 and Align-TI 2.1.",
        ),
        "table14": Table(
            "Every subset of the four losses (Table 14)",
            ("sft", "sft+kd", *subset_runs(), "sft+kd+iva+tpa"),
            "sft",
            "To SFT, IVA adds 0.8, KD 0.7, both 1.3; to SFT + KD, IVA adds 0.6, TPA 1.4, both 1.7; without KD all the "
            "others are 0.1 lower.",
        ),
        "table15": Table(
            "Against SFT and vanilla KD (Table 15)",
            tuple(COMPARED),
            "sft",
            "SFT < vanilla KD < Align-TI.",
        ),
        "table16": Table(
            "The student beside its teacher (Table 16)",
            ("sft+kd", "sft+kd+iva+tpa"),
            "sft+kd",
            "Students of 1B and 2B come close to their teachers of 7B and 8B.",
            beside_teacher=True,
        ),
        "table18": Table(
            "Vanilla KD for as long as Align-TI (Table 18)",
            ("sft+kd", "sft+kd-150%", "sft+kd+iva+tpa"),
            "sft+kd",
            "Vanilla KD gains 0.3 in 1.5 epochs, Align-TI 1.7 in one of the same time.",
        ),
        "scales": Table(
            "Temperature of KD, weights of IVA and TPA",
            ("sft+kd", "kd-temperature-0.5", "kd-temperature-2", "sft+kd+iva+tpa", "iva-weight-0.1", "tpa-weight-4"),
            "sft+kd",
            "All weights are 1 (Eq. 8); a temperature is not named.",
        ),
        "figure8": Table(
            "How much data the student is trained on (Fig. 8)",
            tuple(name for whole in COMPARED for name in shares(whole).values()),
            "sft",
            "Align-TI is ahead at every share; SFT and vanilla KD are alike at 25 and 100%.",
            axis="training data, %",
            lines=tuple((run.label, shares(name)) for name, run in COMPARED.items()),
            labels=MappingProxyType({name: share_label(run, 100) for name, run in COMPARED.items()}),
        ),
        "figure5": Table(
            "Candidates per step and how they are drawn (Fig. 5)",
            tuple(drawing(sampling, number) for sampling in ("nucleus", "greedy") for number in DRAWS),
            "tpa-nucleus-1",
            "Both rise with d and level off at 4; nucleus is ahead at small d.",
            axis="candidates per step, d",
            lines=tuple(
                (sampling, MappingProxyType({float(number): drawing(sampling, number) for number in DRAWS}))
                for sampling in ("nucleus", "greedy")
            ),
            labels=MappingProxyType({drawing(*DEFAULT_DRAWS): draw_label(*DEFAULT_DRAWS)}),
        ),
    }
)


def find_table(name: str) -> Table:
    """The table of a name.

    Raises:
        InputError: There is no such table.
    """
    if name not in TABLES:
        raise InputError(f"no table {name!r}; there are: {', '.join(TABLES)}")
    return TABLES[name]


def rows_of(table: Table) -> dict[str, Run]:
    """A table's runs by name, in its order, with their labels in this table."""
    return {name: replace(run, label=table.labels.get(name, run.label)) for name, run in find_runs(table.runs).items()}


def with_teachers(table: Table, teachers: Mapping[str, str], own: str = "") -> tuple[Table, dict[str, Run]]:
    """A table's runs under every teacher: the table with their names, the first of them its baseline, and the runs.

    Args:
        table: One with ``teachers``.
        teachers: Map from label to checkpoint.
        own: The pair's teacher; its students are shared with the other tables.
    """
    runs: dict[str, Run] = {}
    for label, path in teachers.items():
        for name, run in rows_of(table).items():
            if path != own:
                name, run = f"{name}@{label}", replace(run, teacher=path)
            runs[name] = replace(run, label=f"{run.label}, {label} teacher")
    return replace(table, runs=tuple(runs), baseline=next(iter(runs))), runs


def with_layers(table: Table, runs: Mapping[str, Run], layers: int) -> tuple[Table, dict[str, Run]]:
    """A table whose rows are layers of the teacher, with their numbers instead of depths; rows that are the same layer
    of a shallow teacher are one.

    Args:
        table, runs: The table and its runs; rows whose flags have ``--iva_layer PERCENT%`` are changed.
        layers: Number of layers of the teacher.
    """
    taken: set[int | None] = set()
    kept = {}
    for name, run in runs.items():
        depth = dict(zip(run.flags, run.flags[1:], strict=False)).get("--iva_layer", "")
        if depth.endswith("%"):
            layer = resolve_layer(depth, layers)
            if layer in taken:
                continue
            taken.add(layer)
            run = replace(run, label=f"IVA, layer {layer} of 0 to {layers - 1}")
        kept[name] = run
    return replace(table, runs=tuple(kept)), kept
