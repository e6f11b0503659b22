"""What trained latents keep and what they share: rows beside those of the runs.

    python tools/shared_latents.py data/results/polymnist_search.csv runs/grid/polymnist/search/<run> ...

For each run's folder, on its test split (the profile `search` measures on validation tuples):

latent_information  per modality, what a latent tells of its image, `DiagonalGaussian.information` over all D, in nats;
                    and their mean
latent_dimensions   per modality, dimensions that tell at least 0.1 nats
latent_correlation  per pair, the largest |correlation| of one dimension of two modalities' means
probe_transfer      [source, target], the probe fitted to the source's means, tested on the target's

A row takes everything but metric, source, target, value, date and note from the run's own rows.
"""

import argparse
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from mmvm import paths
from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.encodings import evaluating, some_of
from mmvm.files import git_commit
from mmvm.gaussian import DiagonalGaussian
from mmvm.model import MultimodalVAE
from mmvm.study import load, results
from studies.hippocampus.alignment import probes

LEAST = 0.1  # nats of a dimension that counts


@torch.no_grad()
def posteriors(model: MultimodalVAE, data: MultimodalData) -> DiagonalGaussian:
    """q_m(z_m | x_m) of all samples, (M, N, D), on the CPU. Raises `UserError` where a modality is missing: its N(0, I)
    would count as what a latent knows."""
    if not data.observed.all():
        raise UserError("these numbers are of samples that have every modality: give data.subset(data.observed.all(0))")
    found = []
    with evaluating(model) as device:
        for batch in data.batches(500):
            q = model.encode([x.to(device) for x in batch.x], batch.observed.to(device))
            found.append((q.mean.float().cpu(), q.logvar.float().cpu()))
    return DiagonalGaussian(*(torch.cat(parts, 1) for parts in zip(*found)))


def measure(model: MultimodalVAE, train: MultimodalData, test: MultimodalData) -> list[tuple[str, str, str, float]]:
    """(metric, source, target, value)."""
    names, q = test.names, posteriors(model, test)
    information = q.information()
    z = q.mean - q.mean.mean(1, keepdim=True)
    z = z / z.norm(dim=1, keepdim=True).clamp(min=1e-12)
    found = [("latent_information", "", name, float(nats.sum())) for name, nats in zip(names, information)]
    found += [("latent_information", "", "mean", float(information.sum(-1).mean()))]  # or the run's own would be lost
    found += [("latent_dimensions", "", name, float((nats >= LEAST).sum())) for name, nats in zip(names, information)]
    found += [("latent_correlation", names[a], names[b], float((z[a] * z[b]).sum(0).abs().max()))
              for a in range(len(names)) for b in range(a)]
    transfer = probes(model, train, test).transfer
    return found + [("probe_transfer", names[s], names[t], float(accuracy)) for (s, t), accuracy in np.ndenumerate(
        transfer)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("folders", nargs="+")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        p, model = load(folder)
        own = results.read(paths.placed(folder) / "results.csv").iloc[0].to_dict()
        chosen = {name: getattr(p, name) for name in (*p.config(), "epochs") if hasattr(p, name)}
        p = replace(type(p).from_profile(own["profile"]), **chosen)
        train, test = p.data("train"), p.data("test")
        if p.run_hash() != own["run"]:
            raise SystemExit(f"error: {folder} has rows of the run {own['run']}, its parameters say {p.run_hash()}")
        note = f"n={len(test)}; measured at {git_commit()}"
        rows = [{**own, "metric": metric, "source": source, "target": target, "value": value, "note": note,
                 "date": datetime.now(UTC).date().isoformat()}
                for metric, source, target, value in measure(model, some_of(train, p.n_probe, p.data_seed), test)]
        results.append(rows, arguments.table)
        print(f"{folder}: {len(rows)} rows in {arguments.table}", flush=True)


if __name__ == "__main__":
    main()
