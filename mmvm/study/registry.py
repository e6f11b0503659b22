"""Studies are found, not listed: whatever an installed package registers under the entry points `mmvm.studies`.

A line in a package's pyproject.toml makes a class one of them, the project's own and anybody's alike:

    [project.entry-points."mmvm.studies"]
    my-study = "my_package.study:MyStudy"

A registration that cannot be used is a line that names its package; the others keep working.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from mmvm import paths, training
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE
from mmvm.study import older
from mmvm.study.study import Study

GROUP = "mmvm.studies"


class Registry(Mapping):
    """Name -> class of all registered studies, in the order of their names; a class is imported when it is asked for.

    Raises `UserError` for a study that nobody registered, that two packages did, or whose import fails.
    """

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(_points()))

    def __len__(self) -> int:
        return len(_points())

    def __contains__(self, name: object) -> bool:
        return name in _points()

    def __getitem__(self, name: str) -> type[Study]:
        found = _points()
        if name not in found:
            raise UserError(f"there is no study {name!r}; there are: {', '.join(self)}")
        points = found[name]
        if len(points) > 1:
            packages = " and ".join(f"{_package(point)} ({point.value})" for point in points)
            raise UserError(f"study {name!r} is registered twice, by {packages}: uninstall one of them, or rename its "
                            "entry point")
        return _loaded(points[0])


def _points() -> dict[str, list[EntryPoint]]:
    """By name. One package seen twice, installed and in the working directory, counts once."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        same = found.setdefault(point.name, [])
        if not any((_package(other), other.value) == (_package(point), point.value) for other in same):
            same.append(point)
    return found


def _loaded(point: EntryPoint) -> type[Study]:
    who = f"study {point.name!r} of the package {_package(point)}"
    try:
        kind = point.load()
    except Exception as error:  # whatever a foreign module does when it is imported
        raise UserError(f"{who} cannot be loaded from {point.value!r} ({type(error).__name__}: "
                        f"{str(error).splitlines()[0] if str(error) else 'no message'}): repair that package, or "
                        "uninstall it") from error
    if not (isinstance(kind, type) and issubclass(kind, Study)):
        raise UserError(f"{who}: {point.value!r} is no subclass of mmvm.study.Study: correct its entry point")
    if kind.name != point.name:
        raise UserError(f"{who}: its class has the name {kind.name!r}: give both one name")
    return kind


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"


def usable() -> tuple[dict[str, type[Study]], list[str]]:
    """The studies that can be used, and one line for each that cannot."""
    kinds, problems = {}, []
    for name in STUDIES:
        try:
            kinds[name] = STUDIES[name]
        except UserError as error:
            problems.append(str(error))
    return kinds, problems


STUDIES = Registry()
"""Name -> class of the studies that installed packages register; see `mmvm.study.Study`.

>>> "no such study" in mmvm.study.STUDIES, len(mmvm.study.STUDIES) > 0
(False, True)
"""


def load(folder: str | Path, **settings: Any) -> tuple[Study, MultimodalVAE]:
    """Parameters and trained model of a run's folder (from the repository's root, like `out`); the data is read to
    know its shapes. What the training does not depend on (n_test, n_probe, ...) is at its default. A checkpoint does
    not know where the data lies, because folders move: where that is not the default, give it as `root`.

    Raises `UserError` where there is no checkpoint, or its study is not installed.

    >>> try: mmvm.study.load(folder / "no-run")
    ... except UserError as error: print(str(error)[:22])
    there is no checkpoint
    """
    checkpoint = paths.placed(folder) / training.CHECKPOINT
    _, metadata = training.read_checkpoint(checkpoint)
    config = {**json.loads(metadata["config"]), **json.loads(metadata["progress"])}
    if config.get("experiment") not in STUDIES:
        raise UserError(f"{checkpoint} is of the study {config.get('experiment')!r}; installed are "
                        f"{', '.join(STUDIES)}")
    kind = STUDIES[config["experiment"]]
    config["epochs"] = max(config["epoch"], 1)
    config = older.present(kind, {**config, "max_grad_norm": config["max_grad_norm"] or 0.0})
    known = {f.name for f in fields(kind)}
    p = kind.from_dict({**{name: value for name, value in config.items() if name in known}, **settings})
    model = p.build_model(p.few().data("train"))
    training.load_weights(model, checkpoint)
    return p, model.eval()
