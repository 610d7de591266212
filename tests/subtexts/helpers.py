"""Captions with their parts, and a vocabulary, for the tests of sub-texts."""

from __future__ import annotations

from random import Random

import pytest

from hf_ta_cleaner.subtexts import Vocabulary, parse, wordnet


# caption -> noun phrases ("attributes noun") and statements ("subject | verb | relation | object"); the order of
# statements does not matter.
CAPTIONS: dict[str, tuple[list[str], list[str]]] = {
    # the drawn world
    "a small blue kettle to the left of a striped umbrella on grass": (
        ["small blue kettle", "striped umbrella", "grass"],
        ["kettle||left of|umbrella", "kettle||on|grass", "umbrella||on|grass"],
    ),
    "there is a big red key standing above a leaf": (["big red key", "leaf"], ["key|stand|above|leaf"]),
    "a picture of an orange mushroom lying on its side in the snow": (
        ["orange mushroom", "snow"],
        ["mushroom|on its side|in|snow"],
    ),
    "the white spotted cup, upside down, next to a lamp": (
        ["white spotted cup", "lamp"],
        ["cup|upside down||", "cup||near|lamp"],
    ),
    "a red car with a kettle to its right": (["red car", "kettle"], ["car||with|kettle", "kettle||right of|car"]),
    "a kettle with a lamp below it in front of clouds": (
        ["kettle", "lamp", "clouds"],
        ["kettle||with|lamp", "lamp||below|kettle", "kettle||in front of|cloud", "lamp||in front of|cloud"],
    ),
    "a banana and a key under a night sky": (
        ["banana", "key", "night sky"],
        ["banana||and|key", "banana||below|night sky", "key||below|night sky"],
    ),
    "we see a kettle above a cat": (["kettle", "cat"], ["kettle||above|cat"]),
    "a kettle is to the left of a lamp": (["kettle", "lamp"], ["kettle||left of|lamp"]),
    "the kettle leans left of the lamp on a tiled floor": (
        ["kettle", "lamp", "tiled floor"],
        ["kettle|lean|left of|lamp", "kettle||on|floor", "lamp||on|floor"],
    ),
    "one big apple stands upside down above a pear": (["big apple", "pear"], ["apple|upside down|above|pear"]),
    "a tiny checkered duck lies on its side against a plain background": (
        ["tiny checkered duck", "plain background"],
        ["duck|on its side|against|background"],
    ),
    "look at a rocket": (["rocket"], []),
    "here is an apple by a saw": (["apple", "saw"], ["apple||near|saw"]),
    "a kettle beneath a gray dotted axe in the snow": (
        ["kettle", "gray dotted axe", "snow"],
        ["kettle||below|axe", "kettle||in|snow", "axe||in|snow"],
    ),
    "the chair leans above an orange fish": (["chair", "orange fish"], ["chair|lean|above|fish"]),
    "a large fish stands on the right of a rose": (["large fish", "rose"], ["fish|stand|right of|rose"]),
    "a crab leaning": (["crab"], ["crab|lean||"]),
    "little striped bus": (["little striped bus"], []),
    "a huge cherry in front of a brick wall": (["huge cherry", "brick wall"], ["cherry||in front of|wall"]),
    "a clock stands to the right of a hat on a wooden floor": (
        ["clock", "hat", "wooden floor"],
        ["clock|stand|right of|hat", "clock||on|floor", "hat||on|floor"],
    ),
    # sentences as in COCO
    "two dogs run on a beach": (["two dogs", "beach"], ["dog|run|on|beach"]),
    "A man riding a wave on top of a surfboard.": (["man", "wave", "surfboard"], ["man|ride||wave"]),
    "A woman holding a cup of coffee in a kitchen.": (
        ["woman", "cup", "coffee", "kitchen"],
        ["woman|hold||cup", "cup||of|coffee", "woman||in|kitchen", "cup||in|kitchen"],
    ),
    "A couple of dogs playing with a ball in the grass": (
        ["dogs", "ball", "grass"],
        ["dog|play|with|ball", "dog||in|grass", "ball||in|grass"],
    ),
    "a group of people standing around a table": (["people", "table"], ["people|stand|around|table"]),
    "Several bikes parked on the side of a street near a building.": (
        ["bikes", "street", "building"],
        ["bike|park|near|street", "bike||near|building"],
    ),
    "A person on skis is going down a snowy hill.": (
        ["person", "skis", "snowy hill"],
        ["person||on|ski", "person|go|down|hill"],
    ),
    "a dog that is wearing a red collar": (["dog", "red collar"], ["dog|wear||collar"]),
    "the girl and the boy are riding horses": (
        ["girl", "boy", "horses"],
        ["girl||and|boy", "girl|ride||horse", "boy|ride||horse"],
    ),
    "A cat sleeping": (["cat"], ["cat|sleep||"]),
    "a very large brown bear walking through a forest": (
        ["very large brown bear", "forest"],
        ["bear|walk|through|forest"],
    ),
    "a man who is riding a horse while holding a rope": (["man", "horse", "rope"], ["man|ride||horse"]),
    "A bathroom with a white toilet and a sink.": (
        ["bathroom", "white toilet", "sink"],
        ["bathroom||with|toilet", "toilet||and|sink"],
    ),
    "the sky is blue": (["blue sky"], []),
    "the red and white umbrella is next to a bus": (["red white umbrella", "bus"], ["umbrella||near|bus"]),
    "a big, red ball": (["big red ball"], []),
    "three zebras graze in a field": (["three zebras", "field"], ["zebra|graze|in|field"]),
    "A train traveling down tracks next to trees.": (
        ["train", "tracks", "trees"],
        ["train|travel|down|track", "train||near|tree"],
    ),
    "a young boy with a baseball bat": (["young boy", "baseball bat"], ["boy||with|baseball bat"]),
    "A giraffe eating leaves from a tall tree": (["giraffe", "leaves", "tall tree"], ["giraffe|eat||leaf"]),
    "a cat sits on the wooden chair": (["cat", "wooden chair"], ["cat|sit|on|chair"]),
    "the dog is sitting behind a fence": (["dog", "fence"], ["dog|sit|behind|fence"]),
    "a teddy bear lying on a bed": (["teddy bear", "bed"], ["teddy bear|lie|on|bed"]),
    "a man without a hat": (["man", "hat"], ["man||without|hat"]),
    "a room with no people": (["room"], []),
    "green grapes, a yellow lemon, an orange and a kiwi on a blue table": (
        ["green grapes", "yellow lemon", "orange", "kiwi", "blue table"],
        ["orange||and|kiwi", "kiwi||on|table"],
    ),
    "an orange and a kiwi on a blue table": (
        ["orange", "kiwi", "blue table"],
        ["orange||and|kiwi", "kiwi||on|table"],
    ),
    "a picture of a cat on a mat": (["cat", "mat"], ["cat||on|mat"]),
    "a toy car on a shelf": (["toy car", "shelf"], ["toy car||on|shelf"]),
    "2 cats on a sofa": (["2 cats", "sofa"], ["cat||on|sofa"]),
    "A dog not wearing a red collar, on a lawn": (["dog", "lawn"], []),
    "Three people riding on the backs of elephants through a jungle.": (
        ["three people", "elephants", "jungle"],
        ["people|ride|on|elephant", "elephant||through|jungle"],
    ),
    "A yellow and black bus driving past some people": (["yellow black bus", "people"], ["bus|drive|past|people"]),
    "An old man with a long white beard sits on a bench, reading a newspaper": (
        ["old man", "long white beard", "bench", "newspaper"],
        ["man||with|beard", "man|sit|on|bench", "man|read||newspaper"],
    ),
    "a girl painting the fence": (["girl", "fence"], ["girl|paint||fence"]),
    "a woman in red is dancing": (["woman"], ["woman|dance||"]),
    "a boat floats on the water under a bridge": (
        ["boat", "water", "bridge"],
        ["boat|float|on|water", "boat||below|bridge"],
    ),
    # alternative texts as in CC3M
    "silhouette of a man standing on a cliff": (["man", "cliff"], ["man|stand|on|cliff"]),
    "hand drawn vector illustration of a cute little fox with flowers": (
        ["cute little fox", "flowers"],
        ["fox||with|flower"],
    ),
    "different types of plants": (["plants"], []),
    "portrait of a smiling woman": (["smiling woman"], []),
    "illustration of a cartoon cat sitting on a wooden chair": (
        ["cartoon cat", "wooden chair"],
        ["cartoon cat|sit|on|chair"],
    ),
    "red car vector illustration": (["red car"], []),
    "BEAUTIFUL SUNSET OVER THE OCEAN": (["beautiful sunset", "ocean"], ["sunset||above|ocean"]),
    "running dog": (["running dog"], []),
    "snow covered mountains behind a lake": (["snow covered mountains", "lake"], ["mountain||behind|lake"]),
    "light blue dress with long sleeves": (["light blue dress", "long sleeves"], ["dress||with|sleeve"]),
    "actor attends the premiere of comedy": (
        ["actor", "premiere", "comedy"],
        ["actor|attend||premiere", "premiere||of|comedy"],
    ),
    "cherries and leaves": (["cherries", "leaves"], ["cherry||and|leaf"]),
    "the man's black hat": (["black hat"], []),
    "riding a bike through the city": (["bike", "city"], []),
    "red car 🚗 on a road 😀": (["red car", "road"], []),
    "red car <br> https://example.com/a.jpg #cars": (["red car"], []),
    "wallpaper with a yellow flower, free download": (["wallpaper", "yellow flower", "free download"],
                                                      ["wallpaper||with|flower"]),
}  # fmt: skip


UNREADABLE = (
    "", "   ", "12345", "!?!", "😀🎉", "кошка на столе", "一只猫在桌子上", "قطة على الطاولة", "IMG_1234.jpg",
    "https://example.com/a.jpg", "#sunset #beach", "untitled", "of the on", "1/2 ² ٣",
)  # fmt: skip


def corpus(*captions: str) -> Vocabulary:
    return Vocabulary.from_parts([parse(caption).to_row() for caption in captions])


def draws(vocabulary: Vocabulary, caption: str, seeds: int = 40, **options) -> tuple[list, list]:
    """All positives and all negatives over many seeds."""
    found = [vocabulary.sub_texts(parse(caption), Random(seed), **options) for seed in range(seeds)]
    return [p for positives, _ in found for p in positives], [n for _, negatives in found for n in negatives]


needs_wordnet = pytest.mark.skipif(not wordnet.available(), reason="WordNet is not installed")
