"""Pictures in words: every patch is named, every answer can be read off the words, nothing held out is in them."""

from collections import Counter

from playground.mini.concepts import concepts, contains_held_out_pair
from playground.mini.layout import PATCHES
from playground.mini.questions.base import LETTER_SUFFIX, SHORT_SUFFIX
from playground.mini.scenes import SIGN_WORDS
from playground.mini.word_pictures import BACKGROUND, word_picture, word_samples
from playground.mini.wording import PLACES

LAST = {name.split()[-1]: name for name in concepts()}
CORNERS = dict(zip(PLACES, (0, PATCHES - 1, PATCHES * (PATCHES - 1), PATCHES**2 - 1), strict=True))


def test_names_stay_different():
    assert len(LAST) == len(concepts()) and not set(LAST) & {BACKGROUND, *SIGN_WORDS}


def test_four_patches_a_place(train_scenes):
    for scene in train_scenes[:200]:
        words = word_picture(scene).split(" ")
        assert words.pop(0) == "" and len(words) == PATCHES**2
        there = {item.place: item.concept for item in scene.objects}
        for place, corner in CORNERS.items():
            sign = scene.sign.word if scene.sign is not None and scene.sign.place == place else BACKGROUND
            assert LAST.get(words[corner], words[corner]) == there.get(place, sign)
        counts = Counter(words)
        assert all(number % 4 == 0 for number in counts.values())


def test_answers_can_be_read_off():
    kinds = Counter()
    for sample in word_samples(0, 0, 150):
        assert "image" not in sample
        human, answer = (turn["value"] for turn in sample["conversations"])
        words, question = human.split("\n", 1)
        cells = words.split()
        seen = {LAST[word] for word in cells if word in LAST}
        if question.endswith(LETTER_SUFFIX):
            kinds["letters"] += 1
            assert answer in ("A", "B")
        elif question.startswith("What is at the ") and question.endswith(SHORT_SUFFIX):
            kinds["what"] += 1
            place = question.removeprefix("What is at the ").split("?")[0]
            assert LAST[cells[CORNERS[place]]] == answer
        elif question.startswith("Where is the "):
            kinds["where"] += 1
            name = question.removeprefix("Where is the ").split("?")[0]
            assert LAST[cells[CORNERS[answer]]] == name
        elif question.startswith("Is there a"):
            kinds["presence"] += 1
            name = question.removeprefix("Is there a").removeprefix("n").split(" in the image")[0].strip()
            assert answer == ("Yes" if name in seen else "No")
    assert min(kinds.values()) >= 150 and len(kinds) == 4


def test_held_out_pairs_stay_out():
    for sample in word_samples(0, 0, 300):
        seen = {LAST[word] for word in sample["conversations"][0]["value"].split("\n")[0].split() if word in LAST}
        assert not contains_held_out_pair(sorted(seen))


def test_the_same_scenes_whatever_the_range():
    assert list(word_samples(0, 0, 4))[-3:] == list(word_samples(0, 3, 4))[-3:]
