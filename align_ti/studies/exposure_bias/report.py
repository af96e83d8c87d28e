"""The report of ``exposure_bias``: curves by step, tables in Markdown and the figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from align_ti.studies.common.report import markdown_page, markdown_table
from align_ti.studies.exposure_bias.measure import (
    ENDED,
    RESAMPLES,
    PrefixErrors,
    accumulated,
    excess_error,
    excess_interval,
)

EXPLANATION = (
    "KL(teacher || student) in nats, summed over the steps and averaged over the samples. E_train: prefixes from the "
    "data (Eq. 9); E_test: from the student (Eq. 10), the same as R (Eq. 12); E: from the teacher (Eq. 13). %ExAccErr "
    "= (R - E) / E (Eq. 11), computed for each seed of a student, then averaged. 95% intervals are Student's t over "
    f"the seeds if there are several, otherwise a bootstrap with {RESAMPLES} resamples of the samples. Last columns: "
    "mean number of tokens up to that step in responses of student and teacher, and the share of responses of data, "
    "student and teacher that reach it. The paper keeps the samples out of training; see below for this run."
)
AFTER_THE_END = {
    "zero": "Steps after the end of a response count as zero, so shorter responses accumulate a smaller error",
    "leave-out": "Responses that have ended are left out of the mean, so later steps average over fewer responses",
}


def curves(errors: PrefixErrors, ended: str) -> dict[str, list[float]]:
    """All curves by step, from 1: errors in nats, ``%ExAccErr`` in percent, and the shares of responses that reach a
    step."""
    low, high = excess_interval(errors, ended)
    train, test, baseline = (accumulated(steps, ended) for steps in (errors.data, errors.student, errors.teacher))
    values = {
        "e_train": train,
        "e_test": test,
        "e_baseline": baseline,
        "ex_acc_err": excess_error(test, baseline),
        "ex_acc_err_low": low,
        "ex_acc_err_high": high,
        **{
            f"reached_{who}": (~getattr(errors, who).isnan()).double().mean(0) for who in ("data", "student", "teacher")
        },
    }
    return {name: [round(value, 6) for value in series.tolist()] for name, series in values.items()}


def over_seeds(seeds: Sequence[Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """The mean curves of several seeds; with more than one seed, the interval of ``%ExAccErr`` is Student's t over
    them."""
    values = {name: np.array([curve[name] for curve in seeds]) for name in seeds[0]}
    means = {name: series.mean(axis=0) for name, series in values.items()}
    if len(seeds) > 1:
        from align_ti.studies.common.intervals import estimate  # needs scipy, the extra `tables`

        steps = values["ex_acc_err"].T
        half_widths = np.array([estimate(step).half_width for step in steps])
        means["ex_acc_err_low"] = means["ex_acc_err"] - half_widths
        means["ex_acc_err_high"] = means["ex_acc_err"] + half_widths
    return {name: [round(float(value), 6) for value in series] for name, series in means.items()}


def as_markdown(
    students: Mapping[str, Mapping[str, Mapping[str, list[float]]]],
    seeds: Mapping[str, Mapping[str, Sequence[Mapping[str, list[float]]]]],
    ended: str,
    facts: Mapping[str, str],
) -> str:
    """Four steps of every curve as a table, and the students' differences at the last step.

    Args:
        students: Curves by treatment of ended responses (``ended``), then by name.
        seeds: The same for each seed.
        ended: Treatment that the table shows; the other one has a column.
    """
    (other,) = (name for name in ENDED if name != ended)
    rows = []
    for name, curve in students[ended].items():
        steps = len(curve["e_train"])
        for step in sorted({max(1, steps * quarter // 4) for quarter in (1, 2, 3, 4)}):
            at = {key: series[step - 1] for key, series in curve.items()}
            errors = [f"{at[key]:.3f}" for key in ("e_train", "e_test", "e_baseline")]
            excess = [_excess(students[convention][name], step) for convention in (ended, other)]
            tokens = ", ".join(f"{sum(curve[f'reached_{who}'][:step]):.1f}" for who in ("student", "teacher"))
            reached = ", ".join(f"{100 * at[f'reached_{who}']:.0f}" for who in ("data", "student", "teacher"))
            rows.append([name, str(step), *errors, *excess, tokens, reached])
    headings = ["student", "step", "E_train", "E_test = R", "E", "%ExAccErr", f"%ExAccErr, {other}"]
    headings += ["tokens", "responses that reach it, %"]
    conventions = f"{AFTER_THE_END[ended]} (`--ended {ended}`). {AFTER_THE_END[other]} (`{other}`)."
    parts = [markdown_table(headings, rows), EXPLANATION, conventions]
    first, *rest = seeds[ended]
    compared = [name for name in rest if len(seeds[ended][name]) == len(seeds[ended][first]) > 1]
    if compared:
        quantities = ("e_train", "e_test", "e_baseline", "ex_acc_err")
        cells = [
            [name, *(_difference(seeds[ended][name], seeds[ended][first], key) for key in quantities),
             _difference(seeds[other][name], seeds[other][first], "ex_acc_err")]
            for name in compared
        ]  # fmt: skip
        against = markdown_table(["", "E_train", "E_test = R", "E", "%ExAccErr", f"%ExAccErr, {other}"], cells)
        parts += [f"Relative to {first}, at the last step, paired by seed:", against]
    return markdown_page("Exposure bias by generation step", parts, facts)


def _excess(curve: Mapping[str, list[float]], step: int) -> str:
    value, low, high = (curve[f"ex_acc_err{end}"][step - 1] for end in ("", "_low", "_high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _difference(
    mine: Sequence[Mapping[str, list[float]]], theirs: Sequence[Mapping[str, list[float]]], key: str
) -> str:
    from align_ti.studies.common.intervals import paired_difference  # needs scipy, the extra `tables`

    return paired_difference([curve[key][-1] for curve in mine], [curve[key][-1] for curve in theirs]).text(2)


def draw(students: Mapping[str, Mapping[str, list[float]]]) -> Figure:
    """Left: the two accumulated errors (Fig. 2, right). Right: ``%ExAccErr`` (Fig. 6). One colour per student."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    errors, excess = figure.subplots(1, 2)
    for number, (name, curve) in enumerate(students.items()):
        colour = f"C{number}"
        steps = range(1, len(curve["e_train"]) + 1)
        errors.plot(steps, curve["e_test"], color=colour, label=f"{name}, test time")
        errors.plot(steps, curve["e_train"], color=colour, linestyle="--", label=f"{name}, training time")
        excess.plot(steps, curve["ex_acc_err"], color=colour, label=name)
        excess.fill_between(
            steps, curve["ex_acc_err_low"], curve["ex_acc_err_high"], color=colour, alpha=0.15, linewidth=0
        )
    excess.axhline(0, color="black", linewidth=0.8)
    errors.set(xlabel="generation step", ylabel="accumulated error, nats", title="Training-time and test-time error")
    excess.set(xlabel="generation step", ylabel="%ExAccErr", title="Excess accumulated error")
    for axes in (errors, excess):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure
