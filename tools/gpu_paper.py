"""The paper's networks for as many epochs as a given time holds, the same number for MMVM, MVTCAE and PoE.

    python tools/gpu_paper.py --until $(($(date +%s) + 300)) --table data/results/polymnist_gpu.csv --out runs/window

First the classifiers are trained, where they are not kept already, then a few updates of MMVM are timed; what is left
of the time is shared among the methods that have no rows in the table yet. Where it holds fewer than ten epochs for
each, nothing is begun. Where a method has rows, from an earlier call, the others get its number of epochs. A method
whose time is not there any more is not begun, and one that fails does not end the others. Weights are not kept, but
rows and a picture.
"""

import argparse
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from mmvm import training
from mmvm.evaluation.encodings import evaluating
from mmvm.study import results, run
from studies.polymnist import figures
from studies.polymnist.study import PolyMNIST

METHODS = ("mmvm", "mvtcae", "poe")
MEASURING = 40  # seconds that the measures after a training and the points of its curve take, more or less
FEWEST = 10     # epochs after which it is worth a look
SLACK = 1.1     # an epoch may take this much longer than was measured
TINY = {"network": "resnet:channels=4", "latent_dim": 8, "n_train": 64, "n_test": 64, "n_probe": 64,
        "batch_size": 32, "epochs": FEWEST, "classifier_epochs": 1, "plan": "plain", "profile": "rehearsal"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--until", type=float, required=True, help="be over by then, seconds as of `date +%%s`")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the picture")
    parser.add_argument("--rehearse", action="store_true", help="tiny settings, for a CPU")
    options = parser.parse_args()
    p = replace(PolyMNIST.from_profile("paper"), plan="channels_last" if torch.cuda.is_available() else "plain",
                profile="paper-short")
    p = replace(p, **TINY) if options.rehearse else p

    there = epochs_there(options.table, p.profile)
    methods = [method for method in METHODS if method not in there]
    if not methods:
        say("all methods have rows")
        return 0
    train, test = p.data("train"), p.data("test")
    p.classifiers(train, test)
    per_epoch = seconds_per_epoch(p, train)
    room = options.until - time.time()
    epochs = max(there.values()) if there else epochs_that_fit(room, per_epoch, len(methods), p.epochs)
    say(f"{per_epoch:.2f} s an epoch, {room:.0f} s for {', '.join(methods)}: {epochs or 'too few'} epochs")

    images, failed = {}, []
    for method in methods if epochs else ():
        if epochs * per_epoch + MEASURING > options.until - time.time():
            say(f"{method} is not begun: {options.until - time.time():.0f} s are left")
            continue
        try:
            result = run(replace(p, objective=method, epochs=epochs, curve_every=max(1, epochs // 4)), train, test)
            results.append(result.rows, options.table)
            say(f"{method}: {result.history.epochs[-1]['seconds']:.0f} s, probe {result.metrics['probe'].mean():.3f}")
            images[method] = imagined(result.model, test.subset(slice(0, 10)))
            options.out.mkdir(parents=True, exist_ok=True)
            figure = figures.imputations(test.subset(slice(0, 10)), images, source=0)
            figure.savefig(options.out / "paper.png")
            plt.close(figure)
        except Exception:  # divergence, memory, a picture
            traceback.print_exc()
            say(f"{method} failed")
            failed.append(method)
    return 1 if failed else 0


def say(line: str) -> None:
    print(line, flush=True)


def epochs_there(table: Path, profile: str) -> dict[str, int]:
    """Of the methods that have rows of this profile, by name."""
    rows = results.read(table) if table.exists() else None
    return {} if rows is None else rows[rows["profile"] == profile].groupby("method")["epochs"].max().to_dict()


def epochs_that_fit(room: float, per_epoch: float, methods: int, most: int) -> int:
    """Of each of so many methods, in `room` seconds with the measures; 0 where that are fewer than it is worth."""
    fit = int((room / methods - MEASURING) / (SLACK * per_epoch))
    return min(fit, most) if fit >= FEWEST else 0


def seconds_per_epoch(p: PolyMNIST, train) -> float:
    """By the third pass over a tenth of the tuples: the first two choose kernels and fill caches."""
    few = train.subset(slice(0, max(p.batch_size, len(train) // 10)))
    history = training.fit(p.build_model(few), few, epochs=3, batch_size=p.batch_size, precision=p.precision,
                           plan=p.plan, device=p.device)
    return len(train) / history["samples_per_second"][-1]


@torch.no_grad()
def imagined(model, few) -> dict[str, torch.Tensor]:
    """What the model makes of the other modalities from the first."""
    observed = torch.zeros_like(few.observed)
    observed[0] = True
    with evaluating(model, 0) as device:
        found = model.impute([x.to(device) for x in few.modalities.values()], observed.to(device))
    return {name: image.float().cpu() for name, image in found.items()}


if __name__ == "__main__":
    sys.exit(main())
