"""What the sub-text parser knows about English words: kinds of attributes, relations, postures, tagger mends, lemmas.

The tables are small on purpose. They hold the visual words whose logic decides whether a swapped word makes a
statement false; everything else is learned from the captions at hand (`vocabulary.py`).
"""

from __future__ import annotations

from functools import cache, lru_cache


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


# --- Which attributes contradict each other --------------------------------------------------------------------

#: One scale per line. Words between two bars may be true together; words on two sides of a bar may not. A word may
#: stand in several places (teal is a blue and a green).
ATTRIBUTE_SCALES: dict[str, str] = {
    "color": (
        "red crimson scarlet maroon burgundy | orange | yellow golden gold blond blonde | green emerald teal turquoise"
        " | blue navy teal turquoise cyan azure | purple violet lavender magenta | pink magenta | brown tan beige"
        " maroon | black | white ivory beige silver | gray grey silver"
    ),
    "size": "small little tiny mini miniature | medium medium-sized | big large huge giant enormous gigantic massive",
    "height": "tall high | short low",
    "length": "long | short",
    "width": "wide broad | narrow",
    "thickness": "thick | thin",
    "pattern": "plain | striped stripy | spotted dotted polka-dot | checkered checked chequered plaid | floral",
    "material": (
        "wooden wood | brick | stone marble granite cobblestone | metal metallic steel iron | glass | plastic"
        " | paper cardboard | leather | concrete cement | tiled tile ceramic | ceramic porcelain clay | straw wicker"
        " | woolen knitted | silk | denim"
    ),
    "years": "young | old elderly aged",
    "era": "new modern brand-new | old ancient vintage antique",
    "opening": "open | closed shut",
    "filling": "full | empty",
    "moisture": "wet | dry",
    "cleanness": "clean | dirty muddy",
    "temperature": "hot warm | cold icy frozen",
    "weather": "sunny | cloudy overcast rainy stormy foggy",
    "mood": "happy smiling laughing | sad crying angry frowning",
    "gender": "male | female",
    "shape": "round circular | square rectangular | triangular | oval",
    "cooking": "cooked baked fried grilled roasted | raw",
    "brightness": "bright light | dark",
    "end": "front | back rear",
    "course": "straight | curved winding",
}

#: Verbs and predicates that one thing cannot do at one time.
VERB_SCALES: dict[str, str] = {
    "posture": (
        "stand | sit seat perch | lie recline on_its_side on_its_back | lean | kneel crouch squat | upside_down"
    ),
    "activity": (
        "stand sit seat lie kneel | walk stroll | run jog race gallop jump leap | swim | fly soar | climb | dance"
        " | crawl | sleep nap | drive | ski | surf | skate skateboard"
    ),
    "face": "smile laugh | cry frown",
    "force": "push | pull",
    "ball": "throw | catch",
    "door": "open | close",
    "passage": "enter | leave exit",
}


def _scale_places(scales: dict[str, str]) -> dict[str, dict[str, frozenset[int]]]:
    places: dict[str, dict[str, set[int]]] = {}
    for name, line in scales.items():
        for i, group in enumerate(line.split("|")):
            for word in group.split():
                places.setdefault(word.replace("_", " "), {}).setdefault(name, set()).add(i)
    return {word: {name: frozenset(where) for name, where in of.items()} for word, of in places.items()}


ATTRIBUTE_PLACES = _scale_places(ATTRIBUTE_SCALES)
VERB_PLACES = _scale_places(VERB_SCALES)
COLORS = frozenset(word for word, of in ATTRIBUTE_PLACES.items() if "color" in of)
NUMBERS = {
    word: n for n, word in enumerate(_phrases("one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"), 1)
}


def contradict(a: str, b: str, places: dict[str, dict[str, frozenset[int]]]) -> bool:
    """Whether a scale keeps `a` and `b` apart and no scale lets them stand together."""
    shared = places.get(a, {}).keys() & places.get(b, {}).keys()
    return bool(shared) and all(places[a][name].isdisjoint(places[b][name]) for name in shared)


# --- Relations -------------------------------------------------------------------------------------------------

#: name: (how captions say it, what it entails, what it contradicts). Phrases of one name mean the same.
_RELATION_TABLE: dict[str, tuple[str, str, str]] = {
    "left of": ("to the left of|on the left of|on the left side of|left of", "near", "right of"),
    "right of": ("to the right of|on the right of|on the right side of|right of", "near", "left of"),
    "above": ("above|over", "near", "below"),
    "below": ("below|under|beneath|underneath", "near", "above|on"),
    "on": ("on|on top of|atop|upon|on the back of|on the backs of", "near|above", "below|behind"),
    "in": ("in|inside|inside of|within", "near", "behind|outside"),
    "outside": ("outside|outside of", "", "in"),
    "in front of": ("in front of|before", "near", "behind"),
    "behind": ("behind|in back of", "near", "in front of|on"),
    "near": ("next to|near|near to|beside|by|close to|alongside|on the side of|at the side of|adjacent to|nearby", "",
             "far from"),
    "far from": ("far from|far away from", "", "near"),
    "against": ("against", "near", ""),
    "between": ("between|in between", "near", ""),
    "among": ("among|amongst|in the middle of|in the center of|in the midst of|amid", "near", ""),
    "around": ("around", "near", ""),
    "at": ("at|at the edge of|on the edge of|at the end of", "near", ""),
    "along": ("along", "near", ""),
    "across": ("across|across from|opposite", "", ""),
    "through": ("through", "", ""),
    "past": ("past|beyond", "", ""),
    "into": ("into", "", "out of"),
    "out of": ("out of", "", "into"),
    "onto": ("onto", "near", "off"),
    "off": ("off|off of", "", "onto"),
    "up": ("up", "", "down"),
    "down": ("down", "", "up"),
    "towards": ("towards|toward", "", "away from"),
    "away from": ("away from", "", "towards"),
    "with": ("with|along with|together with", "", "without"),
    "without": ("without", "", "with"),
    "to": ("to", "", ""),
    "of": ("of|full of|made of|made from|made out of", "", ""),
    "during": ("during", "", ""),
    "for": ("for", "", ""),
    "from": ("from", "", ""),
    "about": ("about", "", ""),
    "like": ("like|similar to|in the shape of|in the form of|in the style of", "", ""),
    "instead of": ("instead of", "", ""),
}  # fmt: skip

RELATION_PHRASES: dict[str, str] = {
    phrase: name for name, (phrases, _, _) in _RELATION_TABLE.items() for phrase in phrases.split("|")
}
ENTAILS: dict[str, frozenset[str]] = {
    name: frozenset(filter(None, entailed.split("|"))) for name, (_, entailed, _) in _RELATION_TABLE.items()
}
CONTRADICTS: dict[str, frozenset[str]] = {
    name: frozenset(filter(None, against.split("|"))) for name, (_, _, against) in _RELATION_TABLE.items()
}
#: "a lamp with a mug to its left": a relation of the second thing to the first.
SIDES: dict[str, tuple[str, str]] = {
    f"{start} {whose} {side}{end}": (f"{side} of", f"{start} the {side} of")
    for start in ("to", "on")
    for whose in ("its", "his", "her", "their")
    for side in ("left", "right")
    for end in ("", " side")
}
#: The second noun phrase of these need not be in the picture.
UNSEEN_OBJECT = frozenset({"without", "for", "from", "about", "like", "instead of", "far from", "away from", "to"})
#: Relations that are places: they hold of the thing itself, whatever it does there.
LOCATIVE = frozenset(
    {"left of", "right of", "above", "below", "on", "in", "outside", "in front of", "behind", "near", "against",
     "between", "among", "around", "along", "across"}
)  # fmt: skip
#: Relations that say too little to count as content.
EMPTY_RELATIONS = frozenset({"of", "and"})

# --- Predicates of one noun phrase, frames, and other fixed phrases --------------------------------------------

_POSTURE_FORMS = {
    "ing": "lying standing hanging sitting sleeping resting turned laying",
    "s": "lies stands hangs sits sleeps rests",
    "base": "lie stand hang sit rest",
    "past": "lay stood hung sat",
}
#: phrase: (lemma, form)
PREDICATES: dict[str, tuple[str, str]] = {
    **{
        f"{verb} {tail}": (lemma, form)
        for form, verbs in _POSTURE_FORMS.items()
        for verb in verbs.split()
        for tail, lemma in (
            ("upside down", "upside down"), ("on its side", "on its side"), ("on their side", "on its side"),
            ("on their sides", "on its side"), ("on its back", "on its back"), ("on his back", "on its back"),
            ("on her back", "on its back"),
        )
    },
    "upside down": ("upside down", "ing"),
    "upside-down": ("upside down", "ing"),
    "on its side": ("on its side", "ing"),
    "on its back": ("on its back", "ing"),
}  # fmt: skip
PREDICATE_LEMMAS = frozenset(lemma for lemma, _ in PREDICATES.values())

FRAMES = _phrases(
    "there is|there are|there's|there was|there were|this is|these are|here is|here's|here are|it is|it's|we see|i see"
    "|you see|we can see|you can see|one can see|look at|looking at|check out"
)
#: Nouns that name the picture, not what is in it.
PICTURE_NOUNS = _words(
    "picture photo photograph image pic view shot close-up closeup portrait drawing painting illustration sketch"
    " rendering render vector clipart icon wallpaper photography stock snapshot artwork depiction scene silhouette"
)
SHOWING = _words("show depict feature display")
NOISE = _words("untitled img dsc jpg jpeg png gif pdf html http https www nbsp amp quot")
PARTITIVES = _words(
    "group bunch pair lot lots couple set piece number variety row line crowd flock herd pile stack collection slice"
    " dozen series array selection type types kind kinds sort sorts"
)
#: Attributes that may turn the noun into something else: never dropped, never swapped.
PRIVATIVE = _words("toy fake stuffed artificial imaginary former inflatable virtual miniature chocolate")
COMPOUNDS = _phrases(
    "hot dog|ice cream|teddy bear|polar bear|cell phone|mobile phone|remote control|high chair|black board|white board"
    "|living room|dining room|dining table|fire hydrant|fire truck|stop sign|traffic light|parking meter|parking lot"
    "|swimming pool|washing machine|shopping cart|frying pan|cutting board|baseball bat|tennis racket|wine glass"
    "|potted plant|sea lion|guinea pig|red wine|white wine|green tea|french fries|christmas tree|orange juice"
    "|running shoes|high school|flying saucer|rocking chair|sewing machine|hot air balloon|merry go round"
)

# --- Nouns -----------------------------------------------------------------------------------------------------

#: Nouns of places and grounds. A thing is never swapped for one of these, nor the other way round.
SCENE_NOUNS = _words(
    "grass snow sand wall floor sky cloud background backdrop water ocean sea lake river beach coast shore street road"
    " sidewalk pavement path highway field meadow lawn garden yard park forest wood jungle desert mountain hill valley"
    " city town village countryside farm room kitchen bathroom bedroom office classroom restaurant bar store shop"
    " market mall museum gym stadium court station airport harbor port ground dirt mud air space night day morning"
    " evening afternoon sunset sunrise sun light shadow rain fog summer winter spring autumn world area place"
    " landscape horizon ceiling roof corner stage studio track pool slope ice home neighborhood"
)
#: Nouns that say little by themselves ("the backs" of elephants).
PART_NOUNS = _words(
    "side front back top bottom end part middle center way thing stuff item one style use detail version line bit name"
)
#: Nouns too vague to be swapped in: they would leave the statement true.
VAGUE_NOUNS = PART_NOUNS | _words(
    "view object time day life work color shape size design pattern number idea person people someone something"
    " everyone image picture photo"
)
_FAMILIES = (
    "person people man woman boy girl child kid baby toddler lady guy gentleman adult teenager player actor actress"
    " artist singer musician worker student teacher tourist model fan bride groom couple family mother father friend"
    " crowd politician athlete pedestrian rider surfer skier skateboarder team soldier officer chef doctor human",
    "animal dog cat horse cow sheep bird elephant bear zebra giraffe pet puppy kitten mammal wildlife creature",
    "dog puppy", "cat kitten", "cow cattle bull calf", "sheep lamb", "rabbit bunny hare", "chicken hen rooster",
    "bicycle bike cycle", "motorcycle motorbike bike scooter", "car automobile vehicle sedan taxi cab suv truck van",
    "airplane plane aircraft jet aeroplane", "boat ship sailboat vessel yacht", "sofa couch settee", "cup mug",
    "street road highway path city town", "phone cellphone smartphone telephone cell", "tv television screen monitor",
    "rug carpet", "food meal dish lunch dinner breakfast plate", "forest wood tree jungle", "computer laptop",
    "ocean sea water beach coast shore lake river", "building house home tower structure", "shoe boot sneaker",
    "hat cap helmet", "shirt t-shirt top sweater jacket clothes outfit", "dress gown", "flower rose tulip plant",
    "fruit apple banana orange pear grape kiwi lemon", "vegetable carrot broccoli", "purse handbag bag",
    "sky cloud", "grass lawn field meadow", "hill mountain", "sun sunset sunrise", "wall background backdrop",
)  # fmt: skip
_FAMILIES_OF: dict[str, frozenset[int]] = {
    noun: frozenset(i for i, line in enumerate(_FAMILIES) if noun in line.split())
    for noun in {noun for line in _FAMILIES for noun in line.split()}
}
#: The head of these families covers the others; its other members exclude each other (a cat is no dog).
_DISJOINT_FAMILIES = {
    1: _words("dog cat horse cow sheep bird elephant bear zebra giraffe"),
    _FAMILIES.index("fruit apple banana orange pear grape kiwi lemon"): _words(
        "apple banana orange pear grape kiwi lemon"
    ),
    _FAMILIES.index("vegetable carrot broccoli"): frozenset({"carrot", "broccoli"}),
}
OPPOSITE_PEOPLE = frozenset(
    frozenset(pair.split()) for pair in ("man woman", "boy girl", "lady gentleman", "bride groom", "mother father")
)
PEOPLE = frozenset(_FAMILIES[0].split())


def same_family(a: str, b: str) -> bool:
    """Whether two nouns may name one thing, as far as the built-in families know."""
    if frozenset((a, b)) in OPPOSITE_PEOPLE:
        return False
    shared = _FAMILIES_OF.get(a, frozenset()) & _FAMILIES_OF.get(b, frozenset())
    return any(not {a, b} <= _DISJOINT_FAMILIES.get(i, frozenset()) for i in shared)


# --- Verbs -----------------------------------------------------------------------------------------------------

#: Verbs that stay true without their complement ("a key standing above a leaf": "a key standing").
INTRANSITIVE = _words(
    "stand sit lie lean hang kneel crouch squat perch sleep rest float fly swim run walk jump smile laugh dance grow"
    " bloom burn glow shine fall melt flow graze recline seat park surf ski skate jog crawl climb soar cry"
)
#: Verbs that go with anything: no falsification can be made with them.
GENERIC_VERBS = _words(
    "be have do make get take go come see look show use include feature say know find give set need want keep let seem"
    " hold wear like love enjoy try start begin appear contain create depict display view pose become"
)
_IRREGULAR = {
    "lying": "lie", "laying": "lie", "lies": "lie", "tying": "tie", "dying": "die", "sat": "sit", "stood": "stand",
    "ran": "run", "held": "hold", "seen": "see", "saw": "see", "worn": "wear", "wore": "wear", "eaten": "eat",
    "ate": "eat",
    "ridden": "ride", "rode": "ride", "driven": "drive", "flown": "fly", "flew": "fly", "swam": "swim", "hung": "hang",
    "taken": "take", "took": "take", "made": "make", "has": "have", "had": "have", "seated": "seat", "lit": "light",
    "grown": "grow", "broken": "break", "written": "write", "built": "build", "cut": "cut", "shown": "show",
    "goes": "go", "does": "do", "left": "leave", "lay": "lie", "caught": "catch", "thrown": "throw", "using": "use",
}  # fmt: skip
IRREGULAR_NOUNS = {
    "people": "people", "glasses": "glasses", "sunglasses": "sunglasses", "pants": "pants", "jeans": "jeans",
    "scissors": "scissors", "shorts": "shorts", "clothes": "clothes", "skis": "ski", "olives": "olive",
    "woods": "wood",
    "waves": "wave", "gloves": "glove", "caves": "cave", "stoves": "stove", "doves": "dove", "leaves": "leaf",
    "tomatoes": "tomato",
    "cacti": "cactus", "men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "lens": "lens", "series": "series", "species": "species", "axes": "axe",
}  # fmt: skip
PLURAL_ONLY = _words("people men women children feet teeth mice geese cacti clothes")

# --- Tagger mends ----------------------------------------------------------------------------------------------

#: Words the tagger's news-wire lexicon knows as something else than the picture noun they mostly are in captions.
NOUN_MENDS = _words(
    "cherry key wrench bear remote sink drum rose present toast hammer saw fish duck crab fan board kite seal bat bowl"
    " plant truck ski surfboard racket broccoli scissors kiwi lemon olive model couple adult teen youth chef nun"
)
DEGREES = _words("very really quite rather extremely light dark bright deep pale")
DETERMINERS = _words(
    "a an the this that these those my your his her its our their some any another each every both all several many"
    " few various"
)
COPULAS = _words("is are was were be been being am")
AUXILIARIES = _words("has have had can could will would may might must do does did")
PRONOUNS = _words("he she they i we you me him us them it who whom himself herself itself themselves")
BREAKS = _words(
    "because while when where if than what how why whose as but or nor so since until although though via vs versus"
)
NEGATIONS = _words("no not never n't neither none don't doesn't isn't aren't")
#: Prepositions that may also end a verb.
PARTICLES = _words("up down off on in over across around along nearby outside inside")
SUFFIX_PARTICIPLES = _words("covered shaped filled lined colored coloured topped based made lit drawn")


@cache
def _tagger_lexicon() -> dict[str, str]:
    from textblob.en import lexicon

    return lexicon


@lru_cache(maxsize=1 << 16)
def noun_lemma(word: str, plural: bool) -> str:
    """The singular of a noun; of a compound, of its last word."""
    *first, last = word.split(" ")
    if last in IRREGULAR_NOUNS:
        last = IRREGULAR_NOUNS[last]
    elif plural and last.endswith("s") and not last.endswith("ss"):
        from textblob.en.inflect import singularize

        last = last[:-1] if last.endswith("ves") and last[:-1] in _tagger_lexicon() else singularize(last)
    return " ".join([*first, last])


@lru_cache(maxsize=1 << 16)
def verb_lemma(word: str) -> str:
    """The base form of a verb form, by suffix rules checked against the tagger's lexicon."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    known = _tagger_lexicon()
    for suffix, endings in (("ing", ("e", "")), ("ied", ("y",)), ("ed", ("e", "")), ("ies", ("y",)), ("es", ("e", "")),
                            ("s", ("",))):  # fmt: skip
        if not word.endswith(suffix) or len(word) < len(suffix) + 2:
            continue
        stem = word[: -len(suffix)]
        doubled = [stem[:-1]] if len(stem) > 2 and stem[-1] == stem[-2] else []
        for base in [stem + ending for ending in endings] + doubled:
            if known.get(base, "")[:2] in ("VB", "NN", "JJ"):
                return base
    return word
