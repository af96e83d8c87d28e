"""Scenes: reproducible, inside the picture, hardly overlapping, visible; held-out pairs stay held out."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from llava.errors import InputError
from playground.mini.concepts import concepts, held_out_partners, is_held_out
from playground.mini.layout import Background, Scene, SceneObject, Sign
from playground.mini.render import COLOURS, PLATES, draw_background, draw_sign, render
from playground.mini.scenes import MAX_OVERLAP, SIGN_WORDS, make_scene, make_scenes
from playground.mini.wording import PLACES


def test_same_seed_same_scene_and_other_seed_another():
    assert list(make_scenes(3, "train", 20)) == list(make_scenes(3, "train", 20))
    assert make_scene(3, "train", 7) == list(make_scenes(3, "train", 2, start=6))[1]
    keys = [(seed, split) for seed in (3, 4) for split in ("train", "pretrain", "test")]
    firsts = [make_scene(seed, split, 0) for seed, split in keys]
    assert len({(scene.objects, scene.background) for scene in firsts}) == len(firsts)


def test_unknown_split_is_named():
    with pytest.raises(InputError, match="validation"):
        make_scene(0, "validation", 0)


def test_objects_are_inside_at_their_places_and_apart(train_scenes):
    for scene in train_scenes:
        boxes = [item.box for item in scene.objects] + ([scene.sign.box] if scene.sign else [])
        for item in scene.objects:
            left, top, right, bottom = item.box
            assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
            column, row = int((left + right) / 2 * 2), int((top + bottom) / 2 * 2)
            assert PLACES[2 * row + column] == item.place
        for first, second in combinations(boxes, 2):
            width = min(first[2], second[2]) - max(first[0], second[0])
            height = min(first[3], second[3]) - max(first[1], second[1])
            smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
            assert max(width, 0) * max(height, 0) <= MAX_OVERLAP * smaller + 1e-6
        if scene.sign:
            assert all(item.place != scene.sign.place for item in scene.objects)
        places = [PLACES.index(item.place) for item in scene.objects]
        assert places == sorted(set(places)), "reading order, one object a place"


def test_scenes_are_varied(train_scenes):
    numbers = Counter(len(scene.objects) for scene in train_scenes)
    assert set(numbers) == {1, 2, 3, 4}
    assert 0.27 < sum(scene.sign is not None for scene in train_scenes) / len(train_scenes) < 0.43
    assert {scene.background.colour for scene in train_scenes} == set(COLOURS)
    assert {scene.sign.word for scene in train_scenes if scene.sign} == set(SIGN_WORDS)
    assert {scene.sign.colour for scene in train_scenes if scene.sign} == set(PLATES)
    assert 0.1 < sum(max(scene.counts.values()) > 1 for scene in train_scenes) / len(train_scenes) < 0.4
    drawn = Counter(name for scene in make_scenes(0, "train", 3000) for name in scene.names)
    assert set(drawn) == set(concepts()), "every concept is seen"
    assert drawn.most_common(1)[0][1] > 1.5 * min(drawn.values())


def test_held_out_pairs_never_meet_in_training_and_do_in_a_third_of_the_tests(train_scenes, held_out_scenes):
    pairs = sum(is_held_out(x, y) for x, y in combinations(concepts(), 2))
    assert 0.1 < pairs / math.comb(len(concepts()), 2) < 0.15
    for scene in [*train_scenes, *make_scenes(0, "pretrain", 500)]:
        assert not scene.held_out_pair
        assert not any(is_held_out(x, y) for x, y in combinations(scene.names, 2))
    for scene in held_out_scenes:
        assert scene.held_out_pair == any(is_held_out(x, y) for x, y in combinations(scene.names, 2))
    assert 0.25 < sum(scene.held_out_pair for scene in held_out_scenes) / len(held_out_scenes) < 0.35


def test_every_concept_has_held_out_partners():
    assert all(held_out_partners(name) for name in concepts())
    assert not is_held_out("cat", "cat") and is_held_out("cat", "pig") == is_held_out("pig", "cat")


def test_rendering_is_reproducible_and_scales(train_scenes):
    for size in (48, 80, 160):
        picture = render(train_scenes[5], size)
        assert picture.mode == "RGB" and picture.size == (size, size)
        assert np.array_equal(np.asarray(picture), np.asarray(render(train_scenes[5], size)))


def test_objects_stand_out_from_the_background(train_scenes):
    for scene in train_scenes[:200]:
        picture = np.asarray(render(scene), dtype=np.float32)
        empty = np.asarray(draw_background(scene.background, 80), dtype=np.float32)
        changed = np.abs(picture - empty).max(axis=2) > 40
        for item in scene.objects:
            left, top, right, bottom = (round(80 * value) for value in item.box)
            assert changed[top:bottom, left:right].mean() > 0.08, (scene.key, item)


@pytest.mark.parametrize("kind", ["plain", "gradient", "striped", "speckled"])
def test_background_keeps_its_colour(kind):
    for colour in COLOURS:
        picture = np.asarray(draw_background(Background(kind, colour, 5), 80), dtype=np.float32)
        mean = picture.reshape(-1, 3).mean(axis=0)
        nearest = min(COLOURS, key=lambda name: float(np.abs(np.asarray(COLOURS[name]) - mean).sum()))
        assert nearest == colour
        if kind != "plain":
            assert picture.std(axis=(0, 1)).max() > 2


@pytest.mark.parametrize("word", SIGN_WORDS)
def test_letters_of_a_sign_are_at_least_9_pixels_tall(word):
    scene = Scene("sign", (), Background("plain", "gray", 0), Sign(word, "top left", "black"))
    left, top, right, bottom = (round(80 * value) for value in scene.sign.box)
    plate = np.asarray(draw_sign(word, "black", right - left, bottom - top))[2:-2, 2:-2]
    rows, columns = np.nonzero(plate.min(axis=2) > 160)
    assert np.ptp(rows) + 1 >= 9
    assert 3 <= len(word) <= 4 and np.ptp(columns) + 1 >= 8 * len(word) - 4


def test_row_and_column_of_a_place():
    item = SceneObject("cat", "bottom left", "small", (0, 0.6, 0.3, 0.9))
    assert (item.row, item.column, item.category) == (1, 0, "animal")
