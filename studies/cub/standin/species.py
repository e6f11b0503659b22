"""Species and birds: which colours, proportions and poses go together, drawn from a seed.

All randomness comes from `random.Random`, whose stream Python keeps the same for a seed.
"""

from dataclasses import dataclass
from random import Random

# the 15 colours of CUB's attributes, in its order, as they look in neutral light
COLOURS = {"blue": (48, 92, 178), "brown": (112, 78, 50), "iridescent": (40, 104, 118), "purple": (112, 62, 142),
           "rufous": (166, 78, 42), "grey": (136, 139, 142), "yellow": (236, 202, 52), "olive": (112, 112, 52),
           "green": (64, 134, 64), "pink": (226, 134, 154), "orange": (232, 132, 36), "black": (30, 29, 33),
           "white": (240, 240, 234), "red": (190, 36, 36), "buff": (214, 186, 138)}
PARTS = ("tail", "legs", "back", "belly", "breast", "head", "throat", "crown", "wings", "beak", "eye")
BEAKS = {"cone": (0.17, 0.075, 0.0), "short": (0.13, 0.05, 0.0), "long": (0.42, 0.045, 0.0),
         "curved": (0.34, 0.05, 0.10), "hooked": (0.24, 0.085, 0.07)}           # length, half width, droop
POSES = ("perched", "standing", "swimming", "flying")
GREYS = ("black", "white", "grey")

# what goes together, roughly as in North American birds: colour of the back -> weights; then what the rest may be
BACKS = {"brown": 24, "black": 21, "grey": 16, "white": 9, "blue": 7, "red": 5, "olive": 5, "yellow": 3, "green": 4,
         "rufous": 3, "purple": 1, "iridescent": 1, "buff": 1}
BELLIES = {"brown": {"white": 4, "buff": 3, "brown": 3, "grey": 1},
           "black": {"black": 5, "white": 4, "red": 1, "orange": 1},
           "grey": {"white": 5, "grey": 3, "yellow": 2, "rufous": 1}, "white": {"white": 8, "grey": 1, "buff": 1},
           "blue": {"white": 4, "blue": 4, "rufous": 2, "grey": 1}, "red": {"red": 5, "pink": 2, "white": 2, "grey": 1},
           "olive": {"yellow": 6, "white": 2, "buff": 1}, "yellow": {"yellow": 6, "white": 1, "orange": 1},
           "green": {"white": 3, "green": 2, "yellow": 2, "grey": 1}, "rufous": {"white": 2, "buff": 2, "rufous": 2},
           "purple": {"purple": 2, "pink": 1, "white": 1}, "iridescent": {"iridescent": 2, "black": 1, "white": 1},
           "buff": {"white": 2, "buff": 2}}
WINGS = {"brown": {"brown": 8, "black": 1, "rufous": 1}, "black": {"black": 9, "brown": 1, "white": 1},
         "grey": {"grey": 6, "black": 3, "brown": 1}, "white": {"grey": 4, "black": 3, "white": 3},
         "blue": {"blue": 6, "black": 2, "brown": 1}, "red": {"red": 3, "black": 3, "brown": 3},
         "olive": {"olive": 4, "black": 2, "grey": 2}, "yellow": {"black": 5, "yellow": 2, "grey": 1},
         "green": {"green": 6, "brown": 1, "grey": 1}, "rufous": {"rufous": 2, "brown": 2},
         "purple": {"purple": 1, "black": 1}, "iridescent": {"black": 2, "iridescent": 1},
         "buff": {"brown": 2, "buff": 1}}
ACCENTS = {"black": 6, "red": 3, "white": 3, "yellow": 3, "orange": 2, "grey": 2, "blue": 1, "rufous": 2, "purple": 1,
           "green": 1, "pink": 1}
BEAK_COLOURS = {"black": 8, "grey": 6, "orange": 3, "yellow": 3, "brown": 3, "red": 1, "white": 1}
LEG_COLOURS = {"black": 5, "grey": 5, "orange": 2, "brown": 2, "pink": 2, "yellow": 1}
EYE_COLOURS = {"black": 12, "brown": 2, "red": 1, "yellow": 2}


@dataclass(frozen=True)
class Species:
    """Colour per part, and proportions: what individuals of one species have in common."""

    colours: dict[str, str]
    beak: str               # a key of BEAKS
    tail_length: float      # of the body's length, 0.25 to 0.8
    depth: float            # the body's depth over a usual one's, 0.75 to 1.25
    head: float             # radius of the head, 0.15 to 0.22
    neck: float             # how far the head stands off the body, 0 to 0.25
    pattern: str            # of the breast: solid | spotted | striped
    wing_bars: bool
    crest: bool
    eye_ring: bool
    water: bool             # may swim


@dataclass(frozen=True)
class Bird:
    """One individual in one picture."""

    species: Species
    colours: dict[str, str]
    pose: str
    grey: bool              # taken without colour; such birds have none either


def draw_species(draw: Random) -> Species:
    back = pick(draw, BACKS)
    belly, wings = pick(draw, BELLIES[back]), pick(draw, WINGS[back])
    head = pick(draw, {back: 6, pick(draw, ACCENTS): 4})
    colours = {"back": back, "belly": belly, "wings": wings, "head": head,
               "breast": pick(draw, {belly: 7, pick(draw, ACCENTS): 2}),
               "tail": pick(draw, {wings: 6, back: 3, "black": 1}),
               "throat": pick(draw, {head: 6, belly: 3, pick(draw, ACCENTS): 1}),
               "crown": pick(draw, {head: 7, pick(draw, ACCENTS): 3}), "beak": pick(draw, BEAK_COLOURS),
               "legs": pick(draw, LEG_COLOURS), "eye": pick(draw, EYE_COLOURS)}
    water = draw.random() < 0.25
    return Species(colours, pick(draw, {"cone": 3, "short": 3, "long": 2, "curved": 1, "hooked": 2}),
                   draw.uniform(0.25, 0.5 if water else 0.8), draw.uniform(0.75, 1.25), draw.uniform(0.15, 0.22),
                   draw.uniform(0, 0.25) if water else draw.uniform(0, 0.06),
                   pick(draw, {"solid": 7, "spotted": 2, "striped": 2}), draw.random() < 0.3, draw.random() < 0.15,
                   draw.random() < 0.15, water)


def draw_bird(draw: Random, species: Species, grey_share: float = 0.01) -> Bird:
    """An individual; one in eight has another plumage in places (age, sex), most often browner."""
    colours = dict(species.colours)
    if draw.random() < 0.125:
        for part in draw.sample(("back", "wings", "belly", "breast", "head"), 2):
            colours[part] = pick(draw, {"brown": 4, "grey": 2, "white": 1, pick(draw, ACCENTS): 2})
    poses = {"perched": 5, "standing": 3, "flying": 1, **({"swimming": 6} if species.water else {})}
    colourless = all(colours[part] in GREYS for part in PARTS)
    return Bird(species, colours, pick(draw, poses), colourless and draw.random() < 12 * grey_share)


def pick(draw: Random, weights: dict[str, float]) -> str:
    return draw.choices(list(weights), list(weights.values()))[0]
