"""Maps: align_ti's own numbers, the words of the right question, and the right place on the picture."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from align_ti.attention.overlay import SeenBox, covered, display_size, draw, sample, share_inside
from align_ti.studies.attention.pictures import Viewer
from align_ti.web.maps import measure
from llava.data.images import preprocess_image
from llava.serve.chat import Chat


def test_maps_equal_the_captured_ones(models, wide):
    for model in models.values():
        chat = Chat(model, wide)
        chat.exchanges = [("Is there a goat?", "No.")]
        maps = measure(chat)
        viewer = Viewer(model.loaded.tokenizer, model.loaded.model, "qwen")
        torch.testing.assert_close(
            torch.from_numpy(maps.grids), viewer.maps(wide, "Is there a goat?").float(), rtol=1e-5, atol=1e-7
        )
        assert maps.grids.shape[0] == model.layers
        assert maps.peak(0) == maps.grids[0].max() and 0 < maps.total(0) <= 1


def test_maps_of_a_later_answer_are_its_own_words(models, wide):
    """Against attention weights of transformers' eager attention, averaged by hand."""
    model = models["teacher"]
    chat = Chat(model, wide)
    chat.exchanges = [("What is this?", "A goat."), ("Is it red?", "Yes.")]
    text = "".join(segment.text for segment in chat.segments("Is it red?", chat.exchanges[:1]))
    tokenizer, llava = model.loaded.tokenizer, model.loaded.model
    head, tail = text.split("<image>")
    start = tail.index(" Is it red?")
    offsets = tokenizer(tail, return_offsets_mapping=True)
    words = [i for i, (a, _) in enumerate(offsets.offset_mapping) if start <= a < start + len(" Is it red?")]
    first = len(tokenizer(head).input_ids)
    ids = torch.tensor([[*tokenizer(head).input_ids, -200, *offsets.input_ids]])
    inputs = llava.splice_inputs(ids, vision_features=chat.features())
    visual = int(inputs.visual_mask.sum())
    llava.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            weights = llava.model(
                inputs_embeds=inputs.inputs_embeds, position_ids=inputs.position_ids, output_attentions=True
            ).attentions
    finally:
        llava.set_attn_implementation("align_ti")
    rows = [first + visual + word for word in words]
    expected = torch.stack([w[0, :, rows].mean((0, 1))[first : first + visual] for w in weights])
    found = measure(chat, 1).grids
    np.testing.assert_allclose(found.reshape(len(found), -1), expected.numpy(), rtol=1e-4, atol=1e-6)
    assert not np.allclose(found, measure(chat, 0).grids)


def test_no_map_without_a_picture(models):
    chat = Chat(models["teacher"])
    chat.exchanges = [("Hello?", "Yes.")]
    assert measure(chat) is None


SIGLIP = SiglipImageProcessorPil(size={"height": 62, "width": 62})
CLIP = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})


@pytest.mark.parametrize("size", [(300, 120), (121, 260), (200, 200)])
@pytest.mark.parametrize(
    ("processor", "aspect", "image_size", "patch"),
    [
        (SIGLIP, "pad", 62, 15),
        (SIGLIP, None, 62, 15),
        (SIGLIP, "square", 62, 15),
        (CLIP, "pad", 64, 16),
        (CLIP, None, 64, 16),
    ],
)
def test_every_patch_is_drawn_where_its_pixels_were(size, processor, aspect, image_size, patch):
    """A white dot goes through the real preprocessing; the patch that lights up must be hottest at the dot."""
    width, height = size
    side = image_size // patch
    tower = SimpleNamespace(
        image_size=image_size, vision_tower=SimpleNamespace(config=SimpleNamespace(patch_size=patch))
    )
    box = SeenBox.of(width, height, aspect, processor, tower)
    one_hot = np.eye(side * side).reshape(-1, side, side)
    heats = np.stack([sample(grid, box, width, height) for grid in one_hot])
    black = preprocess_image(Image.new("RGB", size), processor, aspect)
    checked, unseen = set(), 0
    for x in range(6, width - 6, 13):
        for y in range(6, height - 6, 13):
            picture = Image.new("RGB", size)
            picture.paste((255, 255, 255), (x - 3, y - 3, x + 4, y + 4))
            light = (preprocess_image(picture, processor, aspect) - black).abs().sum(0)
            seen = light[: side * patch, : side * patch].reshape(side, patch, side, patch).sum((1, 3)).flatten()
            if light.sum() < 1e-3:
                assert np.isnan(heats[0, y, x])
                unseen += 1
            elif seen.max() > 0.9 * light.sum():  # not on the border of two patches, nor of what is seen
                assert int(heats[:, y, x].argmax()) == int(seen.argmax()), (x, y)
                checked.add(int(seen.argmax()))
    assert len(checked) >= (side * side if size[0] == size[1] or aspect != "pad" else side)
    assert bool(unseen) == (processor is CLIP and aspect is None and size != (200, 200))


def test_patches_that_do_not_fill_the_tower():
    siglip = SimpleNamespace(image_size=384, vision_tower=SimpleNamespace(config=SimpleNamespace(patch_size=14)))
    assert covered(siglip) == 378 / 384
    assert covered(SimpleNamespace(image_size=224)) == 1.0


def test_share_on_the_padding(models, wide):
    grid = np.zeros((4, 4))
    box = SeenBox.of(200, 100, "pad", SIGLIP, SimpleNamespace(image_size=64))
    assert (box.top, box.bottom, box.left, box.right) == (-50, 150, 0, 200)
    grid[0, 0] = grid[1, 1] = 1  # the first row of patches is padding, the second is picture
    assert share_inside(grid, box, 200, 100) == pytest.approx(0.5)
    chat = Chat(models["teacher"], wide)
    chat.exchanges = [("Is there a goat?", "No.")]
    assert 0 < measure(chat).on_padding(wide, 0) < 1


def test_drawing(wide):
    grid = np.zeros((4, 4))
    grid[1, 3] = 0.02
    tower = SimpleNamespace(image_size=64)
    drawn = draw(wide, grid, SeenBox.of(*wide.size, "pad", SIGLIP, tower))
    assert drawn.size == display_size(*wide.size) == (720, 300)
    pixels = np.asarray(drawn).astype(int).sum(2)
    y, x = np.unravel_index(pixels.argmax(), pixels.shape)
    assert x > 600 and y < 100  # top right of the picture: the second row of patches begins at its upper edge
    assert pixels.max() > 600 and pixels[-20:, :200].max() < 250
    assert draw(wide, np.zeros((4, 4)), SeenBox.of(*wide.size, None, SIGLIP, tower)).size == (720, 300)
