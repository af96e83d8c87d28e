"""Exposure bias: how errors accumulate over a response, depending on who wrote its prefix (the paper, appendix B.4).

    python -m align_ti.studies.exposure_bias --teacher T --student NAME=PATH ... --data FILE \\
        --image-folder DIR --samples 1000 --max-new-tokens 100 --out results

``KL(P_T || P_S)(y_t | x, y_<t)`` in nats is summed over the steps ``t = 1..l`` and averaged over the samples, with the
prefix ``y_<t`` from the data (``E_train``, Eq. 9), drawn from the student (``E_test``, Eq. 10, and ``R``, Eq. 12) or
drawn from the teacher (``E``, Eq. 13). ``%ExAccErr = (R - E) / E`` (Eq. 11). Fig. 2 (right) shows the first two,
Fig. 6 the last.

The paper does not say how a step after the end of a response counts; its responses are long enough not to end early.
``--ended leave-out`` averages each step over the responses that reach it. With ``--ended zero`` such a step counts as
zero, as in TPA: ``E(l)`` is then exactly the divergence between both models' distributions over responses cut at ``l``
tokens, but a student whose responses are shorter than its teacher's also accumulates less in ``R``, and its
``%ExAccErr`` is lower for that reason alone. The figure shows the former, the table both.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from align_ti.losses.linear_heads import linear_divergence
from align_ti.training.on_policy import OnPolicySettings, StudentResponses
from llava.constants import IGNORE_INDEX
from llava.errors import InputError
from llava.inference.end_of_turn import EndOfTurn
from llava.model.protocol import VisionLanguageModel

ENDED = ("leave-out", "zero")
RESAMPLES = 1000


@dataclass(frozen=True)
class PrefixErrors:
    """Divergences of one student; each ``[samples, steps]`` in nats, NaN after the end of the response.

    Attributes:
        data: With prefixes from the data (Eq. 9).
        student: With prefixes sampled from the student (Eqs. 10 and 12).
        teacher: With prefixes sampled from the teacher (Eq. 13).
    """

    data: Tensor
    student: Tensor
    teacher: Tensor


def accumulated(steps: Tensor, ended: str, weights: Tensor | None = None) -> Tensor:
    """The sum over ``t <= l`` of the mean over the samples, for every ``l`` (Eqs. 9, 10, 12 and 13).

    Args:
        steps: ``[samples, steps]`` in nats, NaN after the end of a response.
        ended: ``zero``: steps after the end count as zero; ``leave-out``: they are left out of the mean.
        weights: Weights of the mean, ``[..., samples]``; equal by default.

    Returns:
        ``[..., steps]`` in nats, float64.

    Raises:
        InputError: Unknown ``ended``.
    """
    if ended not in ENDED:
        raise InputError(f"--ended is {ended!r}; expected one of {', '.join(ENDED)}")
    steps = steps.double()
    weights = torch.ones(len(steps), dtype=torch.float64) if weights is None else weights.double()
    there = torch.ones_like(steps) if ended == "zero" else (~steps.isnan()).double()
    mean = (weights @ steps.nan_to_num(0.0)) / (weights @ there)
    return mean.nan_to_num(0.0).cumsum(-1)  # NaN: no response reaches this step


def excess_error(regret: Tensor, baseline: Tensor) -> Tensor:
    """``%ExAccErr`` (Eq. 11) in percent, of ``R`` and ``E`` in nats; zero if both are equal, also if both are zero."""
    return torch.where(regret == baseline, 0.0, 100 * (regret - baseline) / baseline)


def excess_interval(errors: PrefixErrors, ended: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Bootstrap 95% interval of ``%ExAccErr`` over the samples; lower and upper end, ``[steps]`` each."""
    samples = len(errors.student)
    drawn = torch.randint(samples, (RESAMPLES, samples), generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros(RESAMPLES, samples, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(drawn.shape).double()
    )
    values = excess_error(accumulated(errors.student, ended, counts), accumulated(errors.teacher, ended, counts))
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return low, high


@dataclass(frozen=True)
class Outputs:
    """Hidden states that predict the first tokens of a batch's responses.

    Attributes:
        rows: Last hidden states ``[R, D]``, ordered by sample and step.
        exist: Bool ``[B, steps]``, True at the steps that a response has; ``R`` of them.
    """

    rows: Tensor
    exist: Tensor


@torch.no_grad()
def response_outputs(model: VisionLanguageModel, batch: Mapping[str, Any], steps: int) -> Outputs:
    """Run a model over whole responses.

    Args:
        model: LLaVA model in evaluation mode.
        batch: Batch from the collator, one response per sample, on the model's device and in its dtype.
        steps: Maximum number of response tokens to use.
    """
    inputs = model.splice_inputs(
        batch["input_ids"], batch["attention_mask"], batch["labels"], images=batch.get("images"), padding_side="right"
    )
    predicts = inputs.labels[:, 1:] != IGNORE_INDEX
    predicts &= predicts.cumsum(1) <= steps
    hidden = model.model(
        inputs_embeds=inputs.inputs_embeds,
        attention_mask=inputs.attention_mask,
        position_ids=inputs.position_ids,
        use_cache=False,
    ).last_hidden_state
    exist = torch.arange(steps, device=predicts.device) < predicts.sum(1, keepdim=True)
    return Outputs(hidden[:, :-1][predicts], exist)


@torch.no_grad()
def step_divergences(
    student: VisionLanguageModel, teacher: VisionLanguageModel, mine: Outputs, theirs: Outputs
) -> Tensor:
    """``KL(P_T || P_S)`` at each step over the shared vocabulary: ``[B, steps]`` in nats, on the CPU; NaN after the end
    of a response."""
    values = linear_divergence(
        mine.rows,
        student.lm_head.weight,
        theirs.rows,
        teacher.lm_head.weight,
        weights=mine.rows.new_ones(len(mine.rows)),
    ).divergence
    result = values.new_full(mine.exist.shape, torch.nan)
    result[mine.exist] = values
    return result.cpu()


def measure(
    teacher: VisionLanguageModel,
    students: Mapping[str, VisionLanguageModel],
    batches: Iterable[Mapping[str, Any]],
    stop: EndOfTurn,
    *,
    steps: int,
    seed: int = 0,
    samples: int | None = None,
) -> dict[str, PrefixErrors]:
    """Divergences of every student on responses from the data, from the student itself and from the teacher.

    Responses are sampled at temperature 1 from the whole distribution over the tokens that all models have. The random
    numbers depend only on the seed and the sample: neither the batch size nor the other students change a response.
    Teacher and students use the same random numbers, which reduces the noise in ``R - E``.

    Args:
        teacher: LLaVA model in evaluation mode.
        students: Models by name, on the same device and in the same dtype.
        batches: Batches from the collator, one response per sample.
        stop: End-of-turn rule, for all models.
        steps: Maximum length of a response in tokens.
        seed: Random seed of the sampling.
        samples: Total number of samples, for the progress bar.
    """
    home = teacher.get_input_embeddings().weight
    models = [teacher, *students.values()]
    vocabulary = min(model.lm_head.weight.shape[0] for model in models)
    respond = StudentResponses(OnPolicySettings(1.0, 1.0, steps, seed), stop, vocabulary, max_length=sys.maxsize)
    found: dict[str, list[PrefixErrors]] = {name: [] for name in students}
    with tqdm(total=samples, desc="exposure bias", unit="sample", disable=None) as bar:
        for collated in batches:
            batch = {key: value.to(home.device) for key, value in collated.items()}
            if "images" in batch:
                batch["images"] = batch["images"].to(home.dtype)
            written = {"data": batch, "teacher": respond(teacher, batch, 0)}
            theirs = {who: response_outputs(teacher, text, steps) for who, text in written.items()}
            for name, student in students.items():
                own = respond(student, batch, 0)
                outputs = {**theirs, "student": response_outputs(teacher, own, steps)}
                divergences = {
                    who: step_divergences(student, teacher, response_outputs(student, text, steps), outputs[who])
                    for who, text in {**written, "student": own}.items()
                }
                found[name].append(PrefixErrors(**divergences))
            bar.update(len(batch["input_ids"]))
    return {
        name: PrefixErrors(
            *(torch.cat([getattr(part, who) for part in parts]) for who in ("data", "student", "teacher"))
        )
        for name, parts in found.items()
    }
