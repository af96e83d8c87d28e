"""Every answer is worked out again from the scene's boxes and the words of the question."""

import random
import re
from collections import Counter
from itertools import cycle

import pytest

from playground.mini.annotations import CHOICE_ASKERS, ask
from playground.mini.concepts import categories, concepts
from playground.mini.layout import Background, Scene, SceneObject
from playground.mini.questions import facts
from playground.mini.questions.base import as_choice
from playground.mini.questions.describe import MIN_WORDS, caption, compact, describe
from playground.mini.questions.presence import STRATEGIES, absent_concepts, both, presence
from playground.mini.wording import NUMBERS, PLACES, plural

SINGULAR = {plural(noun): noun for noun in (*concepts(), *categories(), "object")}


class Solver:
    """Answers a question from boxes, names, sign and background alone."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.things = []
        for item in scene.objects:
            left, top, right, bottom = item.box
            column, row = int((left + right) / 2 * 2), int((top + bottom) / 2 * 2)
            self.things.append((item.concept, item.category, column, row, right - left))

    def at(self, phrase: str) -> tuple:
        place = re.sub(r"^(at|on|in) the | of the picture$", "", phrase)
        index = PLACES.index(place)
        return next(thing for thing in self.things if (thing[2], thing[3]) == (index % 2, index // 2))

    def named(self, name: str) -> tuple:
        found = [thing for thing in self.things if name in thing[:2]]
        assert len(found) == 1, f"{name} is not unmistakable"
        return found[0]

    def count(self, noun: str) -> int:
        return sum(noun == "object" or noun in thing[:2] for thing in self.things)

    def side(self, first: tuple, second: tuple, phrase: str) -> bool:
        axis, sign = {
            "to the left of": (2, -1), "to the right of": (2, 1), "above": (3, -1), "below": (3, 1),
        }[phrase]  # fmt: skip
        return sign * (first[axis] - second[axis]) > 0

    def beside(self, name: str, phrase: str) -> str:
        there = [thing for thing in self.things if self.side(thing, self.named(name), phrase)]
        assert len(there) == 1
        return there[0][0]

    def which(self, category: str) -> str:
        return self.named(category)[0]

    def place(self, name: str) -> str:
        return PLACES[2 * self.named(name)[3] + self.named(name)[2]]

    def solve(self, text: str) -> str:
        relation = "(to the left of|to the right of|above|below)"
        scene, sign = self.scene, self.scene.sign
        rules = [
            (r"What kind of object is (.+)\?", lambda p: self.at(p)[1]),
            (r"What kind of background is it\?", lambda: scene.background.kind),
            (r"What color is the background\?", lambda: scene.background.colour),
            (r"What color is the sign\?", lambda: sign.colour),
            (r"What (?:does the sign say|word is on the sign|is written on the sign)\?", lambda: sign.word),
            (r"What is the first letter on the sign\?", lambda: sign.word[0]),
            (r"Where is the sign\?", lambda: sign.place),
            (r'Is the word on the sign "(\w+)"\?', lambda word: word == sign.word),
            (rf"What is {relation} the (.+)\?", lambda side, name: self.beside(name, side)),
            (r"What (?:is|can be seen) ((?:at|on|in) the .+)\?", lambda p: self.at(p)[0]),
            (r"(?:Where|Where in the picture|In which part of the picture) is the (.+)\?", self.place),
            (r"How many (.+) and (.+) are there together\?",
             lambda x, y: str(self.count(SINGULAR[x]) + self.count(SINGULAR[y]))),
            (r"Are there (\w+) (.+) and (.+) together\?",
             lambda n, x, y: NUMBERS.index(n) == self.count(SINGULAR[x]) + self.count(SINGULAR[y])),
            (r"How many (.+) are there in the picture.*\?", lambda x: str(self.count(SINGULAR[x]))),
            (r"Is there one (.+) in the picture\?", lambda x: self.count(x) == 1),
            (r"Are there both an? (.+) and an? (.+) in the image\?",
             lambda x, y: self.count(x) > 0 and self.count(y) > 0),
            (r"Are there (\w+) (.+) in the picture\?",
             lambda n, x: NUMBERS.index(n) == self.count(SINGULAR[x])),
            (r"Is there an? (.+) in the image\?", lambda x: self.count(x) > 0),
            (r"Which is larger in the picture, the (.+) or the (.+)\?",
             lambda x, y: max(self.named(x), self.named(y), key=lambda thing: thing[4])[0]),
            (r"Which of these is in the picture\?", lambda: None),
            (r"Which (.+) is in the picture\?", self.which),
            (r"Is the object (.+) an? (.+)\?", lambda p, c: self.at(p)[1] == c),
            (r"Is the (.+) above or below the (.+)\?",
             lambda x, y: "above" if self.side(self.named(x), self.named(y), "above") else "below"),
            (r"Is the (.+) to the left or to the right of the (.+)\?",
             lambda x, y: "left" if self.side(self.named(x), self.named(y), "to the left of") else "right"),
            (rf"Is the (.+) {relation} the (.+)\?",
             lambda x, side, y: self.side(self.named(x), self.named(y), side)),
            (r"Is the background (?:a )?(\w+)\?",
             lambda w: w in (scene.background.colour, scene.background.kind)),
        ]  # fmt: skip
        for pattern, rule in rules:
            match = re.fullmatch(pattern, text)
            if match:
                answer = rule(*match.groups())
                return ("Yes" if answer else "No") if isinstance(answer, bool) else answer
        raise AssertionError(f"no rule for {text!r}")


@pytest.fixture(scope="module")
def questions(train_scenes, held_out_scenes):
    rng = random.Random(0)
    asked = []
    for scene in train_scenes[:400] + held_out_scenes[:200]:
        for asker, _ in CHOICE_ASKERS:
            for _ in range(2):
                question = asker(scene, rng)
                if question is not None:
                    asked.append((scene, question))
    return asked


def test_answers_follow_from_the_scene(questions):
    kinds = Counter()
    for scene, question in questions:
        expected = Solver(scene).solve(question.text)
        if expected is None:
            assert question.answer in scene.counts and not set(question.wrong) & set(scene.counts)
        else:
            assert question.answer == expected, (scene, question)
        kinds[question.kind] += 1
    assert len(kinds) >= 22 and min(kinds.values()) > 10, kinds


def test_sentences_say_the_same_as_the_short_answer(questions):
    for _, question in questions:
        words = question.sentence
        if question.answer.isdigit():
            number = int(question.answer)
            assert re.search(rf"\b({NUMBERS[number]}|{number}{'|no' if number == 0 else ''})\b", words), question
        elif question.answer in ("Yes", "No"):
            assert words.startswith(question.answer + ", ")
        else:
            assert question.answer in words, question
        assert words[0].isupper() and words.endswith(".")


def test_wrong_answers_are_wrong_and_different(questions):
    for _, question in questions:
        assert question.answer not in question.wrong
        assert len(set(question.wrong)) == len(question.wrong) <= 3
        if question.answer in ("Yes", "No"):
            assert not question.wrong


def test_choices_have_one_right_option_anywhere(questions):
    rng = random.Random(1)
    letters = Counter()
    for _, question in questions:
        for options in (2, 3, 4):
            choice = as_choice(question, rng, options)
            if choice is None:
                assert not question.wrong
                continue
            assert choice.options.count(question.answer) == 1
            assert choice.options[choice.right] == question.answer
            assert len(choice.options) == min(options, len(question.wrong) + 1)
            if len(choice.options) == 4:
                letters[choice.letter] += 1
    assert min(letters.values()) > 0.22 * sum(letters.values())


def test_yes_and_no_are_balanced_for_each_kind(questions):
    tally: dict[str, Counter] = {}
    for _, question in questions:
        if question.answer in ("Yes", "No"):
            tally.setdefault(question.kind, Counter())[question.answer] += 1
    for kind, counts in tally.items():
        total = counts.total()
        assert abs(counts["Yes"] - total / 2) < 4 * (total / 4) ** 0.5 + 0.06 * total, (kind, counts)


def test_negatives_follow_their_strategy(held_out_scenes):
    rng = random.Random(2)
    ranked = sorted(concepts(), key=lambda name: -concepts()[name].weight)
    for scene in held_out_scenes[:100]:
        for strategy in STRATEGIES:
            absent = absent_concepts(scene, rng, strategy)
            assert absent and not set(absent) & set(scene.counts)
            if strategy == "popular":
                assert set(absent) <= set(ranked[:20])
            if strategy == "adversarial":
                assert {concepts()[name].category for name in absent} <= set(scene.category_counts)
        assert presence(scene, rng, "random", False).answer == "No"
        assert presence(scene, rng, None, True).answer == "Yes"


def test_no_fact_is_asked_twice(train_scenes):
    rng = random.Random(3)
    for scene in train_scenes[:100]:
        seen: set[str] = set()
        found = [ask(scene, rng, seen) for _ in range(6)]
        assert len({(question.kind, question.sentence) for question in found}) == 6


def test_descriptions_are_long_and_true(train_scenes):
    rng = random.Random(4)
    styles = set()
    for scene in train_scenes:
        text = describe(scene, rng)
        assert MIN_WORDS <= len(text.split()) <= 130
        styles.add(text.split()[0])
        for item in scene.objects:
            assert f"{item.size} {item.concept}" in text.lower()
        assert (f"says {scene.sign.word}." if scene.sign else "There is no sign.") in text
        solver = Solver(scene)
        for first, side, second in re.findall(
            r"The ([a-z ]+?) is (to the left of|to the right of|above|below) the ([a-z ]+?)\.", text
        ):
            assert solver.side(solver.named(first), solver.named(second), side)
        totals = re.search(r"In all there (?:is|are) (.+?)\.", text).group(1)
        for number, noun in (part.split(" ", 1) for part in re.split(", | and ", totals)):
            assert NUMBERS.index(number) == solver.count(SINGULAR.get(noun, noun))
    assert styles == {"The", "There", "This"}


def test_captions_name_everything(train_scenes):
    rng = random.Random(5)
    for scene in train_scenes[:200]:
        text = caption(scene, rng)
        assert text.count(".") == 1 and f"{scene.background.colour} background" in text
        for name, number in scene.counts.items():
            assert name in text.lower() or plural(name) in text.lower(), (number, text)
        assert all(f"{item.size} {item.concept}" in compact(scene) for item in scene.objects)


def _fact_answer(text: str) -> str:
    """The answer to a question without a picture."""
    kind = {name: item.category for name, item in concepts().items()}
    rules = [
        (r"Which of these is an? (.+?): an? (.+), an? (.+) or an? (.+)\?",
         lambda c, *names: next(name for name in names if kind[name] == c)),
        (r"What kind of thing is an? (.+)\?", lambda name: kind[name]),
        (r"Are an? (.+) and an? (.+) the same kind of thing\?",
         lambda x, y: "Yes" if kind[x] == kind[y] else "No"),
        (r"Is an? (.+?) an? (" + "|".join(categories()) + r")\?",
         lambda x, c: "Yes" if kind[x] == c else "No"),
        (r"Which one does not belong: (.+), (.+), (.+) and (.+)\?",
         lambda *names: min(names, key=lambda name: sum(kind[name] == kind[other] for other in names))),
        (r"How many of these are (.+): (.+)\?",
         lambda c, names: str(sum(kind[name] == SINGULAR[c] for name in names.split(", ")))),
        (r"How many things are (\w+) .+ and (\w+) .+ together\?",
         lambda x, y: str(NUMBERS.index(x) + NUMBERS.index(y))),
    ]  # fmt: skip
    for pattern, rule in rules:
        match = re.fullmatch(pattern, text)
        if match:
            return rule(*match.groups())
    raise AssertionError(f"no rule for {text!r}")


@pytest.mark.parametrize("fact", facts.FACTS, ids=lambda fact: fact.__name__)
def test_facts_are_true(fact):
    rng = random.Random(6)
    for _ in range(200):
        question = fact(rng)
        assert question.answer == _fact_answer(question.text), question
        assert question.answer not in question.wrong


def test_choice_of_a_category_has_one_member():
    rng = random.Random(7)
    for _ in range(200):
        question = facts.which_is_choice(rng)
        category = re.fullmatch(r"Which of these is an? (.+)\?", question.text).group(1)
        assert question.answer in categories()[category]
        assert not set(question.wrong) & set(categories()[category])


def test_a_scene_with_a_whole_category_has_any_negatives():
    """All animals there are: nothing of their category is absent."""
    names = categories()["animal"]
    objects = tuple(
        SceneObject(name, place, "small", (0.0, 0.0, 0.2, 0.2))
        for name, place in zip(names, cycle(PLACES), strict=False)
    )
    scene = Scene("full", objects, Background("plain", "white", 0))
    assert set(absent_concepts(scene, random.Random(0), "adversarial")) == set(concepts()) - set(names)
    for seed in range(60):
        assert both(scene, random.Random(seed), answer=False).answer == "No"
