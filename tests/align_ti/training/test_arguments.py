"""Flags of the distillation: what they mean together, and what is refused."""

from functools import partial

import pytest

from align_ti.losses.divergences import get_divergence, jsd, skew_kl
from align_ti.training.arguments import DistillArguments
from llava.errors import InputError
from llava.train.run_record import defaults_of, describe_run, differences


def weights(arguments: DistillArguments) -> dict[str, float]:
    return {name: loss.weight for name, loss in arguments.objective.losses.items()}


def test_the_papers_losses_are_the_default():
    assert weights(DistillArguments("teacher")) == {"sft": 1.0, "kd": 1.0, "iva": 1.0, "tpa": 1.0}


def test_any_subset_of_the_losses():
    arguments = DistillArguments("teacher", losses="rel, tpa", rel_weight=0.5)
    assert weights(arguments) == {"rel": 0.5, "tpa": 1.0}


@pytest.mark.parametrize(
    "flags, function, parameter",
    [
        ({"divergence": "jsd", "jsd_beta": 0.3}, jsd, {"beta": 0.3}),
        ({"divergence": "jsd", "jsd_beta": 1e-05}, jsd, {"beta": 1e-05}),
        ({"divergence": "skew_kl", "skew_alpha": 0.2}, skew_kl, {"alpha": 0.2}),
        ({"divergence": "jsd:0.7"}, jsd, {"beta": 0.7}),
    ],
)
def test_parameters_of_divergences(flags, function, parameter):
    found = get_divergence(DistillArguments("teacher", **flags).objective.divergence.full_name)
    assert isinstance(found, partial) and found.func is function and found.keywords == parameter


def test_divergences_without_a_parameter():
    assert DistillArguments("teacher").objective.divergence.full_name == "forward_kl"
    assert DistillArguments("teacher", divergence="jsd").objective.divergence.full_name == "jsd"


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"jsd_beta": 0.5}, "--jsd_beta 0.5 is the parameter of --divergence jsd.*'forward_kl'"),
        ({"divergence": "jsd", "skew_alpha": 0.5}, "--skew_alpha.*skew_kl.*'jsd'"),
        ({"divergence": "jsd:0.3", "jsd_beta": 0.5}, "'jsd:0.3'"),
        ({"divergence": "jsd", "jsd_beta": 1.0}, "--jsd_beta is 1.0.*strictly between"),
        ({"divergence": "skew_kl", "skew_alpha": 0.0}, "--skew_alpha is 0.0"),
        ({"divergence": "chi2"}, "forward_kl"),
        ({"losses": "sft,sft"}, "sft, kd, iva, tpa, rel"),
        ({"losses": "sft,pg"}, "--on_policy_fraction is 0.*above 0"),
        ({"losses": "pg", "on_policy_fraction": 0.5}, "fraction is 0.5.*Add sft"),
        ({"losses": "sft,pg", "on_policy_fraction": 1.0, "on_policy_temperature": 0.7}, "temperature is 0.7"),
        ({"losses": "sft", "on_policy_fraction": 0.5}, "fraction is 0.5.*Add kd"),
        ({"on_policy_fraction": -0.1}, "fraction is -0.1"),
        ({"iva_weights": "both"}, "teacher, student, uniform"),
        ({"rel_similarity": "angle"}, "cosine, product"),
    ],
)
def test_refusals(flags, message):
    with pytest.raises(InputError, match=message):
        DistillArguments("teacher", **flags)


def test_runs_of_before_a_setting_existed_are_resumed():
    """A record that lacks its flag stands for the default; another value is another run."""
    old = describe_run(1, distill=DistillArguments("teacher", losses="sft,kd"))
    for flag in ("topk_k", "topk_weight"):
        del old["distill"][flag]
    for k, expected in ((64, []), (8, ["topk_k was 64, now it is 8"])):
        now = DistillArguments("teacher", losses="sft,kd", topk_k=k)
        found = differences(old, describe_run(1, distill=now), (), defaults_of(distill=now))
        assert list(map(str, found)) == expected
