"""Forward passes: padding, losses, gradients, and what happens without pictures."""

import logging

import pytest
import torch
from torch.nn import functional as F

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.model import loss as loss_module

IMG = IMAGE_TOKEN_INDEX
FAMILIES = ["qwen2", "qwen3", "llama"]
ROWS = [[5, IMG, 6, 7, 8], [9, 10, 11], [IMG, 12, IMG, 13, 14, 15, 16], [17, IMG]]
PICTURES = [1, 0, 2, 1]


def pad(rows: list[list[int]], side: str, extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids ``[B, T]`` and bool mask, with ``extra`` more columns of padding."""
    width = max(map(len, rows)) + extra
    ids, mask = (
        torch.zeros(len(rows), width, dtype=torch.long),
        torch.zeros(len(rows), width, dtype=torch.bool),
    )
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, place], mask[i, place] = torch.tensor(row), True
    return ids, mask


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_does_not_change_logits(make_model, pictures, family, side):
    model = make_model(family, dtype=torch.float64)
    model.config.tokenizer_padding_side = side
    images = pictures(sum(PICTURES), dtype=torch.float64)
    ids, mask = pad(ROWS, side, extra=2)
    with torch.no_grad():
        batch = model.splice_inputs(ids, mask, images=images)
        logits = model(ids, mask, images=images).logits
        first = 0
        for i, row in enumerate(ROWS):
            own = images[first : first + PICTURES[i]] if PICTURES[i] else None
            first += PICTURES[i]
            alone = model(torch.tensor([row]), images=own).logits[0]
            torch.testing.assert_close(logits[i][batch.attention_mask[i]], alone, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_of_a_text_only_batch(make_model, side):
    model = make_model(dtype=torch.float64)
    rows = [[9, 10, 11], [5, 6, 7, 8, 12]]
    ids, mask = pad(rows, side, extra=1)
    with torch.no_grad():
        logits = model(ids, mask).logits
        for i, row in enumerate(rows):
            alone = model(torch.tensor([row])).logits[0]
            torch.testing.assert_close(logits[i][mask[i]], alone, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_plain_language_model_on_its_own_embeddings(make_model, pictures, family, language_folder):
    """The pass is transformers' own, on embeddings put together by hand."""
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(language_folder(family), dtype=torch.float64)
    model = make_model(family, dtype=torch.float64)
    images = pictures(1, dtype=torch.float64)
    with torch.no_grad():
        visual = model.model.mm_projector(model.get_vision_tower()(images))[0]
        embed = plain.get_input_embeddings()
        embeds = torch.cat([embed(torch.tensor([5])), visual, embed(torch.tensor([6, 7]))])[None]
        want = plain(inputs_embeds=embeds).logits
        got = model(torch.tensor([[5, IMG, 6, 7]]), images=images).logits
        text = torch.tensor([[5, 6, 7]])
        torch.testing.assert_close(model(text).logits, plain(text).logits)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("count", [None, 7])
def test_training_loss_is_next_token_cross_entropy(make_model, pictures, count, monkeypatch):
    model = make_model(dtype=torch.float64).train()
    images = pictures(4, dtype=torch.float64)
    ids, mask = pad(ROWS, "right")
    labels = torch.where(mask & (ids != IMG) & (ids % 2 == 0), ids, IGNORE_INDEX)
    batch = model.splice_inputs(ids, mask, labels, images=images)
    logits = model(inputs_embeds=batch.inputs_embeds, attention_mask=batch.attention_mask).logits
    want = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), reduction="sum")
    want = want / (int((batch.labels[:, 1:] != IGNORE_INDEX).sum()) if count is None else count)

    out = model(ids, mask, labels=labels, images=images, num_items_in_batch=count)
    assert out.logits is None
    torch.testing.assert_close(out.loss, want)
    evaluated = model.eval()(ids, mask, labels=labels, images=images, num_items_in_batch=count)
    torch.testing.assert_close(evaluated.loss, want)
    assert evaluated.logits.shape == (*batch.labels.shape, model.config.vocab_size)

    monkeypatch.setattr(loss_module, "CHUNK", 2)  # the recomputed form: same loss, same gradient
    model.train()
    gradients = []
    for chunk in (2, 1000):
        monkeypatch.setattr(loss_module, "CHUNK", chunk)
        model.zero_grad()
        chunked = model(ids, mask, labels=labels, images=images, num_items_in_batch=count).loss
        torch.testing.assert_close(chunked, want)
        chunked.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("tied", [False, True])
def test_gradient_only_where_expected(make_model, pictures, tied):
    model = make_model(tied=tied).train()
    ids = torch.tensor([[5, IMG, 6, 7]])
    model(ids, labels=torch.tensor([[IGNORE_INDEX, IGNORE_INDEX, 6, 7]]), images=pictures(1)).loss.backward()
    for name, parameter in model.named_parameters():
        if "vision_tower" in name:
            assert parameter.grad is None and not parameter.requires_grad, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


def test_batch_without_pictures_still_reaches_the_projector(make_model):
    """Gradients that exist and are zero, so that distributed ranks agree; the loss is untouched."""
    model = make_model(dtype=torch.float64).train()
    ran = []
    model.get_vision_tower().register_forward_hook(lambda *_: ran.append("tower"))
    model.model.mm_projector.register_forward_hook(lambda *_: ran.append("projector"))
    ids = torch.tensor([[5, 6, 7, 8]])
    loss = model(ids, labels=ids).loss
    assert ran == ["tower", "projector"]
    loss.backward()
    for parameter in model.model.mm_projector.parameters():
        assert parameter.grad is not None and not parameter.grad.any()
    with torch.no_grad():
        torch.testing.assert_close(loss, model.eval()(ids, labels=ids).loss)
    assert ran == ["tower", "projector"]  # evaluation needs no blank picture


def test_nothing_supervised(make_model, pictures, caplog):
    model = make_model().train()
    ids = torch.tensor([[5, IMG, 6, 7]])
    labels = torch.full_like(ids, IGNORE_INDEX)
    with caplog.at_level(logging.WARNING, logger="llava"):
        losses = [model(ids, labels=labels, images=pictures(1), num_items_in_batch=n).loss for n in (None, 5)]
    assert [float(loss.detach()) for loss in losses] == [0.0, 0.0]
    assert sum("no supervised token" in record.message for record in caplog.records) == 1
    losses[0].backward()
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert all(p.grad is not None and not p.grad.any() for _, p in trainable)


def test_images_in_every_accepted_form(make_model, pictures):
    model = make_model()
    images = pictures(4)
    ids = torch.tensor([[5, IMG, IMG, 7], [IMG, 6, IMG, 8]])
    with torch.no_grad():
        want = model(ids, images=images).logits
        forms = [list(images), images.view(2, 2, 3, 16, 16), [images[:2], images[2:]]]
        for form in forms:
            assert torch.equal(model(ids, images=form).logits, want)
        features = model.vision_features(images)
        assert torch.equal(model(ids, vision_features=features).logits, want)
        assert not torch.equal(model(ids, images=images.flip(0)).logits, want)


@pytest.mark.parametrize("training", [False, True])
def test_the_tower_does_not_run_on_known_features(make_model, pictures, training):
    model = make_model().train(training)
    features = model.vision_features(pictures(1))
    ran = []
    model.get_vision_tower().register_forward_hook(lambda *_: ran.append("tower"))
    ids = torch.tensor([[5, IMG, 6]])
    model(ids, images=pictures(1), vision_features=features, labels=ids)
    assert not ran


def test_keyword_arguments_reach_the_attention_function(make_model):
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    seen = []

    def attention(module, *args, notebook=None, **kwargs):
        seen.append((module.layer_idx, notebook))
        return sdpa_attention_forward(module, *args, **kwargs)

    AttentionInterface.register("llava_test_capture", attention)
    AttentionMaskInterface.register("llava_test_capture", sdpa_mask)
    model = make_model()
    model.config._attn_implementation = "llava_test_capture"
    notebook = object()
    with torch.no_grad():
        model(torch.tensor([[5, 6]]), notebook=notebook)
    assert seen == [(0, notebook), (1, notebook)]


def test_step_runs_inside_the_forward(make_model):
    model = make_model()
    entered = []
    model.register_forward_pre_hook(lambda *_: entered.append(1))
    result = model(step=lambda inner: {"same": inner is model})
    assert result == {"same": True}
    assert entered == [1]


def test_return_tuple_and_hidden_states(make_model):
    model = make_model()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
        assert len(out.hidden_states) == 3
        assert torch.equal(model(ids, return_dict=False)[0], out.logits)
        assert model(ids, logits_to_keep=1).logits.shape[1] == 1


def test_gradient_checkpointing_leaves_the_gradient_alone(make_model, pictures):
    model = make_model(dtype=torch.float64).train()
    ids = torch.tensor([[5, IMG, 6, 7]])
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.zero_grad()
        model(ids, labels=ids, images=pictures(1)).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_precomputed_features_in_a_text_only_training_batch(make_model, pictures):
    """An objective that runs the tower itself passes an empty result; the projector still gets zeros."""
    model = make_model().train()
    ids = torch.tensor([[5, 6, 7]])
    features = model.vision_features(None)
    assert features.shape[0] == 0
    model(ids, labels=ids, vision_features=features).loss.backward()
    assert all(not p.grad.any() for p in model.model.mm_projector.parameters())


def test_vision_modules_are_kept_when_they_fit(make_model, tower_folder):
    model = make_model()
    tower, projector = model.get_vision_tower(), model.model.mm_projector
    model.initialize_vision_modules(str(tower_folder("siglip")), "mlp2x_gelu", -2)
    assert model.get_vision_tower() is tower and model.model.mm_projector is projector
    model.initialize_vision_modules(str(tower_folder("siglip")), "linear", -1)
    assert model.get_vision_tower() is not tower and isinstance(model.model.mm_projector, torch.nn.Linear)
    assert model.config.mm_projector_type == "linear" and model.config.mm_vision_select_layer == -1


def test_pictures_and_markers_must_match(make_model, pictures, language_folder):
    model = make_model()
    with pytest.raises(InputError, match="1 <image> markers .* 2 images"):
        model(torch.tensor([[5, IMG]]), images=pictures(2))
    with pytest.raises(InputError, match="1 <image> markers .* 0 images"):
        model(torch.tensor([[5, IMG]]))
    with pytest.raises(InputError, match="splice_inputs"):
        model(inputs_embeds=torch.zeros(1, 2, 32), images=pictures(1))
    with pytest.raises(InputError, match="splice_inputs"):
        model(torch.tensor([[IMG]]), attention_mask=torch.ones(1, 1, 1, 1).bool(), images=pictures(1))
    from llava.model import LlavaQwen2ForCausalLM

    blind = LlavaQwen2ForCausalLM.from_pretrained(language_folder("qwen2"))
    with pytest.raises(InputError, match="no vision tower"):
        blind(torch.tensor([[5, IMG]]), images=pictures(1))
    with pytest.raises(InputError, match="initialize_vision_modules"):
        blind.load_vision_tower()
    assert blind(torch.tensor([[5, 6]])).logits.shape[:2] == (1, 2)
