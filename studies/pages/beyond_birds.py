"""The page `beyond`, birds: pools that the chapter `cub` does not have, beside methods that it has."""

import pandas as pd

from mmvm.study import results
from studies.pages.beyond import POOLED

BESIDE = ("mmvm", "moe", "independent")  # of the chapter's methods
POOLS = ("mmvm:prior=geometric", "mmvm:prior=hellinger", "hellinger")
SHOWN = {"coherence": 3, "probe": 3, "own_error": 0}  # digits


def rows() -> pd.DataFrame:
    """Laptop runs of all these methods: the chapter's, and `pools_birds`."""
    chapter = results.read("cub")
    chapter = chapter[(chapter["profile"] == "laptop") & chapter["method"].isin(BESIDE)]
    return pd.concat([chapter, results.read("pools_birds")], ignore_index=True)


def board(birds: pd.DataFrame) -> pd.DataFrame:
    """One line a method, each at the beta whose coherence is highest on validation birds: beta, seeds, mean and
    standard deviation ("<metric> sd") of cross coherence, probe and own error."""
    birds = results.with_own_error(birds)
    best = results.at_best_beta(birds, ["probe", "own_error"], by="coherence", validated=results.validated("cub"))
    cross = results.scoreboard(birds, ["coherence"], target="cross")
    best = best.merge(cross[["method", "beta", "updates", "coherence", "coherence sd"]]).set_index("method")
    return best.loc[[method for method in (*BESIDE[:1], *POOLS, *BESIDE[1:]) if method in best.index]]


def lost_seeds(birds: pd.DataFrame) -> dict[str, list[int]]:
    """Of MMVM and the pools as its prior, at the betas of `board`: seeds whose image latent says nothing of the bird,
    the probe (AUROC) within .03 of chance."""
    probes = birds[(birds["metric"] == "probe") & (birds["source"] == "") & (birds["target"] == "image")]
    betas = board(birds)["beta"]
    found = {text: probes[(probes["method"] == text) & (probes["beta"] == betas[text])] for text in betas.index
             if text.partition(":")[0] == "mmvm"}
    return {text: sorted(own.loc[own["value"] < 0.53, "seed"]) for text, own in found.items()}


def table(found: pd.DataFrame) -> pd.DataFrame:
    """As a reader sees it."""
    names = [POOLED[method] for method in found.index]
    said = {name: results.with_spread(found, name, digits).to_numpy() for name, digits in SHOWN.items()}
    heads = {"coherence": "coherence, cross", "own_error": "own error"}
    return pd.DataFrame({"": names, "β": found["beta"].map("{:g}".format).to_numpy(),
                         **{heads.get(name, name): column for name, column in said.items()},
                         "seeds": found["seeds"].to_numpy()})
