"""python -m benchmarks [steps] [layers] [epochs] [plan] [scaling] [pools] [diffusion] [evaluation]
[quality] [gpu]

Prints the table; --keep also writes it to benchmarks/results.csv, which the chapter `cost` shows. Let nothing else run
meanwhile. All parts but `gpu` together take about twenty minutes on two cores.
"""

import argparse
import sys
from collections.abc import Iterable

import pandas as pd
import torch

from benchmarks import gpu, layers, scaling, timing, training
from mmvm.errors import UserError

PARTS = ("steps", "layers", "epochs", "plan", "scaling", "pools", "diffusion", "evaluation", "quality", "gpu")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; default: all that this machine can")
    parser.add_argument("--network", action="append", choices=("conv", "resnet"), help="default: both")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each arm (ResNets: a third of them)")
    parser.add_argument("--keep", action="store_true", help="write the rows to benchmarks/results.csv")
    options = parser.parse_args()
    parts = options.parts or [part for part in PARTS if part != "gpu" or torch.cuda.is_available()]
    unknown = sorted(set(parts) - set(PARTS))
    if unknown or options.batch < 1 or options.rounds < 1:
        print(f"benchmarks: unknown part {', '.join(unknown)}; there are: {', '.join(PARTS)}" if unknown else
              "benchmarks: --batch and --rounds must be at least 1", file=sys.stderr)
        return 2
    device = torch.device("cuda" if parts == ["gpu"] else "cpu")
    for part in parts:
        for network in options.network or ("conv", "resnet"):
            rounds = options.rounds if network == "conv" else max(2, options.rounds // 3)
            try:
                for found in _measure(part, network, options.batch, rounds):
                    table = timing.rows(part, found, device)
                    _show(table)
                    if options.keep:
                        timing.keep(table)
            except UserError as error:
                print(f"benchmarks: {error}", file=sys.stderr)
                return 2
    return 0


def _measure(part: str, network: str, batch: int, rounds: int) -> Iterable[list[dict]]:
    """Rows, in as many pieces as are kept one by one."""
    if part == "gpu":
        return gpu.times(network, batch, rounds)
    found = _rows(part, network, batch, rounds)
    return [found] if found else []


def _rows(part: str, network: str, batch: int, rounds: int) -> list[dict]:
    if part == "steps":
        return training.steps(network, batch, rounds) + training.memories(network, batch)
    if part == "layers":
        return layers.layers(network, batch if network == "conv" else batch // 4, rounds)
    if part == "epochs":
        return training.epochs(network, batch, rounds, n=4 * batch if network == "conv" else batch)
    if part == "plan":
        return training.chosen(network, batch)
    if network == "resnet":
        return []  # measured on the convolutional pair alone
    if part == "quality":
        return scaling.quality()
    if part == "pools":
        return scaling.pools(batch, rounds)
    if part == "diffusion":
        return scaling.diffusion(batch, rounds)
    return scaling.scaling(batch, rounds) if part == "scaling" else scaling.evaluation(10_000, 2)


def _show(table: pd.DataFrame) -> None:
    print(f"\n{table['benchmark'].iloc[0]}: {table['machine'].iloc[0]}, torch {table['torch'].iloc[0]}")
    columns = ["arm", "network", "modalities", "latent_dim", "precision", "metric", "value", "low", "high"]
    print(table[columns].to_string(index=False, float_format=lambda value: f"{value:,.4g}"), flush=True)


if __name__ == "__main__":
    sys.exit(main())
