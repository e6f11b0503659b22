"""What the probes of PolyMNIST lie between: those of encoders before their first update, and of encoders that were
trained on the labels.

    python tools/probe_bounds.py data/results/polymnist_search.csv search latent_dim=64 latent_dim=128
    python tools/probe_bounds.py data/results/polymnist_search.csv search "learning_rate=0.002;latent_dim=128" --ceiling

Of each setting after the profile (parameters, joined by ";" where they are several): the floor, rows of the method
`untrained` at 0 updates and three seeds, `probe` as it is measured of a trained model, `probe_curve` as on the way; or
the ceiling, rows of the method `supervised` and one seed: `probe`, and `classifier_accuracy`, that of the linear layer
which each encoder's mean was trained with. A run's hash is made of the setting.
"""

import argparse
import hashlib
import time
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from mmvm import evaluation
from mmvm.data import MultimodalData
from mmvm.identity import fingerprint
from mmvm.model import MultimodalVAE
from mmvm.study import results
from studies.pages.translated_search import UNTRAINED
from studies.polymnist.data import N_CLASSES
from studies.polymnist.study import PolyMNIST

SEEDS = (0, 1, 2)
SUPERVISED = "supervised"


class OfMean(nn.Module):
    """Prepared pictures (B, 3, 28, 28) -> logits (B, C): a linear layer on the mean of an encoder's posterior."""

    def __init__(self, encoder: nn.Module, latent_dim: int):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(latent_dim, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x)[0])


def floor(p: PolyMNIST, train: MultimodalData, test: MultimodalData, note: str) -> list[dict]:
    """Rows of the model that a run of `p` begins with."""
    model = p.build_model(train)
    point = replace(p, curve_every=1).curve(train, test)(model, 1)
    common = _common(p, train, model, note, UNTRAINED, 0, 0.0)
    return _probes(p, model, train, test, common) + [
        {**common, "metric": "probe_curve", "source": "0", "target": name, "value": point[f"curve/probe/{name}"]}
        for name in train.names]


def ceiling(p: PolyMNIST, train: MultimodalData, test: MultimodalData, note: str) -> list[dict]:
    """Rows of the same encoders trained on the labels, as many updates in the same batches as in a run of `p`, with
    a learning rate that rises to that of `p` and falls to zero, in float32."""
    model, start = p.build_model(train), time.monotonic()
    accuracies = {}
    for m, spec in enumerate(train.specs):
        x = train.modalities[spec.name]
        trained = evaluation.train_classifier(
            x, train.labels, spec, build=lambda m=m: OfMean(model.encoders[m], p.latent_dim), epochs=p.epochs,
            batch_size=p.batch_size, learning_rate=p.learning_rate, seed=p.seed)
        accuracies[spec.name] = evaluation.classifier_accuracy(trained, test.modalities[spec.name], test.labels, spec)
    accuracies["mean"] = sum(accuracies.values()) / len(accuracies)
    updates = p.epochs * -(-len(train) // p.batch_size)
    common = _common(p, train, model, note, SUPERVISED, updates, time.monotonic() - start)
    return _probes(p, model, train, test, common) + [
        {**common, "metric": "classifier_accuracy", "source": "", "target": name, "value": float(value)}
        for name, value in accuracies.items()]


def _common(p: PolyMNIST, train: MultimodalData, model: MultimodalVAE, note: str, method: str, updates: int,
            seconds: float) -> dict:
    """The columns that all rows of one model share."""
    return {"experiment": p.name, "method": method, "beta": p.beta, "seed": p.seed, "profile": p.profile,
            "n_train": len(train), "epochs": p.epochs if updates else 0, "updates": updates,
            "seconds": round(seconds, 1), "run": hashlib.sha256(f"{method} {p.run_hash()}".encode()).hexdigest()[:10],
            "data": fingerprint(train)[:10], "note": note, **results.provenance(next(model.parameters()).device)}


def _probes(p: PolyMNIST, model: MultimodalVAE, train: MultimodalData, test: MultimodalData,
            common: dict) -> list[dict]:
    probe = evaluation.linear_probe(model, train, test, n=p.n_probe, seed=p.data_seed)
    return [{**common, "metric": "probe", "source": "", "target": name, "value": float(value)}
            for name, value in [*zip(train.names, probe), ("mean", probe.mean())]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("profile")
    parser.add_argument("settings", nargs="+")
    parser.add_argument("--ceiling", action="store_true", help="of encoders trained on the labels, in place of none")
    arguments = parser.parse_args()
    profile = PolyMNIST.from_profile(arguments.profile)
    train, test = profile.data("train"), profile.data("test")
    for setting in arguments.settings:
        for seed in SEEDS[:1] if arguments.ceiling else SEEDS:
            of = ceiling if arguments.ceiling else floor
            rows = of(profile.with_settings([*setting.split(";"), f"seed={seed}"]), train, test, setting)
            results.append(rows, arguments.table)
            print(f"{setting}, seed {seed}: {rows[len(train.names)]['value']:.3f}", flush=True)


if __name__ == "__main__":
    main()
