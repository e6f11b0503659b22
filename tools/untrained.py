"""The floor under the probes of PolyMNIST: what they read from the latents of encoders before their first update.

    python tools/untrained.py data/results/polymnist_search.csv search latent_dim=64 latent_dim=128

Of each setting after the profile (parameters of the networks, joined by ";" where they are several) and of three seeds:
rows of the method `untrained` at 0 updates, `probe` as it is measured of a trained model, `probe_curve` as on the way.
A run's hash is made of the setting.
"""

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

from mmvm import evaluation
from mmvm.data import MultimodalData
from mmvm.identity import fingerprint
from mmvm.study import results
from studies.pages.polymnist_search import UNTRAINED
from studies.polymnist.study import PolyMNIST

SEEDS = (0, 1, 2)


def floor(p: PolyMNIST, train: MultimodalData, test: MultimodalData, note: str) -> list[dict]:
    """Rows of the model that a run of `p` begins with."""
    model = p.build_model(train)
    probe = evaluation.linear_probe(model, train, test, n=p.n_probe, seed=p.data_seed)
    point = replace(p, curve_every=1).curve(train, test)(model, 1)
    run = hashlib.sha256(f"{UNTRAINED} {p.run_hash()}".encode()).hexdigest()[:10]
    common = {"experiment": p.name, "method": UNTRAINED, "beta": p.beta, "seed": p.seed, "profile": p.profile,
              "n_train": len(train), "epochs": 0, "updates": 0, "seconds": 0.0, "run": run,
              "data": fingerprint(train)[:10], "note": note, **results.provenance(next(model.parameters()).device)}
    rows = [{**common, "metric": "probe", "source": "", "target": name, "value": float(value)}
            for name, value in [*zip(train.names, probe), ("mean", probe.mean())]]
    return rows + [{**common, "metric": "probe_curve", "source": "0", "target": name,
                    "value": point[f"curve/probe/{name}"]} for name in train.names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("profile")
    parser.add_argument("settings", nargs="+")
    arguments = parser.parse_args()
    profile = PolyMNIST.from_profile(arguments.profile)
    train, test = profile.data("train"), profile.data("test")
    for setting in arguments.settings:
        for seed in SEEDS:
            rows = floor(profile.with_settings([*setting.split(";"), f"seed={seed}"]), train, test, setting)
            results.append(rows, arguments.table)
            print(f"{setting}, seed {seed}: {rows[len(train.names)]['value']:.3f}", flush=True)


if __name__ == "__main__":
    main()
