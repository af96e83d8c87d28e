"""A compiled function is used where it gives what the plain one gives, and nowhere else."""

import logging

import pytest
import torch

from llava import fusion
from llava.fusion import checked, fused_where_fast, why_not_fused

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(why_not_fused(CPU) is not None, reason="torch.compile does not run here")


def scaled(values, factor):
    return {"scaled": values * factor, "share": values.softmax(-1)}


def test_a_compiled_function_that_agrees_runs_with_its_gradient():
    function = checked(scaled)
    for rows in (3, 5):
        values = torch.randn(rows, 4, requires_grad=True)
        found, expected = function(values, 3), scaled(values, 3)
        torch.testing.assert_close(found, expected)
        ours, wanted = (
            torch.autograd.grad(sum(part.sin().sum() for part in out.values()), values)[0] for out in (found, expected)
        )
        torch.testing.assert_close(ours, wanted)
    assert function.agrees == {(torch.float32,): True}


@pytest.mark.parametrize("wrong", [lambda x: x * 1.1, lambda x: x.masked_fill(x == x.max(), torch.nan)])
def test_one_that_does_not_is_not_used(wrong, monkeypatch, caplog):
    def double(values):
        return 2 * values

    monkeypatch.setattr(fusion, "fuse", lambda function: lambda values: wrong(function(values)))
    function = fusion._Checked(double)
    values = torch.randn(20)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(function(values), 2 * values)
    assert [record.message for record in caplog.records if "for double" in record.message] == [caplog.messages[0]]


def test_infinities_agree_where_they_are_the_same():
    def logs(values):
        return values.log()

    assert checked(logs)(torch.tensor([0.0, 1.0, 2.0]))[0] == -torch.inf
    assert checked(logs).agrees == {(torch.float32,): True}


def test_a_cpu_runs_the_plain_function():
    assert fused_where_fast(scaled, CPU) is scaled
