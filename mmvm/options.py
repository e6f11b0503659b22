"""A choice and its options as one text, safe in a shell without quotes: `mmvm`, `mmvm:gate=soft,load_balance=1`.

What may be chosen says which options it has (`Option`: type, choices, range, meaning); everything unknown or out of
range is one line that says what exists. Methods are chosen this way, and a study's networks.
"""

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmvm.errors import UserError


@dataclass(frozen=True)
class Option:
    """One option of a choice.

    default  its value where the text is silent; None: found from the rest, as `meaning` says
    kind     bool, int, float or str; that of the default, where there is one
    choices  of a text; at_least, at_most, above: the range of a number
    paper    the paper's value, or the released code's, where it is another one or worth saying

    `read` raises `UserError` for a text that is none of the values.

    >>> rate = mmvm.objectives.Option("rate", 0.5, "of something", at_least=0)
    >>> rate.values(), rate.read("2")
    ('number at least 0', 2.0)
    """

    name: str
    default: bool | int | float | str | None
    meaning: str
    kind: type | None = None
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    paper: str = ""

    @property
    def type(self) -> type:
        return self.kind or type(self.default)

    def values(self) -> str:
        """What may be given, in words."""
        if self.choices:
            return " | ".join(self.choices)
        limits = [f"{word} {limit:g}" for word, limit in (("at least", self.at_least), ("above", self.above),
                                                          ("at most", self.at_most)) if limit is not None]
        return " ".join([{bool: "true | false", int: "integer", float: "number", str: "text"}[self.type], *limits])

    def read(self, text: str) -> bool | int | float | str:
        """The value that `text` says; `UserError` where it says none."""
        try:
            value = {"true": True, "false": False}[text.lower()] if self.type is bool else self.type(text)
        except (KeyError, ValueError):
            value = None
        number = isinstance(value, float | int) and not isinstance(value, bool)
        if (value is None or self.choices and value not in self.choices or number and not (
                math.isfinite(value) and (self.at_least is None or value >= self.at_least)
                and (self.at_most is None or value <= self.at_most) and (self.above is None or value > self.above))):
            raise UserError(f"{self.name} must be {self.values()}, got {text!r}")
        return value

    def write(self, value: object) -> str:
        """`read`'s inverse: true, not True; the shortest text of a number."""
        if isinstance(value, bool):
            return str(value).lower()
        return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def parse(text: str, what: str, kinds: Mapping[str, Sequence[Option]]) -> tuple[str, dict]:
    """"mmvm:gate=soft" -> "mmvm" and the values of all its options, those not given at their defaults.

    `what` names the thing in errors, `kinds` has the options of every choice. Raises `UserError`.
    """
    name, colon, rest = text.partition(":")
    if name not in kinds:
        own = "; one of your own has to be imported by the study (CONTRIBUTING.md)" * (what == "objective")
        raise UserError(f"unknown {what} {name!r}: there are {', '.join(kinds)}{own}")
    options = {option.name: option for option in kinds[name]}
    values = {option.name: option.default for option in kinds[name]}
    given = set()
    for word in rest.split(",") if colon else []:
        option, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{what} {text!r}: write {name}:<option>=<value>,<option>=<value>, got {word!r}")
        if option not in options:
            raise UserError(f"{what} {name!r} has no option {option!r}: it has {', '.join(options) or 'none'}")
        if option in given:
            raise UserError(f"{what} {text!r} says {option} twice: leave one out")
        given.add(option)
        try:
            values[option] = options[option].read(value)
        except UserError as error:
            raise UserError(f"{what} {text!r}: {error}; {option} is {options[option].meaning}") from None
    return name, values


def write(name: str, values: Mapping, options: Sequence[Option]) -> str:
    """The one text of a choice: its options in their own order, without those at their defaults."""
    words = [f"{option.name}={option.write(values[option.name])}" for option in options
             if values.get(option.name, option.default) != option.default]
    return name + (":" + ",".join(words) if words else "")


def canonical(text: str, what: str, kinds: Mapping[str, Sequence[Option]]) -> str:
    """`text` as `write` writes it, so that equal choices are equal texts."""
    name, values = parse(text, what, kinds)
    return write(name, values, kinds[name])


# options of functions ------------------------------------------------------------------------------------------------

def options_of(function: Callable) -> dict[str, type]:
    """Name -> type of a function's named arguments but the first, which is what it works on."""
    hints = typing.get_type_hints(function)
    return {name: hints.get(name, object) for i, (name, parameter) in enumerate(
        inspect.signature(function).parameters.items()) if i and parameter.kind != parameter.VAR_KEYWORD}


def arguments(functions: Mapping[str, Callable], settings: Sequence[str]) -> dict[str, dict]:
    """Lines of name=value as keyword arguments of those functions that have one of this name, by the functions' names.
    A value is read as YAML and must be of the type that the signature says."""
    chosen: dict[str, dict] = {name: {} for name in functions}
    for setting in settings:
        option, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise UserError(f"--set takes name=value, got {setting!r}")
        if not (takers := [name for name, function in functions.items() if option in options_of(function)]):
            there = "; ".join(f"--{name} takes {', '.join(options_of(function)) or 'none'}"
                              for name, function in functions.items())
            raise UserError(f"there is no option {option!r} here: {there or 'add --check, --prepare or --simulate'}")
        for name in takers:
            chosen[name][option] = _of_type(text, option, options_of(functions[name])[option])
    return chosen


class _Plain(yaml.SafeLoader):
    """YAML as a reader expects it: a name has one value, and nothing stands for something else (nine lines of aliases
    can stand for a billion words)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        if len(found := super().construct_mapping(node, deep)) < len(node.value):
            names = [str(key.value) for key, _ in node.value]
            name = next((name for name in names if names.count(name) > 1), "a name")
            raise yaml.constructor.ConstructorError(problem=f"{name:.80} comes twice", problem_mark=node.start_mark)
        return found


def from_yaml(text: str) -> Any:
    """Plain values of a YAML text. Raises `ValueError` or `yaml.YAMLError`."""
    try:
        return yaml.load(text, _Plain)
    except (RecursionError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:  # PyYAML's own
        raise ValueError(f"{type(error).__name__}: {error}") from None


def read_yaml(path: Path, what: str, form: str) -> Any:
    """The content of a YAML file; `what` it is and the `form` it should have are for the error, a `UserError`."""
    if not path.is_file() and not path.is_dir():  # a pipe would be waited for, a device read for ever
        raise UserError(f"{what} is no file: {form}")
    try:
        return from_yaml(path.read_text())
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date like 2026-13-01
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}," if mark else ""
        why = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{what}{where} is not YAML ({why:.300}): {form}") from None


def _of_type(text: str, name: str, hint: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = tuple(typing.get_origin(kind) or kind for kind in kinds)
    try:
        value = from_yaml(text)
    except (yaml.YAMLError, ValueError):
        value = text
    fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    if str in kinds and not (fits and isinstance(value, Mapping | list | int | None)):
        return text
    if float in kinds and type(value) is int:
        return float(value)
    if not fits:
        wanted = " or ".join({int: "an integer", float: "a number", bool: "true or false", Sequence: "a list [a, b]",
                              Mapping: "a mapping {a: b}", types.NoneType: "null"}.get(kind, kind.__name__)
                             for kind in kinds)
        raise UserError(f"{name} must be {wanted}, got {text!r}")
    return value
