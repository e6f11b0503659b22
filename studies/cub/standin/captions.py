"""Sentences about a painted bird: from a grammar, in varied English, about some of its parts but never all.

A caption names only what the picture shows: a part that takes up too few pixels is not mentioned, sizes are those of
parts beside each other, and nothing is said of the species.
"""

from random import Random

from studies.cub.standin.paint import Picture
from studies.cub.standin.species import Bird, pick

WORDS = {"back": ("back", "upperparts"), "belly": ("belly", "underside", "abdomen"), "breast": ("breast", "chest"),
         "wings": ("wings", "wing feathers", "secondaries"), "tail": ("tail", "tail feathers", "rectrices"),
         "head": ("head", "face"), "throat": ("throat", "chin"), "crown": ("crown", "cap", "forehead"),
         "beak": ("beak", "bill"), "eye": ("eyes", "eye"), "legs": ("legs", "feet", "tarsus")}
PLURAL = {"wings", "wing feathers", "secondaries", "tail feathers", "rectrices", "upperparts", "eyes", "legs", "feet"}
PIXELS = {"eye": 5, "beak": 7, "legs": 8}       # fewer are not seen at 64 x 64; other parts need 25
BEAKS = {"cone": ("short, thick", "cone shaped", "stout"), "short": ("short", "small pointed", "thin"),
         "long": ("long", "long, thin", "long pointed"), "curved": ("curved", "long, curved", "downward curved"),
         "hooked": ("hooked", "thick, hooked", "heavy")}
SHADES = {"blue": ("bright", "royal"), "red": ("bright", "deep"), "yellow": ("bright", "lemon"), "orange": ("bright",),
          "green": ("bright",), "black": ("jet", "glossy"), "white": ("pure", "bright"), "brown": ("warm", "plain"),
          "grey": ("plain",)}
# pattern -> how often; as in the original, a few ways to begin are by far the most common
OPENINGS = {"this bird is {main} with {a} and {b}": 8, "this is {main_bird} with {a} and {b}": 5,
            "{main_bird} with {a}": 4,
            "this bird has {a} and {b}": 4, "{main_bird} with {a}, {b} and {c}": 3, "this bird is {main} with {a}": 3,
            "this bird has {a}, {b} and {c}": 2, "this bird is {main} in color with {a}": 2,
            "a bird with {a}, {b}, and {c}": 1, "{main_bird} that has {a} and {b}": 1,
            "the {shape}bird has {a} and {is_b}": 1, "this {shape}bird has {a}, and {is_b}": 1,
            "a bird that is mostly {main}, with {a}": 1, "the bird is {main} and {is_a}, it also has {b}": 1,
            "this {shape}bird is mostly {main} except for {a} and {b}": 1, "{is_a} and {is_b} on this {shape}bird": 1,
            "its {is_a_bare}, and the rest of the bird is {main}": 1, "the bird has {a} as well as {b}": 1}
CONTRASTS = ("rest of", "except")    # openings that only make sense for parts unlike the rest


def captions(bird: Bird, picture: Picture, draw: Random, n: int = 10) -> list[str]:
    """n sentences, each about its own choice of parts."""
    return [_sentence(bird, picture, draw) for _ in range(n)]


def visible(picture: Picture) -> list[str]:
    """The parts that take up enough of the picture to be mentioned."""
    return [part for part, share in picture.shares.items() if share * picture.pixels >= PIXELS.get(part, 25)]


def area_by_colour(bird: Bird, picture: Picture) -> dict[str, float]:
    """Colour -> share of the bird's visible area, the largest first."""
    areas: dict[str, float] = {}
    for part, share in picture.shares.items():
        areas[bird.colours[part]] = areas.get(bird.colours[part], 0) + share
    return dict(sorted(areas.items(), key=lambda item: -item[1]))


def _sentence(bird: Bird, picture: Picture, draw: Random) -> str:
    seen = visible(picture)
    areas = area_by_colour(bird, picture)
    main = [colour for colour in areas if areas[colour] >= min(0.22, max(areas.values()))][:draw.choice((1, 2, 2))]
    if len(main) > 1 and draw.random() < 0.3:
        main.reverse()
    pattern, unlike = pick(draw, OPENINGS), [part for part in seen if bird.colours[part] not in main]
    if any(words in pattern for words in CONTRASTS):
        if len(unlike) > 1:
            seen = unlike
        else:
            pattern = "this bird has {a}, {b} and {c}"
    parts = draw.sample(seen, min(3, len(seen)))
    main_words = " and ".join(_colour(colour, draw) for colour in main)
    shape = _shape(bird, draw)
    nouns = [_noun(bird, part, draw) for part in parts]
    statements = [_statement(bird, part, draw) for part in parts]
    sentence = pattern.format(
        a=nouns[0], b=nouns[1 % len(parts)], c=nouns[2 % len(parts)], main=main_words, shape=shape,
        main_bird=_article(f"{shape}{main_words} bird"), is_a=statements[0],
        is_a_bare=statements[0].removeprefix("the "), is_b=statements[1 % len(parts)])
    return sentence + ("" if draw.random() < 0.08 else "." if draw.random() < 0.8 else " .")


def _colour(colour: str, draw: Random) -> str:
    word = draw.choice(("grey", "gray")) if colour == "grey" else colour
    shade = draw.choice(SHADES.get(colour, ("",))) if draw.random() < 0.1 else ""
    return f"{shade} {word}".strip()


def _shape(bird: Bird, draw: Random) -> str:
    words = [word for word, true in (("plump", bird.species.depth > 1.1), ("slender", bird.species.depth < 0.88),
                                     ("long tailed", bird.species.tail_length > 0.62 and bird.pose != "flying"),
                                     ("crested", bird.species.crest)) if true]
    return f"{draw.choice(words)} " if words and draw.random() < 0.3 else ""


def _noun(bird: Bird, part: str, draw: Random) -> str:
    """A part with its colour and at times its form, as in "a long, thin black bill"."""
    word, colour = draw.choice(WORDS[part]), _colour(bird.colours[part], draw)
    s = bird.species
    if part == "beak" and draw.random() < 0.6:
        return _article(f"{draw.choice(BEAKS[s.beak])} {colour} {word}")
    if part == "breast" and s.pattern != "solid" and draw.random() < 0.7:
        return _article(f"{colour} {word}") + " with " + draw.choice(
            ("dark spots", "speckles") if s.pattern == "spotted" else ("dark streaks", "stripes"))
    if part == "wings" and s.wing_bars and draw.random() < 0.6:
        return f"{colour} wings with " + draw.choice(("white wingbars", "two white bars"))
    if part == "tail" and draw.random() < 0.4 and not 0.35 <= s.tail_length <= 0.6:
        colour = f"{'long' if s.tail_length > 0.6 else 'short'} {colour}"
    if part == "eye" and s.eye_ring and draw.random() < 0.5:
        return f"{colour} eyes with a white eyering"
    noun = f"{colour} {word}"
    return noun if word in PLURAL else _article(noun)


def _statement(bird: Bird, part: str, draw: Random) -> str:
    word = draw.choice(WORDS[part])
    return f"the {word} {'are' if word in PLURAL else 'is'} {_colour(bird.colours[part], draw)}"


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words
