"""The methods on translated digits with one net and one schedule (`polymnist_grid.csv`)."""

import pandas as pd

from mmvm.study import results
from mmvm.study.figures import METHOD_NAMES

VARIATIONAL = "mmvm:bound=variational"
# of a board: metric and target of the rows
COLUMNS = {"probe": ("probe", "mean"), "m0": ("probe", "m0"), "m1": ("probe", "m1"), "m2": ("probe", "m2"),
           "self": ("coherence", "self"), "cross": ("coherence", "cross"), "nats": ("latent_information", "mean"),
           "own error": ("own_error", "sum"), "training's error": ("reconstruction", "sum"),
           "imputation": ("imputation", "cross")}


def board(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per method and beta (the index), mean over seeds, the highest probe first: columns as `COLUMNS`, and
    `seeds`. `self` and `cross`: how often a picture made of its own and of another modality's latent shows the digit;
    `nats` a modality's latent holds; errors in nats per tuple, `imputation` per picture made of another's latent."""
    own = results.with_own_error(rows)
    own = own[own["source"] == ""]
    named = {key: column for column, key in COLUMNS.items()}
    own = own.assign(column=pd.Series(list(zip(own["metric"], own["target"])), index=own.index).map(named))
    found = own.dropna(subset=["column"]).groupby(["method", "beta", "column"])["value"].mean().unstack()
    seeds = own.groupby(["method", "beta"])["seed"].nunique().rename("seeds")
    return found[list(COLUMNS)].join(seeds).sort_values("probe", ascending=False)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A `board` of one beta as the page shows it."""
    found = found.droplevel("beta")
    digits = {"nats": "{:.1f}", **{name: "{:,.0f}" for name in ("own error", "training's error", "imputation")}}
    shown = pd.DataFrame({name: found[name].map(digits.get(name, "{:.2f}").format) for name in COLUMNS})
    return shown.rename(index={**METHOD_NAMES, VARIATIONAL: "MMVM, variational bound"}, columns={
        "self": "own", "cross": "imputed", "training's error": "training's", "imputation": "imputation's"})
