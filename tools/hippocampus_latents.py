"""The latents behind the figures of the chapter `hippocampus`: trains its runs again and keeps where test windows lie.

    python tools/hippocampus_latents.py                     simulated rats, profile long
    python tools/hippocampus_latents.py --mice <folder>     and the five mice, profile mice with 200 epochs

For each of a few methods the run of seed 0 at the learning rate and beta that the chapter's tables have: of rats by
validation windows, of mice by the test windows of fold 0, at the one rate that all methods have been run with.
Writes data/results/hippocampus_latents.npz: per set the names of the animals, labels and windows (N,), and per method
the means (M, N, 2) as float16. The recordings themselves are not in it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mmvm import evaluation, paths
from mmvm.files import write_atomically
from studies.hippocampus.study import Hippocampus
from studies.pages import learning_rates

METHODS = ("mmvm", "independent", "poe", "mopoe")


def latents(p: Hippocampus, best: pd.DataFrame) -> dict[str, np.ndarray]:
    """The arrays of one set, named as in the file but for the set; `best`: rate and beta by method."""
    sessions = p.sessions()
    train, test = p.cut(sessions, "train"), p.cut(sessions, "test")
    found = {"names": np.array(test.names), "labels": test.labels.numpy(), "window": test.window.numpy()}
    for method in METHODS:
        rate, beta = best.loc[method, ["rate", "beta"]]
        run = replace(p.with_method(method), learning_rate=float(rate), beta=float(beta), out="")
        model = run.build_model(train)
        run.fit(model, train)
        found[method] = evaluation.encode_means(model, test).numpy().astype(np.float16)
        print(f"{p.profile}: {method} at beta {run.beta:g}, learning rate {run.learning_rate:g}", flush=True)
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
    sets = {"rats": (Hippocampus.from_profile("long"), learning_rates.chosen(learning_rates.rats(), "probe_shared"))}
    if arguments.mice:
        mice = replace(Hippocampus.from_profile("mice"), root=arguments.mice, epochs=learning_rates.MICE_EPOCHS)
        rows = learning_rates.mice()
        rows = rows[rows["rate"] == learning_rates.MICE_RATE]
        sets["mice"] = mice, learning_rates.chosen(rows, "probe_shared", prefix="")
    for name, (p, best) in sets.items():
        kept = {key: value for key, value in kept.items() if not key.startswith(f"{name}/")}
        kept |= {f"{name}/{key}": value for key, value in latents(p, best.set_index("method")).items()}
    write_atomically(path, lambda temporary: _save(temporary, kept))
    print(f"{path.relative_to(paths.REPOSITORY)}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
