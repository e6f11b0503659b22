"""Who reads what: for each reader a folder that is sound, the reading, and what may come out of a damaged one.

A target is `make(folder)`, which writes the sound files, and `read(folder)`, which returns something that can be
compared. `vouched`: the files hold their own digest, so that nothing but what was written may come out. Where they hold
none (pictures, tables of other people), another result is right as long as `sound(result)`.
"""

import contextlib
import gzip
import io
import json
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

from mmvm import (
    MMVM,
    Laplace,
    LatentDiffusion,
    Modality,
    MultimodalData,
    MultimodalVAE,
    Normal,
    files,
    fit,
    fit_latent_diffusion,
    networks,
    training,
)
from mmvm.study import results
from mmvm.study.registry import STUDIES
from studies.cub import cache as cub_cache, data as cub
from studies.cub.standin import files as cub_standin
from studies.hippocampus import data as hippocampus
from studies.mimic_cxr import data as mimic_cxr, image as mimic_cxr_image, store as mimic_cxr_store
from studies.polymnist import data as polymnist
from studies.polymnist.mnist import FILES
from workflow import lists

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "studies" / "mimic_cxr"))
import mimic_cxr_files  # noqa: E402  its tests' own made-up subjects

SIZE = 16  # pixels of an X-ray's edge here


@dataclass(frozen=True)
class Target:
    make: Callable[[Path], None]
    read: Callable[[Path], object]
    sound: Callable[[object], bool] = lambda result: True
    vouched: bool = False
    secrets: tuple[bytes, ...] = ()                 # that no message may have
    own: tuple[str, ...] = field(default=())        # names of folders that a reader may write


def data_set(data: MultimodalData) -> dict:
    """What a loader gave, in numbers and names."""
    x = {name: x if isinstance(x, Tensor) else x.values[x.rows] for name, x in data.modalities.items()}
    return {"x": x, "labels": data.labels, "observed": data.observed, "ids": data.ids,
            "specs": list(map(str, data.specs))}


def sound_data(found: dict) -> bool:
    """Shapes that agree, numbers that are numbers, labels that are classes."""
    n = len(found["ids"] or next(iter(found["x"].values())))
    labels = found["labels"]
    return n > 0 and all(len(x) == n and bool(torch.isfinite(x.float()).all()) for x in found["x"].values()) and (
        len(labels) == n and bool((torch.nan_to_num(labels.float()) >= 0).all()))


# loaders -------------------------------------------------------------------------------------------------------------

def make_polymnist(folder: Path) -> None:
    draw = np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for split, (images, labels) in FILES.items():
        n = 24 if split == "train" else 12
        pictures = draw.integers(0, 256, (n, 28, 28), np.uint8)
        for name, packed, shape, values in ((images, split == "train", (n, 28, 28), pictures),
                                            (labels, True, (n,), np.arange(n, dtype=np.uint8) % 10)):
            content = bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes() + values.tobytes()
            path = folder / "mnist" / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    (folder / "backgrounds").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.fromarray(draw.integers(0, 256, (40, 36, 3), np.uint8)).save(folder / "backgrounds" / name)


def read_polymnist(folder: Path):
    return [data_set(polymnist.load(split, folder, n_modalities=2)) for split in ("train", "test")]


def make_released(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for m in range(2):
            (folder / split / f"m{m}").mkdir(parents=True)
            for row in range(5):
                picture = Image.fromarray(draw.integers(0, 256, (28, 28, 3), np.uint8))
                picture.save(folder / split / f"m{m}" / f"{row}.{row}.png")


def make_cub(folder: Path) -> None:
    cub_standin.simulate(folder / "set", n_images=8, n_species=4)
    attributes = folder / "set" / "CUB_200_2011" / "attributes" / "image_attribute_labels.txt"
    rows = attributes.read_text().splitlines()  # the primary colours, and few others: the rest costs time alone
    attributes.write_text("\n".join(row for row in rows if 245 < int(row.split()[1]) < 266) + "\n")


def read_cub(folder: Path):
    return [data_set(cub.load("train", folder / "set", split_by="official", labels=labels, more_than=0))
            for labels in ("attributes", "classes")]


def make_hippocampus(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for name, packed in (("Mitt", True), ("Own", False)):
        (folder / name).mkdir()
        info = np.stack([np.ones(20), np.ones(20), np.arange(20) % 5 + 1, np.arange(20) % 4 + 1], 1)
        np.save(folder / name / f"{name.lower()}_trial_info.npy", info)
        content = io.BytesIO()
        np.save(content, draw.poisson(0.3, (20, 3, 25)).astype(np.float32) / 10)
        path = folder / name / f"{name.lower()}_spike_data_binned.npy{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content.getvalue(), mtime=0) if packed else content.getvalue())


def read_hippocampus(folder: Path):
    return [data_set(hippocampus.load("train", folder, starts=0, n_folds=2))]


def make_mimic_cxr(folder: Path) -> None:
    mimic_cxr_files.write_tree(folder)
    mimic_cxr.prepare(folder, size=SIZE, workers=1, any_size=True)
    (folder / "prepared" / "key").write_text("ab" * 32)  # the same in every run


def read_mimic_cxr(folder: Path):
    return [data_set(mimic_cxr.load("train", folder, size=SIZE))]


SECRETS = (b"1999999", b"200000", b"599999", b"0badc0de", b"feedface")


def make_xrays(folder: Path) -> None:
    for i in range(4):
        (folder / f"{i}.jpg").write_bytes(mimic_cxr_files.jpeg(40 + i, 44, seed=i))


def read_xrays(folder: Path):
    """As a worker of the preparation does it: statuses, and the pixels of what could be read."""
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        before, sys.stdin = sys.stdin, io.StringIO("".join(json.dumps(["frontal", i, str(folder / f"{i}.jpg")]) + "\n"
                                                           for i in range(4)))
        stack.callback(setattr, sys, "stdin", before)
        (folder / "out").mkdir()
        (folder / "out" / "frontal.npy").write_bytes(b"")
        mimic_cxr_image.main(str(folder / "out"), SIZE, False, mimic_cxr_store.HEADER)
        said = [json.loads(line) for line in out.getvalue().splitlines()[1:]]
    return [status for status, _ in said], [check for _, check in said]


def sound_xrays(found) -> bool:
    return len(found[0]) == 4 and sum(status == mimic_cxr_image.DONE for status in found[0]) >= 2  # the others


# our own files -------------------------------------------------------------------------------------------------------

def tiny_model() -> MultimodalVAE:
    torch.manual_seed(0)
    specs = (Modality("a", (3,), Normal()), Modality("b", (4,), Laplace()))
    return MultimodalVAE(specs, [networks.MLPEncoder(s.shape, 2, (5,)) for s in specs],
                         [networks.MLPDecoder(s.shape, 2, (5,)) for s in specs], MMVM())


def tiny_data() -> MultimodalData:
    draw = torch.Generator().manual_seed(0)
    model = tiny_model()
    x = {s.name: torch.randn(12, *s.shape, generator=draw) for s in model.modalities}
    return MultimodalData(x, tuple(model.modalities))


def make_run(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tiny_model(), tiny_data(), epochs=3, batch_size=4, out=folder)
    for path in folder.iterdir():
        if path.name not in (training.CHECKPOINT, training.HISTORY):
            path.unlink()


def make_checkpoint(folder: Path) -> None:
    make_run(folder)
    (folder / training.HISTORY).unlink()


def make_history(folder: Path) -> None:
    make_run(folder)
    (folder / training.CHECKPOINT).unlink()


def read_checkpoint(folder: Path):
    model = tiny_model()
    config = training.load_weights(model, folder / training.CHECKPOINT)
    return config, dict(model.state_dict()), training.read_checkpoint(folder / training.CHECKPOINT)


def sound_history(rows) -> bool:
    return all(isinstance(row, dict) and type(row["epoch"]) is int and math.isfinite(row["seconds"]) for row in rows)


def read_kept(folder: Path):
    return dict(MultimodalVAE.load(folder / "model.safetensors").state_dict())


def make_diffusion(folder: Path) -> None:
    density = fit_latent_diffusion(tiny_model(), tiny_data(), updates=2, width=4, blocks=1)
    density.save(folder / "diffusion.safetensors")


def read_diffusion(folder: Path):
    found = LatentDiffusion.load(folder / "diffusion.safetensors", tiny_model())
    return found.centre, found.scale, dict(found.network.state_dict())


def make_tensors(folder: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.int8)}
    files.write_safetensors(folder / "x.safetensors", tensors, {"format": "attack-1", "about": "tensors"})


def make_rows(folder: Path) -> None:
    whole = results.read("polymnist")
    whole.iloc[:20].to_csv(folder / "rows.csv", index=False)


def read_rows(folder: Path):
    return results.read(folder / "rows.csv").to_dict("list")


def sound_rows(table: dict) -> bool:
    values = table["value"]
    return all(len(column) == len(values) for column in table.values()) and all(map(math.isfinite, values))


def make_cache(folder: Path) -> None:
    (folder / "set").mkdir()
    read_cache(folder)


def read_cache(folder: Path):
    arrays, facts = cub_cache.cached(folder / "set", "entry", "key", lambda: (
        {"a": np.arange(60).reshape(3, 4, 5), "b": np.ones(7, np.uint8)}, {"words": ["a", "b"]}))
    return {name: np.array(x) for name, x in arrays.items()}, facts


def make_list(folder: Path) -> None:
    (folder / "list.yaml").write_text(
        "study: polymnist\nprofile: smoke\nresults: runs/mine.csv\nruns:\n"
        "  - {settings: {objective: poe, epochs: 2}, betas: [0.25, 1], seeds: [0, 1]}\n"
        "  - settings:\n      objective: mmvm\n      n_train: 512\n    betas: [1]\n    seeds: [0]\n    priority: -1\n")


def read_list(folder: Path):
    return [(str(run.parameters), run.priority, run.settings) for run in lists.read(folder / "list.yaml").values()]


def make_profile(folder: Path) -> None:
    values = {"profile": "mine", "objective": "mmvm:bound=pairwise", "beta": 0.5, "epochs": 3,
              "network": "conv:channels=4", "n_train": 600, "device": "cpu", "translated": False}
    (folder / "mine.yaml").write_text("# a comment\n" + yaml.safe_dump(values, sort_keys=False))


TARGETS = {
    "polymnist": Target(make_polymnist, read_polymnist, lambda found: all(map(sound_data, found))),
    "polymnist released": Target(make_released, read_polymnist, lambda found: all(map(sound_data, found))),
    "cub": Target(make_cub, read_cub, lambda found: all(map(sound_data, found)), own=(".mmvm-cache",)),
    "hippocampus": Target(make_hippocampus, read_hippocampus, lambda found: all(map(sound_data, found))),
    "mimic-cxr": Target(make_mimic_cxr, read_mimic_cxr, lambda found: all(map(sound_data, found)), secrets=SECRETS,
                        own=("prepared",)),
    "mimic-cxr images": Target(make_xrays, read_xrays, sound_xrays, own=("out",)),
    "checkpoint": Target(make_checkpoint, read_checkpoint, vouched=True),
    "kept model": Target(lambda folder: tiny_model().save(folder / "model.safetensors"), read_kept, vouched=True),
    "kept diffusion": Target(make_diffusion, read_diffusion, vouched=True),
    "safetensors": Target(make_tensors, lambda folder: files.read_safetensors(
        folder / "x.safetensors", "attack-1", "file", "an attack"), vouched=True),
    "history": Target(make_history, training.read_history, sound_history),
    "rows": Target(make_rows, read_rows, sound_rows),
    "cache": Target(make_cache, read_cache, vouched=True, own=(".mmvm-cache",)),
    "list": Target(make_list, read_list),
    "profile": Target(make_profile, lambda folder: str(STUDIES["polymnist"].from_profile(str(folder / "mine.yaml")))),
}
