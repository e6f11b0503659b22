"""The latents behind the figures of the chapter `hippocampus`: trains its runs again and keeps where test windows lie.

    python tools/hippocampus_latents.py                     simulated rats, profile laptop
    python tools/hippocampus_latents.py --mice <folder>     and the five mice, profile mice

For each of a few methods the run of seed 0 at the beta with the best shared probe in data/results/hippocampus.csv.
Writes data/results/hippocampus_latents.npz: per set the names of the animals, labels and windows (N,), and per method
the means (M, N, 2) as float16. The recordings themselves are not in it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmvm import evaluation, paths
from mmvm.files import write_atomically
from mmvm.study import results
from studies.hippocampus.study import Hippocampus

METHODS = {"laptop": ("mmvm", "independent", "poe", "mopoe"), "mice": ("mmvm", "independent", "poe", "mopoe")}


def latents(profile: str, root: str) -> dict[str, np.ndarray]:
    """The arrays of one set, named as in the file but for the set."""
    rows = results.read("hippocampus")
    best = results.at_best_beta(rows[rows["profile"] == profile], ["probe_shared"], by="probe_shared")
    best = best.set_index("method")["beta"]
    p = replace(Hippocampus.from_profile(profile), root=root, out="")
    sessions = p.sessions()
    train, test = p.cut(sessions, "train"), p.cut(sessions, "test")
    found = {"names": np.array(test.names), "labels": test.labels.numpy(), "window": test.window.numpy()}
    for method in METHODS[profile]:
        run = replace(p.with_method(method), beta=float(best[method]))
        model = run.build_model(train)
        run.fit(model, train)
        found[method] = evaluation.encode_means(model, test).numpy().astype(np.float16)
        print(f"{profile}: {method} at beta {run.beta:g}", flush=True)
    return found


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # of a name, NumPy would make another one that ends in .npz
        np.savez_compressed(file, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the runs behind the figures again and keeps their latents.")
    parser.add_argument("--mice", help="folder of the mice; without it theirs stay as they are")
    arguments = parser.parse_args()
    path = paths.results_root() / "hippocampus_latents.npz"
    kept = dict(np.load(path)) if path.exists() else {}
    sets = {"rats": ("laptop", "")} | ({"mice": ("mice", arguments.mice)} if arguments.mice else {})
    for name, (profile, root) in sets.items():
        kept = {key: value for key, value in kept.items() if not key.startswith(f"{name}/")}
        kept |= {f"{name}/{key}": value for key, value in latents(profile, root).items()}
    write_atomically(path, lambda temporary: _save(temporary, kept))
    print(f"{path.relative_to(paths.REPOSITORY)}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
