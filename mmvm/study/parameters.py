"""The parameters of a chapter: flat, typed, defined once, read from a notebook, a YAML file or a command line.

A parameter has a default (the `smoke` profile), a type and a line that says unit, meaning and the paper's value. The
chapter's `parameters` cell repeats it (a test holds them equal), the other profiles are YAML files in book/params, and
papermill, the train command and the grid all use these names.
"""

import hashlib
import json
import math
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mmvm import options, paths
from mmvm.errors import UserError

IPYTHON = {"In", "Out", "get_ipython", "exit", "quit", "open"}


def parameter(default: Any, meaning: str, choices: tuple = (), at_least: float | None = None, positive: bool = False,
              last: bool = False, added: bool = False, kinds: Callable | None = None, apart: bool = False) -> Any:
    """A field with a line of meaning and, where only some values make sense, those. `last`: after all others in the
    chapter's cell, also those that a subclass adds. `added`: younger than committed rows; at its default it is left
    out of a run's hash and of a checkpoint's config, so that earlier runs keep theirs. `kinds`: a function that returns
    what may be chosen, with the options of each, for a text as of `mmvm.options`; it is kept in its one form. `apart`:
    not in the chapter's cell, which shows what a reader changes; for lists of runs, profiles and --set.

    >>> mmvm.study.parameter(8, "widths of the hidden layer", at_least=1).default
    8
    """
    return field(default=default, metadata={"meaning": meaning, "choices": choices, "at_least": at_least,
                                            "positive": positive, "last": last, "added": added, "kinds": kinds,
                                            "apart": apart})


@dataclass(frozen=True)
class Parameters:
    """Base of every chapter's parameters: flat, typed, validated on construction (`UserError`).

    >>> Toy.from_dict({"beta": 0.25}).with_settings(["epochs=2"]).epochs
    2
    """

    def __post_init__(self) -> None:
        types = typing.get_type_hints(type(self))
        for f in fields(self):
            value, wanted = getattr(self, f.name), types[f.name]
            if isinstance(value, np.generic):
                value = value.item()  # of a loop over an array
            if wanted is float and type(value) is int:
                value = float(value)
            object.__setattr__(self, f.name, value)  # the class is frozen
            if type(value) is not wanted:
                raise UserError(f"{f.name} must be {_a(wanted)}, got {value!r}, {_a(type(value))}."
                                + (" In YAML write 1.0e-3: without the point, 1e-3 is text." if wanted is float else "")
                                + f" {f.name}: {f.metadata['meaning']}")
            if wanted is float and not math.isfinite(value):
                raise UserError(f"{f.name} must be a finite number, got {value}")
            if f.name.endswith("seed") and not 0 <= value < 2**32:
                raise UserError(f"{f.name} must be at least 0 and below 2^32, got {value}")
            if (choices := f.metadata["choices"]) and value not in choices:
                raise UserError(f"{f.name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
            if (least := f.metadata["at_least"]) is not None and not value >= least:
                raise UserError(f"{f.name} must be at least {least}, got {value}")
            if f.metadata["positive"] and not value > 0:
                raise UserError(f"{f.name} must be positive, got {value}")
            if f.metadata["kinds"]:
                object.__setattr__(self, f.name, options.canonical(value, f.name, f.metadata["kinds"]()))

    def choice(self, name: str) -> tuple[str, dict]:
        """What the text of parameter `name` chooses, and the values of all its options."""
        kinds = next(f.metadata["kinds"] for f in fields(self) if f.name == name)()
        return options.parse(getattr(self, name), name, kinds)

    @classmethod
    def from_dict(cls, values: Mapping) -> typing.Self:
        """Values by name, the others at their defaults. Unknown names are an error that lists what exists."""
        known = [f.name for f in sorted(fields(cls), key=lambda f: f.metadata["last"])]
        unknown = sorted(str(name) for name in set(values) - set(known))
        if unknown:
            raise UserError(f"unknown parameter {', '.join(unknown)}; {cls.__name__} has: {', '.join(known)}")
        return cls(**values)

    @classmethod
    def from_notebook(cls, namespace: Mapping) -> typing.Self:
        """What a chapter's `parameters` cell, and papermill after it, have put into `globals()`.

        papermill only warns about an unknown name and runs with the defaults; here it is an error. Call this before
        the chapter defines anything of its own.
        """
        if any(isinstance(value, Parameters) for value in namespace.values()):  # the cell is run again
            known = {f.name for f in fields(cls)}
            return cls.from_dict({name: value for name, value in namespace.items() if name in known})
        return cls.from_dict({name: value for name, value in namespace.items()
                              if not name.startswith("_") and name not in IPYTHON
                              and not isinstance(value, (ModuleType, type))})

    @classmethod
    def from_profile(cls, profile: str) -> typing.Self:
        """The defaults changed by a profile: book/params/<name>-<profile>.yaml, or params/<profile>.yaml beside the
        study's own module, or any YAML file by its path. "smoke" is the defaults where no file says otherwise."""
        path, there = Path(profile), cls.profiles()
        if path.suffix not in (".yaml", ".yml"):
            if profile == "smoke" and profile not in there:
                return cls()
            path = there.get(profile, paths.REPOSITORY / "book" / "params" / f"{cls.name}-{profile}.yaml")
        if not path.exists():
            raise UserError(f"there is no profile {path}; profiles of {cls.name}: {', '.join(there)}, or name a "
                            "YAML file")
        values = options.read_yaml(path, str(path), "write lines of `name: value`")
        if not isinstance(values, dict | None):
            raise UserError(f"{path} must hold lines of `name: value`")
        try:
            return cls.from_dict(values or {})
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    @classmethod
    def profiles(cls) -> dict[str, Path]:
        """Name -> file of the profiles that there are."""
        own = (Path(str(sys.modules[cls.__module__].__file__)).parent / "params").glob("*.yaml")
        book = (paths.REPOSITORY / "book" / "params").glob(f"{cls.name}-*.yaml")
        return dict(sorted([*((path.stem, path) for path in own),
                            *((path.stem.removeprefix(f"{cls.name}-"), path) for path in book)]))

    def with_settings(self, settings: list[str]) -> typing.Self:
        """`["beta=0.25", "objective=independent"]` applied to these parameters, each read as its own type."""
        types, values = typing.get_type_hints(type(self)), asdict(self)
        known = {f.name for f in fields(self)}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals:
                raise UserError(f"--set takes name=value, got {setting!r}")
            name = name.strip()
            values[name] = _parse(text, types[name], name) if name in known else text
        return self.from_dict(values)

    @classmethod
    def ordered(cls) -> list:
        """The fields in the order of the chapter's cell, but those that stand apart from it."""
        return sorted((f for f in fields(cls) if not f.metadata["apart"]), key=lambda f: f.metadata["last"])

    @classmethod
    def cell(cls) -> str:
        """The text of the chapter's `parameters` cell."""
        types, ordered = typing.get_type_hints(cls), cls.ordered()
        shown = [json.dumps(f.default) if isinstance(f.default, str) else f.default for f in ordered]
        lines = [f"{f.name}: {types[f.name].__name__} = {value}" for f, value in zip(ordered, shown)]
        width = max(map(len, lines))
        return "\n".join(f"{line:<{width}}  # {f.metadata['meaning']}" for line, f in zip(lines, ordered))

    def run_hash(self) -> str:
        """Ten characters that name these parameters; where files lie and what the run is labelled do not count."""
        values = {name: value for name, value in self.identity().items() if name not in self.not_hashed}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]

    def identity(self) -> dict:
        """The values that tell runs apart: all but those of `added` parameters at their defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self)
                if not (f.metadata["added"] and getattr(self, f.name) == f.default)}

    name: typing.ClassVar[str] = ""
    not_hashed: typing.ClassVar[tuple[str, ...]] = ("out", "root", "profile", "device")


def _parse(text: str, wanted: type, name: str) -> Any:
    if wanted is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{name} must be true or false, got {text!r}")
        return text.lower() == "true"
    try:
        return wanted(text)
    except ValueError:
        raise UserError(f"{name} must be {_a(wanted)}, got {text!r}") from None


def _a(kind: type) -> str:
    return {int: "an integer", float: "a number", bool: "true or false", str: "text"}.get(kind, kind.__name__)
