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
import os
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvm import paths
from mmvm.errors import UserError
from mmvm.files import git_commit, read_safetensors, versions, write_safetensors

FORMAT = "mmvm-model-1"
BARE = {**vars(nn.Module()), "_compiled_call_impl": None}  # what every module has; the rest is its own
REMADE = "_flat_weight_refs"  # of recurrent layers, which make it again
TOLERANCE = 1e-2  # of the largest output: other machines and releases of torch round differently, by far less


def save(model: nn.Module, path: str | os.PathLike) -> None:
    """Writes `model`, a `MultimodalVAE`, which stays as it is. Raises `UserError`, before anything is written, where a
    part of it could not be given back."""
    what = "it does not run"
    try:
        made = outputs(model)
        what = "rebuilt from the attributes of its layers it fails"
        taken = Taken(model)
        rebuilt = Rebuilt(json.loads(json.dumps(taken.recipe)), taken.tensors, imported).model
        remade = outputs(rebuilt)
        if Taken(rebuilt).recipe != taken.recipe or not _alike(made, remade):
            raise ValueError("other attributes or outputs")
    except UserError:
        raise
    except Exception as error:  # whatever a foreign class does
        raise UserError(f"this model cannot be kept: {what} ({_said(error)}); let forward() read nothing but plain "
                        "attributes, layers and buffers, which the constructor sets") from error
    ours = trusted()
    tensors = {**{f"model.{name}": value for name, value in taken.tensors.items()},
               **{f"outputs.{i}": value for i, value in enumerate(remade)}}
    write_safetensors(paths.home(path), tensors, {
        "format": FORMAT, "recipe": json.dumps(taken.recipe), "versions": json.dumps(versions()),
        "commit": git_commit(), "latent_dim": str(remade[0].shape[1]),
        "classes": json.dumps([name for name in taken.classes if not _belongs(name, ours)])})


def load(path: str | os.PathLike, allow: Iterable = (), kind: type[nn.Module] = nn.Module) -> nn.Module:
    """The model, of the class `kind`, that `save` wrote, on the CPU. Classes outside `mmvm`, `torch.nn` and the
    installed studies must be in `allow`: classes, modules, or names of modules and classes. Raises `UserError`."""
    allow, ours = (allow,) if isinstance(allow, str | type | ModuleType) else tuple(allow), trusted()
    path = paths.home(path)
    tensors, metadata = read_safetensors(path, FORMAT, "kept model", "`model.save`")
    try:
        weights = {name.removeprefix("model."): x for name, x in tensors.items() if name.startswith("model.")}
        model = Rebuilt(json.loads(metadata["recipe"]), weights, lambda name: _allowed(name, allow, ours, path)).model
        if not isinstance(model, kind):
            raise UserError(f"{path} holds a {type(model).__qualname__}, no {kind.__qualname__}")
        found = outputs(model)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be rebuilt ({_said(error)}): {_cure(metadata)}") from error
    if not _alike(found, [tensors.get(f"outputs.{i}") for i in range(len(found))]):
        raise UserError(f"{path} gives other outputs than when it was saved, so one of its classes has changed: "
                        f"{_cure(metadata)}")
    return model


@torch.no_grad()
def outputs(model: nn.Module) -> list[Tensor]:
    """What the networks of a `MultimodalVAE` make of two fixed samples, in evaluation: mean and log-variance (2, D) of
    each modality, then each decoder's parameters of that mean. Model and random numbers stay as they are."""
    training = {part: part.training for part in model.modules()}
    found, decoded = [], []
    try:
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(0)  # of the CPU alone, which `fork_rng` puts back
            for part in training:
                part.training = False
            for modality, encoder, decoder in zip(model.modalities, model.encoders, model.decoders):
                weight = next((x for x in encoder.parameters() if x.is_floating_point()), torch.zeros(()))
                x = torch.linspace(0, 1, 2 * int(np.prod(modality.input_shape)), device=weight.device)
                x = x.view(2, *modality.input_shape)
                found += encoder(x.round().long() if modality.likelihood.discrete else x.to(weight.dtype))
                decoded.append(decoder(found[-2].to(next(decoder.parameters(), found[-2]).dtype)))
                modality.check_parameters(decoded[-1])
    finally:
        for part, was in training.items():
            part.training = was
    return [x.cpu() for x in (*found, *decoded)]


class Taken:
    """What a tree of modules is made of: `recipe`, as JSON can hold it; its `tensors` by name, on the CPU; the import
    paths of its `classes`. Raises `UserError` for a part of which no file can say what it is."""

    def __init__(self, model: nn.Module):
        self.tensors: dict[str, Tensor] = {}
        self.classes: list[str] = []
        self._names: dict[int, str] = {}  # of the modules and tensors met so far
        self._frozen, self._channels_last = [], []
        self.recipe = {"model": self._value(model, ""), "frozen": self._frozen, "channels_last": self._channels_last}

    def _value(self, x, where: str):
        """Plain values as they are; else a dictionary whose first key says what it is. `where` is for names, errors."""
        if isinstance(x, np.generic):
            x = x.item()
        if x is None or type(x) in (bool, int, float, str):
            return x
        if type(x) in (list, tuple, torch.Size):
            parts = [self._value(part, f"{where}[{i}]") for i, part in enumerate(x)]
            return parts if type(x) is list else {"tuple": parts}
        if type(x) is dict:
            return {"dict": [[self._value(key, where), self._value(part, f"{where}[{key!r}]")]
                             for key, part in x.items()]}
        if isinstance(x, nn.Module):
            return self._module(x, where)
        if isinstance(x, Tensor):
            return {"tensor": self._tensor(x, where)}
        if isinstance(x, type) or callable(x) and hasattr(x, "__qualname__"):
            return {"named": self._path(x, where)}
        if is_dataclass(x) and hasattr(x, "__dict__"):
            return {"made": self._path(type(x), where),
                    "with": {name: self._value(part, _join(where, name)) for name, part in vars(x).items()}}
        raise UserError(f"{where} is a {type(x).__qualname__}, which cannot be kept: make it a number, a text, a list, "
                        "a tuple, a dictionary, a layer, a dataclass, or a tensor by register_buffer")

    def _module(self, x: nn.Module, where: str) -> dict:
        if id(x) in self._names:
            return {"same": self._names[id(x)]}
        self._names[id(x)] = where
        name = self._path(type(x), where)
        hooks = [kind for kind in BARE if kind.endswith("_hooks") and vars(x).get(kind)]
        if hooks:
            raise UserError(f"{where or 'the model'} has {hooks[0].strip('_').replace('_', ' ')}, which cannot be "
                            "kept: call a lazy layer once, remove others as by torch.nn.utils.remove_weight_norm")
        return {"module": name, "at": where, "training": x.training,
                "parameters": {key: p if p is None else self._tensor(p, _join(where, key))
                               for key, p in x._parameters.items()},
                "buffers": {key: b if b is None else self._tensor(b, _join(where, key))
                            for key, b in x._buffers.items()},
                "unsaved": sorted(x._non_persistent_buffers_set),
                "layers": {key: part if part is None else self._module(part, _join(where, key))
                           for key, part in x._modules.items()},
                "attributes": {key: self._value(part, _join(where, key)) for key, part in vars(x).items()
                               if key not in BARE and key != REMADE}}

    def _tensor(self, x: Tensor, where: str) -> str:
        if id(x) not in self._names:
            if type(x) not in (Tensor, nn.Parameter) or x.layout != torch.strided or x.is_meta:
                raise UserError(f"{where} is a {type(x).__qualname__} without plain values, which cannot be kept: make "
                                "it a dense tensor on a real device")
            self._names[id(x)] = where
            self.tensors[where] = x.detach().cpu()
            if isinstance(x, nn.Parameter) and not x.requires_grad:
                self._frozen.append(where)
            if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
                self._channels_last.append(where)
        return self._names[id(x)]

    def _path(self, x, where: str) -> str:
        """module:name of a class or function, which must be found there."""
        name = getattr(x, "__qualname__", "it")
        known = getattr(F, name, None) is x
        path = f"torch.nn.functional:{name}" if known else f"{getattr(x, '__module__', None)}:{name}"
        try:
            found = imported(path)
        except UserError:
            found = None
        if found is not x:
            raise UserError(f"{where or 'the model'} cannot be kept: {name} is not found as {path}; define it at the "
                            "top of a module that can be imported, not in a function or another class, and make the "
                            "model of that")
        if path not in self.classes:
            self.classes.append(path)
        return path


class Rebuilt:
    """`model` of what `Taken` says. `find` gives the class that an import path names, or refuses. No constructor of a
    module is run, so no weight is drawn; whatever else a recipe says that no `Taken` wrote is some exception."""

    def __init__(self, recipe: dict, tensors: dict[str, Tensor], find: Callable):
        self._find, self._frozen = find, set(recipe["frozen"])
        self._tensors = {name: x.contiguous(memory_format=torch.channels_last) if name in recipe["channels_last"] else x
                         for name, x in tensors.items()}
        self._modules: dict[str, nn.Module] = {}
        self.model = self._value(recipe["model"])

    def _value(self, x):
        if isinstance(x, list):
            return [self._value(part) for part in x]
        match x:
            case {"tuple": parts}:
                return tuple(map(self._value, parts))
            case {"dict": pairs}:
                return {self._value(key): self._value(part) for key, part in pairs}
            case {"tensor": name}:
                return self._tensors[name]
            case {"same": name}:
                return self._modules[name]
            case {"named": path}:
                return self._find(path)
            case {"made": path, "with": parts}:
                kind = self._find(path)
                if not is_dataclass(kind):
                    raise TypeError(f"{path} is no dataclass")
                return kind(**{name: self._value(part) for name, part in parts.items()})
            case {"module": path, "at": where}:
                kind = self._find(path)
                if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
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
        module._parameters.update({name: key and self._parameter(key) for name, key in x["parameters"].items()})
        module._buffers.update({name: key and self._tensors[key] for name, key in x["buffers"].items()})
        module._non_persistent_buffers_set.update(x["unsaved"])
        module._modules.update({name: self._value(part) for name, part in x["layers"].items()})
        attributes = {name: self._value(part) for name, part in x["attributes"].items()}
        if BARE & attributes.keys():
            raise ValueError(f"attribute {min(BARE & attributes.keys())!r}")
        if type(module).__module__.startswith("torch.nn."):
            module.__setstate__(attributes)  # adds what layers of an earlier torch had not yet
        else:
            vars(module).update(attributes)

    def _parameter(self, key: str) -> nn.Parameter:
        """One object per name: layers may share their weights."""
        if not isinstance(self._tensors[key], nn.Parameter):
            self._tensors[key] = nn.Parameter(self._tensors[key], requires_grad=key not in self._frozen)
        return self._tensors[key]


def trusted() -> list[str]:
    """What may be imported without being named by the caller: ours, torch's layers, packages of installed studies."""
    studies = {point.value.partition(":")[0].partition(".")[0] for point in entry_points(group="mmvm.studies")}
    return ["mmvm", "torch.nn", *sorted(studies)]


def imported(path: str):
    """The class or function that module:name names. Raises `UserError`."""
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(module)
        for word in name.split("."):
            found = getattr(found, word)
    except Exception as error:  # whatever a foreign module does when it is imported
        raise UserError(f"{path} cannot be imported ({_said(error)})") from error
    return found


def _allowed(path: str, allow: tuple, ours: list[str], file: os.PathLike):
    """As `imported`, of what is in `allow` or of `ours`; of the latter classes alone, and torch's own functions."""
    given = {f"{kind.__module__}:{kind.__qualname__}": kind for kind in allow if isinstance(kind, type)}
    if path in given:
        return given[path]
    named = [one.__name__ if isinstance(one, ModuleType) else str(one).replace(":", ".") for one in allow
             if not isinstance(one, type)]
    if not _belongs(path, [*ours, *named]):
        module, _, name = path.partition(":")
        raise UserError(f"{file} wants to import {name} from {module}, which runs that module's code: if you trust it, "
                        f"load with allow=({module!r},)")
    try:
        found = imported(path)
    except UserError as error:
        raise UserError(f"{file} needs a class that is not here, {error}: install the package or add the file that "
                        "it comes from, as it was when the model was saved") from error
    own = isinstance(found, type) and f"{found.__module__}:{found.__qualname__}" == path
    if not (own or _belongs(path, named) or callable(found) and path == f"torch.nn.functional:{found.__name__}"):
        raise UserError(f"{file} names {path}, which is no class of that module: it was not written by `model.save`")
    return found


def _belongs(path: str, packages: Iterable[str]) -> bool:
    return any(f"{path.replace(':', '.')}.".startswith(f"{package}.") for package in packages)


def _alike(a: list[Tensor], b: list[Tensor | None]) -> bool:
    """Whether lists of outputs are equal up to rounding."""
    return len(a) == len(b) and all(
        y is not None and x.shape == y.shape and x.dtype == y.dtype
        and torch.allclose(x.double(), y.double(), rtol=0, equal_nan=True,
                           atol=TOLERANCE * float(y.double().nan_to_num(0, 0, 0).abs().max()))
        for x, y in zip(a, b))


def _cure(metadata: dict) -> str:
    """Which versions to install."""
    known = ", ".join(f"{name} {of}" for name, of in json.loads(metadata["versions"]).items())
    return f"use the classes and the versions that it was saved with, {known}"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
