"""The floor under a study's probes: what a linear probe reads from the latents of encoders before their first update.

    python tools/untrained.py data/results/polymnist_search.csv polymnist search latent_dim=64 latent_dim=128

Of each setting after the profile (parameters of the networks, joined by ";" where they are several) and of three seeds:
rows `probe` of the method `untrained`, as the study measures it of a trained model, at 0 updates. A run's hash is made
of the setting.
"""

import argparse
import hashlib
from pathlib import Path

from mmvm import evaluation
from mmvm.data import MultimodalData
from mmvm.identity import fingerprint
from mmvm.study import results
from mmvm.study.registry import STUDIES
from mmvm.study.study import Study

SEEDS = (0, 1, 2)


def floor(p: Study, train: MultimodalData, test: MultimodalData, note: str) -> list[dict]:
    """Rows of the model that a run of `p` begins with."""
    model = p.build_model(train)
    probe = evaluation.linear_probe(model, train, test, n=p.n_probe, seed=p.data_seed)  # type: ignore[attr-defined]
    run = hashlib.sha256(f"untrained {p.run_hash()}".encode()).hexdigest()[:10]
    common = {"experiment": p.name, "method": "untrained", "beta": p.beta, "seed": p.seed, "profile": p.profile,
              "n_train": len(train), "epochs": 0, "updates": 0, "seconds": 0.0, "run": run,
              "data": fingerprint(train)[:10], "note": note, "metric": "probe", "source": "",
              **results.provenance(next(model.parameters()).device)}
    return [{**common, "target": name, "value": float(value)}
            for name, value in [*zip(train.names, probe), ("mean", probe.mean())]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("profile")
    parser.add_argument("settings", nargs="+")
    arguments = parser.parse_args()
    profile = STUDIES[arguments.study].from_profile(arguments.profile)
    train, test = profile.data("train"), profile.data("test")
    for setting in arguments.settings:
        for seed in SEEDS:
            p = profile.with_settings([*setting.split(";"), f"seed={seed}"])
            rows = floor(p, train, test, setting)
            results.append(rows, arguments.table)
            print(f"{setting}, seed {seed}: {rows[-1]['value']:.3f}", flush=True)


if __name__ == "__main__":
    main()
