"""Projector kinds and their weights' names."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from llava.errors import InputError
from llava.model.projector import build_projector


def config(kind: str, width: int | None = 6, hidden: int = 4) -> SimpleNamespace:
    return SimpleNamespace(mm_projector_type=kind, mm_hidden_size=width, hidden_size=hidden)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("linear", ["weight", "bias"]),
        ("mlp1x_gelu", ["0.weight", "0.bias"]),
        ("mlp2x_gelu", ["0.weight", "0.bias", "2.weight", "2.bias"]),
        ("mlp3x_gelu", ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]),
    ],
)
def test_names_and_shape(kind, names):
    projector = build_projector(config(kind))
    assert [name for name, _ in projector.named_parameters()] == names
    assert projector(torch.randn(2, 5, 6)).shape == (2, 5, 4)


def test_mlp_is_linear_gelu_linear():
    projector = build_projector(config("mlp2x_gelu"))
    weights = projector.state_dict()
    x = torch.randn(3, 6)
    hidden = F.gelu(x @ weights["0.weight"].T + weights["0.bias"])
    torch.testing.assert_close(projector(x), hidden @ weights["2.weight"].T + weights["2.bias"])


def test_identity():
    x = torch.randn(2, 4)
    assert torch.equal(build_projector(config("identity", width=4))(x), x)
    with pytest.raises(InputError, match="6 is not 4"):
        build_projector(config("identity"))


@pytest.mark.parametrize("kind", ["mlp0x_gelu", "mlp2x_relu", "qformer", "mlp_gelu"])
def test_unknown_kind_lists_the_choices(kind):
    with pytest.raises(InputError, match=f"{kind}.*'linear', 'identity' or 'mlpNx_gelu'"):
        build_projector(config(kind))


def test_width_is_needed():
    with pytest.raises(InputError, match="mm_hidden_size"):
        build_projector(config("linear", width=None))
