"""Gradient checkpointing and the keys and values that candidates read: the non-reentrant kind, or none."""

import pytest

from llava.errors import InputError
from tests.align_ti.training.whole_objective import TEACHER_HIDDEN, assert_same, settings, total


@pytest.fixture
def models(tiny_model):
    return tiny_model(), tiny_model(vocab=34, hidden=TEACHER_HIDDEN, layers=3, seed=1)


def checkpointed(model, reentrant):
    name = "activation_checkpointing_enable"  # transformers' older releases: gradient_checkpointing_enable
    getattr(model, name, model.gradient_checkpointing_enable)({"use_reentrant": reentrant})
    return model.train()


@pytest.mark.parametrize("packing", [False, True])
def test_the_objective_under_checkpointing(packing, models, make_batch):
    student, teacher = models
    chosen = settings(("sft", "kd", "iva", "tpa"), packing=packing)
    expected = total(student, teacher, make_batch(), chosen)
    assert_same(total(checkpointed(student, False), teacher, make_batch(), chosen), expected)
    with pytest.raises(InputError, match="without their graph.*use_reentrant"):
        total(checkpointed(student, True), teacher, make_batch(), chosen)
