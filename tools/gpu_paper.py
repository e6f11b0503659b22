"""The paper's networks for as many epochs as a given time holds: MMVM first, then MVTCAE and PoE for as many.

    python tools/gpu_paper.py --seconds 300 --table data/results/polymnist_gpu.csv --out runs/window

One measured epoch says how many fit; all methods get equally many, a third of the time each. A method that has rows in
the table is left out, and the others then get its number of epochs. Weights are not kept: rows, curves and a picture.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from mmvm import training
from mmvm.evaluation.encodings import evaluating
from mmvm.study import Result, results, run
from studies.polymnist import figures
from studies.polymnist.study import PolyMNIST

METHODS = ("mmvm", "mvtcae", "poe")
MEASURING = 40  # seconds that the measures after a training take, more or less
TINY = {"network": "resnet:channels=4", "latent_dim": 8, "n_train": 256, "n_test": 128, "n_probe": 128,
        "batch_size": 32, "classifier_epochs": 1, "plan": "plain", "profile": "rehearsal"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true", help="tiny settings, for a CPU")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    p = replace(PolyMNIST.from_profile("paper"), plan="channels_last" if torch.cuda.is_available() else "plain",
                profile="paper-short")
    p = replace(p, **TINY) if options.rehearse else p
    train, test = p.data("train"), p.data("test")

    there = results.read(options.table) if options.table.exists() else None
    there = None if there is None else there[there["profile"] == p.profile]
    have = set() if there is None else set(there["method"])
    methods = [method for method in METHODS if method not in have]
    per_epoch = seconds_per_epoch(p, train)
    for i, method in enumerate(methods):
        time_left = (end - time.monotonic()) / (len(methods) - i) - (0 if options.rehearse else MEASURING)
        fits = int(time_left / per_epoch)
        epochs = min(p.epochs, fits) if not have else int(there["epochs"].iloc[0])
        if options.rehearse:
            epochs, fits = 1, 1
        if epochs < 1 or epochs > fits:
            print(f"{method}: {epochs} epochs of {per_epoch:.2f} s do not fit into {time_left:.0f} s", flush=True)
            continue
        q = replace(p, objective=method, epochs=epochs, curve_every=max(1, epochs // 8))
        result = run(q, train, test)
        there = results.append(result.rows, options.table)
        have, there = {*have, method}, there[there["profile"] == p.profile]
        options.out.mkdir(parents=True, exist_ok=True)
        picture(result, test, options.out / f"{method.replace(':', '-')}.png")
        print(f"{method}: {epochs} epochs, {result.history.epochs[-1]['seconds']:.0f} s, probe "
              f"{result.metrics['probe'].mean():.3f}", flush=True)


def seconds_per_epoch(p: PolyMNIST, train) -> float:
    """Of the third epoch: the first two compile, record and fill caches."""
    history = training.fit(p.build_model(train), train, epochs=3, batch_size=p.batch_size, precision=p.precision,
                           plan=p.plan, device=p.device)
    seconds = history["seconds"]
    return seconds[2] - seconds[1]


@torch.no_grad()
def picture(result: Result, test, path: Path) -> None:
    """What the model imagines of the other modalities from the first."""
    few = test.subset(slice(0, 10))
    observed = torch.zeros_like(few.observed)
    observed[0] = True
    with evaluating(result.model, 0) as device:
        imagined = result.model.impute([x.to(device) for x in few.modalities.values()], observed.to(device))
    images = {name: image.float().cpu() for name, image in imagined.items()}
    figure = figures.imputations(few, {result.parameters.objective: images}, source=0)
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
