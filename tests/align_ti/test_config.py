"""Every field of the objective's settings with values that it cannot have, in Python and on the command line."""

import math
from dataclasses import MISSING, fields

import pytest

from align_ti.config import CHOICES, LOSSES, ObjectiveSettings
from align_ti.training.arguments import FLAGS, DistillArguments
from llava.errors import InputError
from llava.train.parsing import parse_arguments
from tests.align_ti.training.whole_objective import TEACHER_HIDDEN, settings, total

ANY_CHOICE = {name: (["x", None, 1], f"{name} .*: expected one of {', '.join(CHOICES[name])}") for name in CHOICES}
ON_OR_OFF = (["False", 1, None], "expected True or False")
BAD = {
    **ANY_CHOICE,
    "weights": ([{}, {"magic": 1.0}, {"kd": -1.0}, {"kd": math.nan}, {"kd": "1"}, {"kd": 0.0}, ["kd"]], "weights"),
    "iva_layer": ([-1, 1.5, "1", True], "iva_layer is .*; expected a layer number from 0"),
    "divergence": (["chi2", "jsd:2", None], "divergence.*(forward_kl|between 0 and 1|name)"),
    "temperature": ([0.0, -1.0, math.nan, math.inf, "1"], "temperature is .*; expected a positive number"),
    "d": ([0, -1, 2.5, "4", True], "d is .*; expected a whole number of candidates, at least 1"),
    "top_p": ([0.0, 1.1, -0.5, math.nan, "1"], "top_p is .*; expected a probability"),
    "merge_draws": ON_OR_OFF,
    "compile_losses": ON_OR_OFF,
    "packing": ON_OR_OFF,
    "end_of_turn_ids": ([2, "2", [None], [-1]], "end_of_turn_ids is .*; expected a collection of token ids"),
    "seed": ([-1, 2**64, 0.5, None], "seed is .*; expected a whole number, 0 to"),
}


def test_every_field_is_tried():
    assert BAD.keys() == {field.name for field in fields(ObjectiveSettings)}


@pytest.mark.parametrize("name, value", [(name, value) for name, (values, _) in BAD.items() for value in values])
def test_in_python(name, value):
    good = {"weights": {"kd": 1.0, "iva": 0.0}, "iva_layer": 1}
    ObjectiveSettings(**good)
    with pytest.raises(InputError, match=BAD[name][1]):
        ObjectiveSettings(**{**good, name: value})


@pytest.mark.parametrize("name", list(CHOICES))
def test_every_choice_is_taken(name):
    for value in CHOICES[name]:
        ObjectiveSettings({"kd": 1.0}, **{name: value})
        assert parsed(f"--{FLAGS[name]}", value).settings[name] == value


def parsed(*flags: str) -> DistillArguments:
    (arguments,) = parse_arguments(DistillArguments, argv=["--teacher_path", "teacher", *flags])
    return arguments


TYPED = {
    **{name: ("x", f"'x': expected one of {', '.join(CHOICES[name])}") for name in CHOICES},
    "divergence": ("chi2", ".*forward_kl"),
    "temperature": ("nan", "is nan; expected a positive number"),
    "d": ("0", "is 0; expected a whole number of candidates, at least 1"),
    "top_p": ("1.5", "is 1.5; expected a probability"),
}
"""A bad value for the flag of each field, and the message behind the flag's name."""


@pytest.mark.parametrize("name", list(TYPED))
def test_on_the_command_line(name):
    value, message = TYPED[name]
    with pytest.raises(InputError, match=f"^--{FLAGS[name]}:? {message}"):
        parsed(f"--{FLAGS[name]}", value)


@pytest.mark.parametrize("name", sorted(FLAGS.keys() - TYPED.keys()))
def test_switches_on_the_command_line(name):
    with pytest.raises(InputError, match=f"--{FLAGS[name]}.*perhaps"):
        parsed(f"--{FLAGS[name]}", "perhaps")


@pytest.mark.parametrize("loss", LOSSES)
def test_factors_on_the_command_line(loss):
    chosen = ("--losses", f"kd,{loss}" if loss != "kd" else "kd", "--on_policy_fraction", "0.5")
    for value in ("-1", "nan", "inf"):
        with pytest.raises(InputError, match=f"^--{loss}_weight is .*; expected a number, at least 0"):
            parsed(*chosen, f"--{loss}_weight", value)
    with pytest.raises(InputError, match="^all of --kd_weight, --tpa_weight are 0: nothing is trained"):
        parsed("--losses", "kd,tpa", "--kd_weight", "0", "--tpa_weight", "0")


def test_flags_and_settings_have_the_same_defaults():
    arguments = parsed()
    for field in fields(ObjectiveSettings):
        if field.name in FLAGS:
            assert field.default is not MISSING and arguments.settings[field.name] == field.default


@pytest.mark.parametrize("ribbon", ["prefix", "algorithm1"])
def test_samples_in_one_row_need_the_shared_prefix(ribbon):
    """Algorithm 1's mask would let them attend to each other."""
    flags = ("--packing", "True", "--ribbon", ribbon)
    if ribbon == "prefix":
        ObjectiveSettings({"tpa": 1.0}, packing=True, ribbon=ribbon)
        parsed(*flags)
        return
    with pytest.raises(InputError, match="^packing works with ribbon prefix"):
        ObjectiveSettings({"tpa": 1.0}, packing=True, ribbon=ribbon)
    with pytest.raises(InputError, match="^--packing works with --ribbon prefix"):
        parsed(*flags)


@pytest.mark.parametrize("whose, layers", [("teacher", 3), ("student", 2)])
def test_a_layer_that_the_model_does_not_have(whose, layers, tiny_model, make_batch):
    models = tiny_model(), tiny_model(vocab=34, hidden=TEACHER_HIDDEN, layers=3, seed=1)
    chosen = settings(("iva",), iva_weights=whose, iva_layer=layers)
    with pytest.raises(InputError, match=f"iva_layer is {layers}, but the {whose} has {layers} layers, 0 to"):
        total(*models, make_batch(), chosen)
