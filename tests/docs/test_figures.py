"""The masks that docs/figures/ribbon.py draws are those that the passes run with."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from align_ti.attention.interface import AttentionCapture, align_ti_attention, use_align_ti_attention
from align_ti.attention.ribbon.geometry import ribbon_geometry
from align_ti.attention.ribbon.sdpa import SdpaRibbon
from align_ti.candidates.algorithm1 import single_pass
from align_ti.candidates.prefix import candidate_pass
from llava.model.language import LlavaQwen2Config, LlavaQwen2ForCausalLM

FIGURES = Path(__file__).resolve().parents[2] / "docs/figures"


@pytest.fixture
def ribbon(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(FIGURES)
    return importlib.import_module("ribbon")


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    config = LlavaQwen2Config(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    model = LlavaQwen2ForCausalLM(config).eval()
    use_align_ti_attention(model)
    return model.model


@pytest.fixture
def masks_used(monkeypatch) -> list[torch.Tensor]:
    """The masks that reach PyTorch's attention, of main passes and of candidate passes."""
    used: list[torch.Tensor] = []
    for function, name in (
        (align_ti_attention, "sdpa_attention_forward"),
        (SdpaRibbon, "scaled_dot_product_attention"),
    ):
        module = sys.modules[function.__module__]
        original = getattr(module, name)

        def recording(*args, original=original, **kwargs):
            used.append(kwargs["attn_mask"] if "attn_mask" in kwargs else args[4])
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, recording)
    return used


def drawn(ribbon: ModuleType) -> list[np.ndarray]:
    """What the figure's cells show: 0 where a row does not attend to a column, else the column's kind."""
    return [np.asarray(axes.collections[0].get_array()) for axes in ribbon.draw().axes]


def test_algorithm_1_runs_with_the_mask_drawn(ribbon, decoder, masks_used):
    candidates, attention_mask, position_ids = ribbon.layout(merge=False)
    embeds = torch.randn(1, attention_mask.shape[1], 16)
    single_pass(decoder, embeds, attention_mask, position_ids, candidates)
    (mask,) = masks_used
    assert np.array_equal(drawn(ribbon)[0] > 0, mask[0, 0].numpy())


@pytest.mark.parametrize("merge", [False, True])
def test_candidate_passes_run_with_the_masks_drawn(ribbon, decoder, masks_used, merge):
    candidates, attention_mask, position_ids = ribbon.layout(merge)
    prefix = AttentionCapture(keep_prefix=True)
    embeds = torch.randn(1, attention_mask.shape[1], 16)
    decoder(inputs_embeds=embeds, attention_mask=attention_mask, position_ids=position_ids, capture=prefix)
    geometry = ribbon_geometry(candidates.sample, candidates.limit, attention_mask)
    candidate_pass(decoder, prefix, candidates, geometry, backend="sdpa")
    assert np.array_equal(drawn(ribbon)[1 + merge] > 0, (masks_used[-1] == 0).numpy())


def test_the_masks_are_those_of_the_definition(ribbon):
    """A token sees what is before it in the sample; a candidate stands in its step's place; nothing else sees it."""
    main = ["v1", "v2", "v3", "u1", "u2", "y1", "y2", "y3"]
    for panel, cells in zip(ribbon.panels(), drawn(ribbon), strict=True):
        rows, columns = (
            ["".join(re.findall(r"[vuy]|\d", name)) for name in names] for names in (panel.rows, panel.columns)
        )
        for row, cells_of_row in zip(rows, cells, strict=True):
            place = main.index(row[:2])
            seen = {*main[:place], row}
            assert {column for column, cell in zip(columns, cells_of_row, strict=True) if cell} == seen & {*columns}
            assert seen <= {*columns}
            kinds = {column: cell for column, cell in zip(columns, cells_of_row, strict=True) if cell}
            assert all(
                kind == ("vuy".index(column[0]) + 1 if len(column) == 2 else 4) for column, kind in kinds.items()
            )


def test_the_forms_agree(ribbon):
    whole, candidates, merged = ribbon.panels()
    rows = [whole.rows.index(name) for name in candidates.rows]
    columns = [whole.columns.index(name) for name in candidates.columns]
    assert np.array_equal(candidates.mask, whole.mask[np.ix_(rows, columns)])
    rows = [candidates.rows.index(name) for name in merged.rows]
    columns = [candidates.columns.index(name) for name in merged.columns]
    assert np.array_equal(merged.mask, candidates.mask[np.ix_(rows, columns)])
    assert len(merged.rows) == 4 and merged.weights == ["1/2", "1", "1/2", "1/2"]


@pytest.mark.parametrize("name", ["ribbon", "overview"])
@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_files_were_drawn_from_these_masks(ribbon, name, ending):
    assert ribbon.fingerprint().encode() in (FIGURES / f"{name}.{ending}").read_bytes()
