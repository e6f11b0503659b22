"""A model as one file that can be given away: `MultimodalVAE.save` and `MultimodalVAE.load`.

The file says how the tree of modules is put together (`Taken`): each module's class by import path, its attributes as
plain values, its layers, and the names of its weights; and has all weights and buffers. It holds no code and no pickle.
A class is never asked for its constructor's arguments: it gets back the attributes that its constructor had set
(`Rebuilt`), so that any class that can be imported can be kept, without a line of its own. That no attribute was
overlooked, and that no class has changed since, is seen from what the networks make of a fixed input (`outputs`): it is
compared when the file is written and when it is read.
"""

import importlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvm import paths
from mmvm.errors import UserError
from mmvm.files import git_commit, read_safetensors, versions, write_safetensors
from mmvm.networks.modes import evaluating

FORMAT = "mmvm-model-1"
BARE = {**vars(nn.Module()), "_compiled_call_impl": None}  # what every module has; the rest is its own
REMADE = "_flat_weight_refs"  # of recurrent layers, which make it again
MOST = 2**29  # numbers of two samples; a file that was made up could ask for any memory
TOLERANCE = 1e-2  # of the largest output: other machines and releases of torch round differently, by far less


def save(model: nn.Module, path: str | os.PathLike, half: bool = False) -> None:
    """Writes `model`, a `MultimodalVAE`, which stays as it is; with `half` its float32 weights as bfloat16, in half the
    bytes, of which `load` makes float32 again. Raises `UserError`, before it writes, for what cannot be kept."""
    what = "it does not run"
    try:
        made = outputs(model)
        what = "rebuilt from the attributes of its layers it fails"
        taken = Taken(model)
        recipe = json.dumps(taken.recipe)
        rebuilt = Rebuilt(json.loads(recipe), taken.tensors, imported).model
        remade = outputs(rebuilt)
        if json.dumps(Taken(rebuilt).recipe) != recipe or not _alike(made, remade):
            raise ValueError("other attributes or outputs")
        rounded = {name: taken.tensors[name].bfloat16() for name in [*taken.recipe["learned"], *taken.recipe["frozen"]]
                   if half and taken.tensors[name].dtype == torch.float32}
        if rounded:
            weights = {**taken.tensors, **{name: x.float() for name, x in rounded.items()}}
            remade = outputs(Rebuilt(json.loads(recipe), weights, imported).model)
        about = json.dumps(list(_about(model, remade[0].shape[1])))
    except UserError:
        raise
    except Exception as error:  # whatever a foreign class does
        raise UserError(f"this model cannot be kept: {what} ({_said(error)}); let forward() read nothing but plain "
                        "attributes, layers and buffers, which the constructor sets") from error
    tensors = {**{f"model.{name}": value for name, value in {**taken.tensors, **rounded}.items()},
               **{f"outputs.{i}": value for i, value in enumerate(remade)}}
    write_safetensors(paths.home(path), tensors, {"format": FORMAT, "recipe": recipe, "about": about, "versions":
        json.dumps(versions()), "commit": git_commit(), "rounded": json.dumps(list(rounded))})


def load(path: str | os.PathLike, allow: Iterable = (), kind: type[nn.Module] = nn.Module) -> Any:
    """The model, of the class `kind`, that `save` wrote, on the CPU. Classes outside `mmvm`, `torch.nn` and the
    installed studies must be in `allow`: classes, modules, or names of modules and classes. Raises `UserError`."""
    allow, ours = (allow,) if isinstance(allow, str | type | ModuleType) else tuple(allow), trusted()
    path = paths.home(path)
    tensors, metadata = read_safetensors(path, FORMAT, "kept model", "`model.save`")
    known = metadata.get("versions", "which it does not say").strip("{}").replace('"', "")
    cure = f"use the classes and the versions that it was saved with, {known}"
    try:
        weights = {name.removeprefix("model."): x for name, x in tensors.items() if name.startswith("model.")}
        weights.update({name: weights[name].float() for name in json.loads(metadata.get("rounded", "[]"))})
        model = Rebuilt(json.loads(metadata["recipe"]), weights, lambda name: _allowed(name, allow, ours, path)).model
        if not isinstance(model, kind):
            raise UserError(f"{path} holds a {type(model).__qualname__}, no {kind.__qualname__}: load it as what it is")
        found = outputs(model)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be rebuilt ({_said(error)}): {cure}") from error
    if not _alike(found, [tensors.get(f"outputs.{i}") for i in range(len(found))]):
        raise UserError(f"{path} gives other outputs than when it was saved, so one of its classes has changed: {cure}")
    return model


@torch.no_grad()
def outputs(model: Any) -> list[Tensor]:
    """What the networks of a `MultimodalVAE` make of two fixed samples, in evaluation: mean and log-variance (2, D) of
    each modality, then each decoder's parameters of that mean. Model and random numbers stay as they are."""
    found, decoded = [], []
    with evaluating(model, 0):
        for modality, encoder, decoder in zip(model.modalities, model.encoders, model.decoders):
            weight = next((x for x in encoder.parameters() if x.is_floating_point()), torch.zeros(()))
            if not 0 < (n := 2 * math.prod(modality.input_shape)) < MOST:
                raise ValueError(f"samples of {n // 2} numbers")
            x = torch.linspace(0, 1, n, device=weight.device).view(2, *modality.input_shape)
            found += encoder(x.round().long() if modality.likelihood.discrete else x.to(weight.dtype))
            decoded.append(decoder(found[-2].to(next(decoder.parameters(), found[-2]).dtype)))
            modality.check_parameters(decoded[-1])
    return [x.cpu() for x in (*found, *decoded)]


def _about(model: Any, latent_dim: int) -> Iterator[str]:
    """What people want to know of a model, in lines; nobody reads them back."""
    yield f"{latent_dim} latent dimensions, beta {model.beta}, in {'training' if model.training else 'evaluation'} mode"
    for part in model.objective.modules():
        own = ", ".join(f"{name} {x}" for name, x in vars(part).items() if name not in BARE)
        if not type(part).__module__.startswith("torch.nn."):
            yield f"objective {type(part).__qualname__}: {own or 'no options'}"
    yield from map(str, model.modalities)
    yield from repr(model).splitlines()


class Taken:
    """What a tree of modules is made of: `recipe`, as JSON can hold it, and its `tensors` by name, on the CPU. Raises
    `UserError` for a part of which no file can say what it is."""

    def __init__(self, model: nn.Module):
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, str] = {}  # of the modules and tensors met so far
        self.recipe: dict[str, Any] = {"learned": [], "frozen": [], "channels_last": []}
        self.recipe["model"] = self._value(model, "")

    def _value(self, x: Any, where: str) -> Any:
        """Plain values as they are; else a dictionary whose first key says what it is. `where` is for names, errors."""
        if isinstance(x, np.generic):
            x = x.item()
        if x is None or type(x) in (bool, int, float, str):
            return x
        if type(x) is list:
            return [self._value(part, f"{where}[{i}]") for i, part in enumerate(x)]
        if type(x) in (tuple, torch.Size):
            return {"tuple": self._value(list(x), where)}
        if type(x) is dict:
            return {"dict": [[self._value(key, where), self._value(x[key], f"{where}[{key!r}]")] for key in x]}
        if isinstance(x, nn.Module):
            return self._module(x, where)
        if isinstance(x, Tensor):
            return {"tensor": self._tensor(x, where)}
        if isinstance(x, type) or callable(x) and hasattr(x, "__qualname__"):
            return {"named": self._path(x, where)}
        if is_dataclass(x) and hasattr(x, "__dict__"):
            given = {f.name: getattr(x, f.name) for f in fields(x) if f.init}  # not what it remembers besides
            return {"made": self._path(type(x), where), "with": self._named(given, where)}
        raise UserError(f"{where} is a {type(x).__qualname__}, which cannot be kept: make it a number, a text, a list, "
                        "a tuple, a dictionary, a layer, a dataclass, or a tensor by register_buffer")

    def _module(self, x: nn.Module, where: str) -> dict:
        if id(x) in self._names:
            return {"same": self._names[id(x)]}
        self._names[id(x)] = where
        name = self._path(type(x), where)
        if hooks := [kind for kind in BARE if kind.endswith("_hooks") and vars(x).get(kind)]:
            raise UserError(f"{where or 'the model'} has {hooks[0].strip('_').replace('_', ' ')}, which cannot be "
                            "kept: call a lazy layer once, remove others as by torch.nn.utils.remove_weight_norm")
        return {"module": name, "at": where, "training": x.training,
                "parameters": self._named(x._parameters, where), "buffers": self._named(x._buffers, where),
                "unsaved": sorted(x._non_persistent_buffers_set), "layers": self._named(x._modules, where),
                "attributes": self._named({key: part for key, part in vars(x).items() if key not in BARE}, where)}

    def _named(self, parts: dict, where: str) -> dict:
        return {name: self._value(part, f"{where}.{name}" if where else name) for name, part in parts.items()
                if name != REMADE}

    def _tensor(self, x: Tensor, where: str) -> str:
        if id(x) not in self._names:
            if type(x) not in (Tensor, nn.Parameter) or x.layout != torch.strided or x.is_meta:
                raise UserError(f"{where} is a {type(x).__qualname__} without plain values, which cannot be kept: make "
                                "it a dense tensor on a real device")
            self._names[id(x)] = where
            self.tensors[where] = x.detach().cpu()
            if isinstance(x, nn.Parameter):
                self.recipe["learned" if x.requires_grad else "frozen"].append(where)
            if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
                self.recipe["channels_last"].append(where)
        return self._names[id(x)]

    def _path(self, x: Any, where: str) -> str:
        """module:name of a class or function, which must be found there."""
        name = x.__qualname__
        path = f"{'torch.nn.functional' if getattr(F, name, None) is x else x.__module__}:{name}"
        with suppress(UserError):
            if imported(path) is x:
                return path
        raise UserError(f"{where or 'the model'} cannot be kept: {name} is not found as {path}; define it at the top "
                        "of a module that can be imported, not in a function, and make the model of that")


class Rebuilt:
    """`model` of what `Taken` says. `find` gives the class that an import path names, or refuses. No constructor of a
    module is run, so no weight is drawn; whatever else a recipe says that no `Taken` wrote is some exception."""

    def __init__(self, recipe: dict, tensors: dict[str, Tensor], find: Callable):
        self._find, self._tensors = find, dict(tensors)
        self._modules: dict[str, nn.Module] = {}
        for name in recipe["channels_last"]:
            self._tensors[name] = self._tensors[name].contiguous(memory_format=torch.channels_last)
        for kind in ("learned", "frozen"):
            self._tensors.update({name: nn.Parameter(self._tensors[name], kind == "learned") for name in recipe[kind]})
        self.model = self._value(recipe["model"])

    def _value(self, x: Any) -> Any:
        if isinstance(x, list):
            return [self._value(part) for part in x]
        match x:
            case {"tuple": parts}:
                return tuple(map(self._value, parts))
            case {"dict": pairs}:
                return {self._value(key): self._value(part) for key, part in pairs}
            case {"tensor": name}:
                return self._tensors[name]  # one object per name: layers may share their weights
            case {"same": name}:
                return self._modules[name]
            case {"named": path}:
                return self._find(path)
            case {"made": path, "with": parts}:
                if not (isinstance(kind := self._find(path), type) and is_dataclass(kind)):
                    raise TypeError(f"{path} is no dataclass")
                return kind(**{name: self._value(part) for name, part in parts.items()})
            case {"module": path, "at": where}:
                if not (isinstance(kind := self._find(path), type) and issubclass(kind, nn.Module)):
                    raise TypeError(f"{path} is no torch.nn.Module")
                self._modules[where] = module = kind.__new__(kind)
                self._fill(module, x)
                return module
            case dict():
                raise TypeError(f"unknown part {next(iter(x), '')!r}")
        return x

    def _fill(self, module: nn.Module, x: dict) -> None:
        nn.Module.__init__(module)
        module.training = x["training"]
        module._non_persistent_buffers_set.update(x["unsaved"])
        attributes: dict = {}
        for kind, own in (("parameters", module._parameters), ("buffers", module._buffers),
                          ("layers", module._modules), ("attributes", attributes)):
            own.update({name: self._value(part) for name, part in x[kind].items()})
        if BARE.keys() & attributes:
            raise ValueError(f"attribute {min(BARE.keys() & attributes)!r}")
        if type(module).__module__.startswith("torch.nn."):
            module.__setstate__(attributes)  # adds what layers of an earlier torch had not yet
        else:
            vars(module).update(attributes)


def trusted() -> list[str]:
    """What may be imported without being named by the caller: ours, torch's layers, packages of installed studies."""
    studies = {point.value.partition(":")[0].partition(".")[0] for point in entry_points(group="mmvm.studies")}
    return ["mmvm", "torch.nn", *sorted(studies)]


def imported(path: str) -> Any:
    """The class or function that module:name names. Raises `UserError`."""
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(module)
        for word in name.split("."):
            found = getattr(found, word)
    except Exception as error:  # whatever a foreign module does when it is imported
        raise UserError(f"{path} cannot be imported ({_said(error)})") from error
    return found


def _allowed(path: str, allow: tuple, ours: list[str], file: os.PathLike) -> Any:
    """As `imported`, of what is in `allow` or of `ours`; of the latter classes alone, and torch's own functions."""
    given = {f"{kind.__module__}:{kind.__qualname__}": kind for kind in allow if isinstance(kind, type)}
    if path in given:
        return given[path]
    named = [one.__name__ if isinstance(one, ModuleType) else str(one).replace(":", ".") for one in allow
             if not isinstance(one, type)]
    if not belongs(path, [*ours, *named]):
        module, _, name = path.partition(":")
        raise UserError(f"{file} wants to import {name} from {module}, which runs that module's code: if you trust it, "
                        f"load with allow=({module!r},)")
    try:
        found = imported(path)
    except UserError as error:
        raise UserError(f"{file} needs a class that is not here, {error}: install the package or add the file that "
                        "it comes from, as it was when the model was saved") from error
    own = isinstance(found, type) and f"{found.__module__}:{found.__qualname__}" == path
    if not (own or belongs(path, named) or callable(found) and path == f"torch.nn.functional:{found.__name__}"):
        raise UserError(f"{file} names {path}, which is no class of that module: it was not written by `model.save`")
    return found


def belongs(path: str, packages: Iterable[str]) -> bool:
    """Whether module:name is one of these packages, modules and classes, or in one."""
    return any(f"{path.replace(':', '.')}.".startswith(f"{package}.") for package in packages)


def _alike(a: Sequence[Tensor], b: Sequence[Tensor | None]) -> bool:
    """Whether lists of outputs are equal up to rounding."""
    return len(a) == len(b) and all(
        y is not None and x.shape == y.shape and x.dtype == y.dtype and torch.allclose(
            x.double(), y.double(), rtol=0, equal_nan=True,
            atol=TOLERANCE * float(y.double().nan_to_num(0, 0, 0).abs().max())) for x, y in zip(a, b))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
