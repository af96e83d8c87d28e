"""English wordings of COCO's 80 categories, for CHAIR.

CHAIR's definition asks for a list of synonyms; this one was written for this project and differs from the published
one, so that figures of the two are close but not equal. Wordings that mostly mean something else in captions are left
out: "orange" in the singular (a colour), "glass" (a material), "plant" (outdoors), "baseball" (the game), "bag",
"couple", "pitcher".
"""

from collections.abc import Iterable

from llava.eval.chair_vocabulary import Vocabulary, plural

_PEOPLE = """
person: man, woman, child, kid, boy, girl, guy, lady, gentleman, human, baby, toddler, infant, adult, teenager, teen
person: mother, father, mom, dad, parent, grandmother, grandfather, son, daughter, brother, sister, friend, passenger
person: player, skier, surfer, snowboarder, skateboarder, skater, swimmer, golfer, cyclist, bicyclist, biker
person: motorcyclist, rider, driver, pedestrian, spectator, bystander, umpire, referee, catcher, athlete
person: worker, officer, policeman, policewoman, fireman, firefighter, soldier, sailor, pilot, farmer, cowboy, student
person: teacher, chef, waiter, waitress, barista, customer, shopper, tourist, traveler, visitor, bride, groom, musician
"""

_VEHICLES = """
bicycle: bike, mountain bike, tricycle
car: automobile, taxi, cab, sedan, suv, van, minivan, jeep, limousine, limo, convertible, hatchback, station wagon
motorcycle: motorbike, motor bike, dirt bike, motor cycle, moped, scooter, motor scooter, vespa
airplane: plane, aeroplane, air plane, aircraft, airliner, jetliner, jet, biplane, seaplane, jumbo jet, fighter jet
bus: minibus, school bus, double decker, double decker bus, tour bus, city bus
train: locomotive, subway train, tram, train car, subway car, rail car, railroad car, train engine, steam engine
truck: pickup, pickup truck, pick up truck, lorry, fire truck, firetruck, fire engine, tow truck, dump truck, semi
boat: ship, ferry, sailboat, sail boat, rowboat, row boat, canoe, kayak, yacht, speedboat, gondola, dinghy, raft, barge
"""

_ANIMALS = """
bird: duck, goose, gull, seagull, pigeon, dove, parrot, parakeet, owl, swan, eagle, hawk, falcon, crow, raven, sparrow
bird: robin, finch, flamingo, peacock, penguin, ostrich, pelican, heron, stork, vulture, hen, rooster
bird: duckling, hummingbird, woodpecker, kingfisher, cockatoo, toucan, songbird, blue jay, bluebird, magpie
cat: kitten, kitty, feline, tabby, house cat
dog: puppy, pup, hound, poodle, labrador, terrier, bulldog, bull dog, dachshund, chihuahua, pug, corgi, beagle, husky
dog: golden retriever, retriever, german shepherd, sheep dog, sheepdog, collie, dalmatian, greyhound, spaniel, canine
horse: pony, foal, colt, mare, stallion
sheep: lamb, ewe, ram
cow: bull, calf, cattle, ox
elephant:
bear: polar bear, grizzly, grizzly bear, brown bear, black bear, bear cub, panda bear
zebra:
giraffe:
"""

_THINGS = """
traffic light: stop light, stoplight, traffic signal, traffic lamp
fire hydrant: hydrant, fire plug
stop sign:
parking meter:
bench: park bench
backpack: back pack, rucksack, knapsack, book bag, school bag
umbrella: parasol
handbag: hand bag, purse, shoulder bag, tote, tote bag, pocketbook
tie: necktie, neck tie, bow tie, bowtie
suitcase: suit case, briefcase, luggage, baggage
frisbee: flying disc, flying disk
skis: ski, water ski
snowboard: snow board
sports ball: ball, soccer ball, tennis ball, beach ball, volley ball, basket ball, rugby ball, golf ball, bowling ball
kite:
baseball bat: bat
baseball glove: baseball mitt, catcher's mitt, catchers mitt
skateboard: skate board, longboard
surfboard: surf board, body board, bodyboard, boogie board
tennis racket: racket, racquet, tennis racquet, badminton racket
bottle: water bottle, wine bottle, beer bottle
wine glass: wineglass, glass of wine, goblet, champagne glass, champagne flute
cup: mug, coffee cup, tea cup, teacup, coffee mug, cup of coffee, cup of tea, drinking glass, glass of water
fork:
knife: butter knife, pocket knife
spoon: teaspoon, tablespoon
bowl: soup bowl
banana:
apple:
sandwich: burger, hamburger, cheeseburger, panini, grilled cheese
orange: sliced orange, slice of orange, orange slice, orange fruit, peeled orange, half an orange
broccoli: broccoli floret
carrot: carrot stick
hot dog: hotdog, corn dog, chili dog
pizza: pizza pie, slice of pizza
donut: doughnut
cake: cupcake, cup cake, cheesecake, birthday cake, wedding cake
chair: armchair, arm chair, recliner, rocking chair, lawn chair, beach chair, office chair, high chair, stool
couch: sofa, loveseat, love seat, settee, futon
potted plant: house plant, houseplant, pot plant, potted flower, potted tree, flower pot, flowerpot, planter
bed: bunk bed, crib
dining table: table, dinner table, kitchen table, coffee table, picnic table, desk, table top, tabletop
toilet: toilet seat, toilet bowl, toilet lid, toilet tank, urinal, commode
tv: television, tv set, television set, tv screen, monitor, computer monitor, computer screen, flat screen, t.v
laptop: laptop computer, notebook computer, macbook, apple laptop
mouse: computer mouse
remote: remote control, remote controller, wii remote, wii controller, game controller, video game controller
keyboard: computer keyboard
cell phone: cellphone, phone, mobile phone, smartphone, smart phone, iphone, cellular phone, telephone
microwave: microwave oven
oven: stove, stovetop, stove top, toaster oven
toaster:
sink: kitchen sink, bathroom sink, washbasin, wash basin
refrigerator: fridge, freezer
book: comic book, textbook, novel
clock: alarm clock, grandfather clock, clock tower, clock face
vase: flower vase
scissors: scissor, pair of scissors, shears
teddy bear: teddy, stuffed bear, toy bear, stuffed teddy bear
hair drier: hair dryer, hairdryer, blow dryer, blow drier
toothbrush: tooth brush, electric toothbrush
"""

_OTHERS = """
train station, train track, train platform, train yard, bus stop, bus station, bus lane, bus shelter, bike rack
bike lane, bike path, bicycle rack, bicycle lane, car seat, car park, car lot, cable car, boat house, boat dock
jet ski, jet engine, parking lot, prairie dog, bird house, bird cage, bird bath, bird feeder, rocking horse, saw horse
sea horse, toilet paper, toilet brush, toilet roll, flower bed, truck bed, river bed, pool table, table tennis
table cloth, mouse pad, mickey mouse, phone booth, pay phone, piano keyboard, oven mitt, book shelf, book case
tie dye, zip tie, ski lift, ski slope, ski resort, ski pole, ski jump, ski lodge, ski mask, ski boot, ski suit
ski jacket, ski gear, chair lift, skate park, ball park, ball field, ball game, ball cap, super bowl, apple pie
dvd player, record player, cd player, video player, media player, men's room, man made, cow bell, cat food, dog food
dog house, cup holder, knife block, bear claw, cake stand, sandwich board
"""

_YOUNG_OR_GROWN = ("baby", "adult", "mother", "father", "mama")


def _table(lines: str) -> dict[str, list[str]]:
    """Wordings by category: the category itself and what the lines add, in the singular."""
    table: dict[str, list[str]] = {}
    for line in lines.strip().splitlines():
        name, _, wordings = line.partition(":")
        found = table.setdefault(name, [name])
        found += [wording.strip() for wording in wordings.split(",") if wording.strip()]
    return table


def _before(first: tuple[str, ...], table: dict[str, list[str]]) -> dict[str, list[str]]:
    """The table with every wording also after each of some words that alone mean a person."""
    return {
        name: [*wordings, *(f"{word} {each}" for word in first for each in wordings)]
        for name, wordings in table.items()
    }


def coco_vocabulary() -> Vocabulary:
    """The 80 categories with their wordings in the singular and the plural."""
    singular = {
        **_table(_PEOPLE),
        **_before(("passenger",), _table(_VEHICLES)),
        **_before(_YOUNG_OR_GROWN, _table(_ANIMALS)),
        **_table(_THINGS),
    }
    wordings = {name: _both_numbers(each) for name, each in singular.items()}
    wordings["orange"].remove("orange")
    others = [phrase for line in _OTHERS.strip().splitlines() for phrase in line.split(", ")]
    return Vocabulary(wordings, _both_numbers(others))


def _both_numbers(wordings: Iterable[str]) -> set[str]:
    return {form for each in wordings for form in (each, plural(each))}
