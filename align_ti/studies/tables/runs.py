"""The students that the paper's tables compare, each a recipe of ``scripts/recipes`` and a set of flags.

A run is trained once for each seed, whatever tables it is in; :mod:`align_ti.studies.tables.catalogue` has the tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from llava.errors import InputError


@dataclass(frozen=True)
class Run:
    """One way to train the student.

    Attributes:
        label: Label in tables.
        recipe: Name of a recipe in ``scripts/recipes``.
        flags: Flags that override the recipe's values.
        teacher: The teacher's checkpoint, if it is not the pair's.
        data_share: Percentage of the recipe's passes over the data; the schedule is shortened too.
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


def _losses(names: str, label: str, *flags: str) -> Run:
    return Run(label, "align-ti", ("--losses", names, *flags))


def subset_runs() -> dict[str, Run]:
    """The subsets of the four losses, except those with their own names: SFT, vanilla KD and Align-TI."""
    terms = ("sft", "kd", "iva", "tpa")
    runs = {}
    for number in range(1, 15):
        names = [name for index, name in enumerate(terms) if number >> index & 1]
        if names not in (["sft"], ["sft", "kd"]):
            runs["+".join(names)] = _losses(",".join(names), " + ".join(name.upper() for name in names))
    return runs


def _on_share(percent: int, run: Run) -> Run:
    """The same run over ``percent`` of the data, with a schedule of that length."""
    return replace(run, label=share_label(run, percent), data_share=percent)


def share_label(run: Run, percent: int) -> str:
    return f"{run.label}, {percent}% of the data"


def shares(whole: str) -> Mapping[float, str]:
    """The runs on 25, 50, 75 and 100% of the data, by percentage; ``whole`` is the last."""
    return MappingProxyType({**{float(share): f"{whole}-{share}%" for share in SHARES}, 100.0: whole})


def _draw_flags(sampling: str, number: int) -> tuple[str, ...]:
    return "--tpa_sampling", sampling, "--tpa_d", str(number)


def draw_label(sampling: str, number: int) -> str:
    return f"TPA, {sampling}, d = {number}"


def drawing(sampling: str, number: int) -> str:
    """The run of TPA with a number of candidates and a sampling method."""
    return "sft+kd+tpa" if (sampling, number) == DEFAULT_DRAWS else f"tpa-{sampling}-{number}"


def _at_temperature(degree: str) -> Run:
    """Vanilla KD at a temperature, weighted by its square, which keeps the size of gradients (Hinton et al., 2015)."""
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
        **subset_runs(),
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
            f"iva-at-{depth}": _losses("sft,kd,iva", f"IVA, layer at {depth}% of the depth", "--iva_layer", f"{depth}%")
            for depth in DEPTHS
        },
        **{
            f"tpa-{sampling}-{number}": _losses(
                "sft,kd,tpa", draw_label(sampling, number), *_draw_flags(sampling, number)
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


def find_runs(names: Sequence[str]) -> dict[str, Run]:
    """The runs of some names.

    Raises:
        InputError: There is no run of that name.
    """
    unknown = [name for name in names if name not in RUNS]
    if unknown:
        raise InputError(f"no run {unknown[0]!r}; there are: {', '.join(RUNS)}")
    return {name: RUNS[name] for name in names}
