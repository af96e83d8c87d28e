"""``--iva_layer``: a number, a depth in percent, or auto; everything else is refused by name."""

import pytest

from align_ti.training.arguments import DistillArguments
from align_ti.training.teacher import resolve_layer
from llava.errors import InputError


@pytest.mark.parametrize(
    ("choice", "layers", "expected"),
    [("0", 4, 0), ("3", 4, 3), ("0%", 28, 0), ("50%", 28, 14), ("75%", 28, 21), ("100%", 28, 27), ("67%", 4, 2)],
)
def test_layers_by_number_and_depth(choice, layers, expected):
    assert DistillArguments("teacher", iva_layer=choice).iva_layer == choice
    assert resolve_layer(choice, layers) == expected


def test_auto_is_decided_later():
    assert resolve_layer("auto", 4) is None


@pytest.mark.parametrize("choice", ["-1", "101%", "half", "75 %", "%", "1.5", ""])
def test_no_layer(choice):
    with pytest.raises(InputError, match="expected a layer number from 0, a depth from 0% to 100%, or auto"):
        DistillArguments("teacher", iva_layer=choice)


def test_a_layer_the_teacher_has_not():
    with pytest.raises(InputError, match="4 is out of range: the student has 4 layers, 0 to 3"):
        resolve_layer("4", 4, "student")
