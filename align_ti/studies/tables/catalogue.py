"""Which students the paper's tables (and one of our own, ``scales``) compare, each a recipe of ``scripts/recipes``
and a set of flags.

Tables share students: a run is trained once for each seed, whatever tables it is in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from align_ti.training.teacher import resolve_layer
from llava.errors import InputError


@dataclass(frozen=True)
class Run:
    """One way to train the student.

    Attributes:
        label: Its name in tables.
        recipe: Name in ``scripts/recipes``.
        flags: Flags in place of the recipe's values.
        teacher: Checkpoint that teaches instead of the preset's.
        data_share: How long, in percent of the preset's passes over the data; the schedule is as long.
    """

    label: str
    recipe: str
    flags: tuple[str, ...] = ()
    teacher: str = ""
    data_share: int = 100

    @property
    def taught(self) -> bool:
        """Whether there is a teacher."""
        return self.recipe != "sft"


@dataclass(frozen=True)
class Table:
    """One table or figure of the paper.

    Attributes:
        title: What it compares, and the paper's number.
        runs: Names of its rows, in order.
        baseline: The row that the others are compared with, seed by seed.
        paper: What the paper reports, in a sentence.
        teachers: Whether each row is trained under every teacher that is given, instead of the preset's alone.
        beside_teacher: Whether the teacher's own scores have to be there.
        axis: For a figure: what its horizontal axis shows; each of ``lines`` then names the runs of one line.
        lines: ``(name of the line, {position: run})``.
        labels: What rows are called here instead of their run's own label, where that would not say what is compared.
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


def _losses(names: str, label: str, *flags: str) -> Run:
    return Run(label, "align-ti", ("--losses", names, *flags))


def _subset_runs() -> dict[str, Run]:
    """The subsets of the four losses but those that have a name of their own: SFT, vanilla KD, Align-TI."""
    terms = ("sft", "kd", "iva", "tpa")
    runs = {}
    for number in range(1, 15):
        names = [name for index, name in enumerate(terms) if number >> index & 1]
        if names not in (["sft"], ["sft", "kd"]):
            runs["+".join(names)] = _losses(",".join(names), " + ".join(name.upper() for name in names))
    return runs


def _on_share(percent: int, run: Run) -> Run:
    """The same run over ``percent`` of the data, with a schedule of that length."""
    return replace(run, label=_share_label(run, percent), data_share=percent)


def _share_label(run: Run, percent: int) -> str:
    return f"{run.label}, {percent} % of the data"


def _shares(whole: str) -> Mapping[float, str]:
    """The runs on 25, 50, 75 and 100 % of the data, by percent; ``whole`` is the last."""
    return MappingProxyType({**{float(share): f"{whole}-{share}%" for share in SHARES}, 100.0: whole})


def _draw_flags(sampling: str, number: int) -> tuple[str, ...]:
    return "--tpa_sampling", sampling, "--tpa_d", str(number)


def _draw_label(sampling: str, number: int) -> str:
    return f"TPA, {sampling}, d = {number}"


def _drawing(sampling: str, number: int) -> str:
    """The run of TPA with so many candidates drawn in this way."""
    return "sft+kd+tpa" if (sampling, number) == DEFAULT_DRAWS else f"tpa-{sampling}-{number}"


def _at_temperature(degree: str) -> Run:
    """Vanilla KD at a temperature, weighted by its square: gradients are then about as large (Hinton et al., 2015)."""
    flags = ("--kd_temperature", degree, "--kd_weight", f"{float(degree) ** 2:g}")
    return Run(f"Vanilla KD at temperature {degree}", "vanilla-kd", flags)


DRAWS = (1, 2, 4, 8)
DEFAULT_DRAWS = ("nucleus", 4)
DEPTHS = (0, 25, 50, 75, 100)
SHARES = (25, 50, 75)
VANILLA_KD = Run("Vanilla KD (forward KL)", "vanilla-kd")
COMPARED = {"sft": Run("SFT", "sft"), "sft+kd": VANILLA_KD, "sft+kd+iva+tpa": _losses("sft,kd,iva,tpa", "Align-TI")}
"""SFT, vanilla KD and Align-TI, by name."""

RUNS: Mapping[str, Run] = MappingProxyType(
    {
        **_subset_runs(),
        **COMPARED,
        "sft+kd+tpa": _losses("sft,kd,tpa", "SFT + KD + TPA", *_draw_flags(*DEFAULT_DRAWS)),
        **{f"{name}-{share}%": _on_share(share, run) for name, run in COMPARED.items() for share in SHARES},
        "sft+kd-150%": replace(VANILLA_KD, label="Vanilla KD, 1.5 times as long", data_share=150),
        "reverse-kl": Run("Reverse KL", "vanilla-kd", ("--divergence", "reverse_kl")),
        "jsd": Run("JSD", "vanilla-kd", ("--divergence", "jsd")),
        "skew-kl": Run("Skew KL", "vanilla-kd", ("--divergence", "skew_kl")),
        "topk": _losses("sft,topk", "Top-k KD"),
        "gkd": Run("GKD", "gkd"),
        "minillm": Run("MiniLLM", "minillm"),
        "uniform": Run("Uniform alignment", "uniform-alignment"),
        "uniform+rel": _losses("sft,kd,iva,rel", "Uniform alignment and relations", "--iva_weights", "uniform"),
        "teacher-mean": _losses("sft,kd,iva", "Uniform, as strong as IVA", "--iva_weights", "teacher_mean"),
        "student-weights": _losses("sft,kd,iva", "IVA, student's weights", "--iva_weights", "student"),
        **{
            f"iva-at-{depth}": _losses(
                "sft,kd,iva", f"IVA, layer at {depth} % of the depth", "--iva_layer", f"{depth}%"
            )
            for depth in DEPTHS
        },
        **{
            f"tpa-{sampling}-{number}": _losses(
                "sft,kd,tpa", _draw_label(sampling, number), *_draw_flags(sampling, number)
            )
            for sampling in ("nucleus", "greedy")
            for number in DRAWS
            if (sampling, number) != DEFAULT_DRAWS
        },
        **{f"kd-temperature-{degree}": _at_temperature(degree) for degree in ("0.5", "2")},
        "iva-weight-0.1": _losses("sft,kd,iva,tpa", "Align-TI, IVA times 0.1", "--iva_weight", "0.1"),
        "tpa-weight-4": _losses("sft,kd,iva,tpa", "Align-TI, TPA times 4", "--tpa_weight", "4"),
    }
)

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
            ("sft", "sft+kd", *_subset_runs(), "sft+kd+iva+tpa"),
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
            tuple(name for whole in COMPARED for name in _shares(whole).values()),
            "sft",
            "Align-TI is ahead at every share; SFT and vanilla KD are alike at 25 and 100 %.",
            axis="training data, %",
            lines=tuple((run.label, _shares(name)) for name, run in COMPARED.items()),
            labels=MappingProxyType({name: _share_label(run, 100) for name, run in COMPARED.items()}),
        ),
        "figure5": Table(
            "Candidates a step and how they are drawn (Fig. 5)",
            tuple(_drawing(sampling, number) for sampling in ("nucleus", "greedy") for number in DRAWS),
            "tpa-nucleus-1",
            "Both rise with d and level off at 4; nucleus is ahead at small d.",
            axis="candidates a step, d",
            lines=tuple(
                (sampling, MappingProxyType({float(number): _drawing(sampling, number) for number in DRAWS}))
                for sampling in ("nucleus", "greedy")
            ),
            labels=MappingProxyType({_drawing(*DEFAULT_DRAWS): _draw_label(*DEFAULT_DRAWS)}),
        ),
    }
)


def find_table(name: str) -> Table:
    """Look a table up.

    Raises:
        InputError: There is none of that name.
    """
    if name not in TABLES:
        raise InputError(f"no table {name!r}; there are: {', '.join(TABLES)}")
    return TABLES[name]


def rows_of(table: Table) -> dict[str, Run]:
    """A table's runs by name, in its order, with the labels that they have in it."""
    return {name: replace(run, label=table.labels.get(name, run.label)) for name, run in find_runs(table.runs).items()}


def with_teachers(table: Table, teachers: Mapping[str, str], own: str = "") -> tuple[Table, dict[str, Run]]:
    """A table's runs under every teacher: the table with their names, the first of them its baseline, and the runs.

    Args:
        table: One with ``teachers``.
        teachers: Label -> checkpoint.
        own: The preset's teacher; students under it are those of the other tables.
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
        table, runs: With rows whose flags have ``--iva_layer PERCENT%``; others stay as they are.
        layers: Of the teacher.
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


def find_runs(names: Sequence[str]) -> dict[str, Run]:
    """Look runs up.

    Raises:
        InputError: There is none of that name.
    """
    unknown = [name for name in names if name not in RUNS]
    if unknown:
        raise InputError(f"no run {unknown[0]!r}; there are: {', '.join(RUNS)}")
    return {name: RUNS[name] for name in names}
