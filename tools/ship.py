"""Trains a model that ships, and writes it, its parameters and its numbers to data/models.

    python tools/ship.py hippocampus/mmvm --profile laptop --set objective=mmvm --set beta=1e-4

Called again it goes on with a training that was stopped. The numbers are measured again with the weights as they are
kept, in bfloat16: each beside the run's own. With --samples N the first N test samples lie beside the model in
<name>.npz, with the words of captions: pages show what the model makes of them without painting thousands first.
"""

import argparse
import hashlib
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmvm import MultimodalVAE, evaluation, keep, paths, study  # noqa: E402
from mmvm.data import MultimodalData  # noqa: E402
from mmvm.errors import UserError  # noqa: E402
from mmvm.files import write_text  # noqa: E402
from mmvm.study import results  # noqa: E402
from mmvm.study.registry import STUDIES  # noqa: E402

SAMPLES = ("reconstruction_samples", "imputation_samples")  # errors of the samples beside the study's MMVM
NOTE = "weights kept in bfloat16, sha256 {}"  # of the file, so that nobody takes rows of other weights for its own


def samples(data: MultimodalData, n: int) -> dict[str, np.ndarray]:
    """The first `n` samples as stored, one array a modality, their labels, and what word a token number stands for."""
    words = {"words": np.array(data.vocabulary.words)} if hasattr(data, "vocabulary") else {}
    return {**{name: x[:n].numpy() for name, x in data.modalities.items()}, "labels": data.labels[:n].numpy(), **words}


def of_samples(model: MultimodalVAE, file: Path) -> dict[tuple[str, str], float]:
    """What tests measure again without the study's data: the error of each modality's samples beside the study's MMVM,
    from all that is observed and from another modality's latent (mean over the others), nats, by metric and target."""
    with np.load(file) as arrays:
        data = MultimodalData({spec.name: torch.from_numpy(arrays[spec.name]) for spec in model.modalities},
                              model.modalities)
    imputed = evaluation.imputation_error(model, data)
    np.fill_diagonal(imputed, np.nan)
    found = (evaluation.reconstruction_error(model, data), np.nanmean(imputed, 0))
    return {(metric, name): float(value) for metric, values in zip(SAMPLES, found)
            for name, value in zip(data.names, values)}


def ship(name: str, profile: str, settings: list[str], n_samples: int, root: Path, of: str = "") -> None:
    p = STUDIES[of or name.partition("/")[0]].from_profile(profile).with_settings(settings)
    if n_samples and p.root:
        raise UserError("samples of your own data are not kept: leave --samples out")
    p = replace(p, out=str(paths.runs_root().absolute() / "ship" / name.replace("/", "-")))
    train, test = p.data("train"), p.data("test")
    result = study.run(p, train, test)
    file = root / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    result.model.eval().save(file, half=True)
    kept = keep.load(file).to(next(result.model.parameters()).device)
    metrics = p.evaluate(kept, train, test, p.classifiers(train, test)[0])
    note = NOTE.format(hashlib.sha256(file.read_bytes()).hexdigest()[:16])
    rows = [{**row, "note": "; ".join(filter(None, (row["note"], note)))}
            for row in p.rows(metrics, result.history, next(kept.parameters()).device, train)
            if row["source"] == "" and row["metric"] in metrics]
    file.with_suffix(".csv").unlink(missing_ok=True)
    defaults = {f.name: f.default for f in fields(p)}
    changed = {key: value for key, value in asdict(p).items()
               if value != defaults[key] and key not in ("out", "device", "root")}
    command = (f"python tools/ship.py {name}{f' --study {of}' * bool(of)} --profile {profile}"
               + "".join(f" --set {one}" for one in settings))
    if n_samples:
        command += f" --samples {n_samples}"
        np.savez_compressed(file.with_suffix(".npz"), **samples(test, n_samples))
    beside = file.with_name("mmvm.npz")  # the rivals' too
    if beside.exists():
        rows += [{**rows[0], "metric": metric, "target": target, "value": value}
                 for (metric, target), value in of_samples(kept.cpu(), beside).items()]
    results.append(rows, file.with_suffix(".csv"))
    write_text(file.with_suffix(".yaml"), f"# made by: {command}\n{yaml.safe_dump(changed, sort_keys=False)}")
    own = {(row["metric"], row["target"]): row["value"] for row in result.rows if row["source"] == ""}
    for row in rows:
        if row["target"] in results.AVERAGES:
            print(f"{row['metric']:28} {row['target']:6} {row['value']:12.5g}  of the run "
                  f"{own[row['metric'], row['target']]:.5g}")
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="<study>/<name of the model>, or <folder>/<name> with --study")
    parser.add_argument("--study", default="", help="the model's, where the folder has another name")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--samples", type=int, default=0, metavar="N")
    return parser


if __name__ == "__main__":
    options = arguments().parse_args()
    try:
        ship(options.name, options.profile, options.set, options.samples, paths.models_root(), options.study)
    except UserError as error:
        sys.exit(f"ship: {error}")
