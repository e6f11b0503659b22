"""Methods by name: what a class says of itself, and how a text like `mvtcae:alpha=0.5` becomes an objective.

A new method is a class with the decorator `method` and its `Option`s; the command line, the chapters, the figures and
the list of methods then know it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

from mmvm.errors import UserError
from mmvm.objectives.base import Objective
from mmvm.options import Option, parse, write

MARKERS = tuple(".,ov^<>1234sp*hH+xDd|_8PX")  # matplotlib's


@dataclass(frozen=True)
class Appearance:
    """How figures show a method: its name, its colour as #RRGGBB, and matplotlib's letter of its marker.

    >>> mmvm.objectives.METHODS["mmvm"].appearance.label
    'MMVM'
    """

    label: str
    colour: str
    marker: str


@dataclass(frozen=True)
class Method:
    """A registered method: its class, how figures show it, where it comes from, and its options."""

    cls: type[Objective]
    appearance: Appearance
    source: str
    options: tuple[Option, ...]
    variants: Mapping[str, Appearance]


METHODS: dict[str, Method] = {}
"""Name -> class, appearance, source and options of every registered method, in the order of figures and lists.

>>> list(mmvm.objectives.METHODS)[:2]
['mmvm', 'independent']
"""


def method(name: str, label: str, colour: str, marker: str, source: str, options: Sequence[Option] = (),
           variants: Mapping[str, Appearance] | None = None) -> Callable[[type[Objective]], type[Objective]]:
    """Class decorator: makes an `Objective` the method `name`.

    label, colour, marker  in figures
    source                 paper and section or equation
    options                what the text may set; `cls.from_options` is given the values
    variants               texts with options that figures show as methods of their own

    Raises `UserError` where another class has the name already, and for another colour or marker.

    >>> @mmvm.objectives.method("mine", "Mine", "#000000", "o", "nobody's paper")
    ... class Mine(Independent): pass
    >>> mmvm.objectives.METHODS.pop("mine").cls is Mine
    True
    """
    for shown in (Appearance(label, colour, marker), *(variants or {}).values()):
        if not re.fullmatch("#[0-9a-fA-F]{6}", str(shown.colour)) or shown.marker not in MARKERS:
            raise UserError(f"method {name!r} is drawn in {shown.colour!r} with the marker {shown.marker!r}: give a "
                            f"colour as #RRGGBB, and one of the markers {' '.join(MARKERS)}")

    def register(cls: type[Objective]) -> type[Objective]:
        known = METHODS.get(name)
        if known and (known.cls.__module__, known.cls.__qualname__) != (cls.__module__, cls.__qualname__):
            raise UserError(f"method {name!r} of {cls.__module__}.{cls.__qualname__} is already that of "
                            f"{known.cls.__module__}.{known.cls.__qualname__}: choose another name")
        METHODS[name] = Method(cls, Appearance(label, colour, marker), source, tuple(options), variants or {})
        return cls
    return register


def options_of() -> dict[str, tuple[Option, ...]]:
    """Name -> options of every method that is registered."""
    return {name: found.options for name, found in METHODS.items()}


def build(text: str, latent_dim: int, n_modalities: int) -> Objective:
    """The objective that a text names, for D = `latent_dim` and M modalities. Raises `UserError`.

    >>> mmvm.objectives.build("mmvm:gate=soft", latent_dim=2, n_modalities=2).gate.mode
    'soft'
    """
    name, values = parse(text, "objective", options_of())
    try:
        built = METHODS[name].cls.from_options(values, latent_dim, n_modalities)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UserError(f"method {name!r}: {METHODS[name].cls.__name__} cannot be made of its options ({error}): let "
                        f"its __init__ take {', '.join(values) or 'none'}, or override from_options") from error
    built.text = write(name, values, METHODS[name].options)
    return built


def appearances() -> dict[str, Appearance]:
    """Text -> how figures show it: all methods, then their variants."""
    return {**{name: found.appearance for name, found in METHODS.items()},
            **{text: shown for found in METHODS.values() for text, shown in found.variants.items()}}


def appearance(text: str) -> Appearance:
    """How figures show a method with its options. Options without an appearance of their own have their method's
    colour, darkened and tinted, and a marker, by the options' text: the same in all figures. What no method is, say one
    of a class without the decorator, stands under the text itself, in a grey.

    >>> mmvm.objectives.spec.appearance("mmvm:gate=soft,load_balance=1").label
    'MMVM, gate=soft,load_balance=1'
    """
    if text in (known := appearances()):
        return known[text]
    name, _, options = text.partition(":")
    own = METHODS[name].appearance if name in METHODS else Appearance(text, "#B3B3B3", "")
    code = crc32((options or text).encode())
    tints = 5 if name in METHODS else 1  # in each of red, green and blue another; a grey stays one
    shares = ((0.75, 0.55, 0.38)[code % 3] + (code // 18 // tints**i % 5 - 2) / 20 for i in range(3))
    colour = "".join(f"{round(share * int(own.colour[at:at + 2], 16)):02X}" for at, share in zip((1, 3, 5), shares))
    return Appearance(f"{own.label}, {options}" if name in METHODS else text, f"#{colour}", "dhXP*8"[code // 3 % 6])


def described() -> list[tuple[str, str, str, str, str, str]]:
    """One line per method and per option: (method or "", option or "", values, default, paper's value, meaning or
    source)."""
    lines = []
    for name, found in METHODS.items():
        lines.append((name, "", "", "", "", f"{found.appearance.label}; {found.source}"))
        for option in found.options:
            default = "" if option.default is None else option.write(option.default)
            lines.append(("", option.name, option.values(), default, option.paper, option.meaning))
    return lines
