"""Tables of new-study: one file a modality, one row a sample, and the files' labels.

    <root>/first.csv    id, and one column a feature
    <root>/second.csv   id, and one column a feature; a sample without a row here lacks the modality
    <root>/labels.csv   id, label; and group, where several samples are of one person, plate or day: a group is never
                        divided between training, validation and testing. Without that column every sample is a group

    python -m mmvm data new-study --simulate --root tables
    python -m mmvm data new-study --check --root tables
"""

from pathlib import Path

import numpy as np
import pandas as pd

from mmvm import Modality, MultimodalData, Normal, UserError
from mmvm.paths import home

NAMES = ("first", "second")


def read(root: str = "", seed: int = 0) -> dict[str, pd.DataFrame]:
    """The tables by name, `labels` among them; those that `drawn` makes where `root` is empty."""
    if not root:
        return drawn(seed)
    tables = {}
    for name in (*NAMES, "labels"):
        path = home(root) / f"{name}.csv"
        if not path.exists():
            raise UserError(f"{path} is missing: write it, or make a stand-in with --simulate")
        try:
            tables[name] = pd.read_csv(path, index_col="id", dtype={"id": str, "group": str})
        except ValueError as error:  # so do pandas' own
            why = " ".join(str(error).split())
            raise UserError(f"{path} is no table with a column id ({why}): correct it") from None
        if tables[name].index.hasnans or not tables[name].index.is_unique:
            raise UserError(f"{path} has a row without an id, or an id twice: keep one row a sample, with its id")
    if "label" not in tables["labels"]:
        raise UserError(f"{home(root) / 'labels.csv'} has no column label: add it, or give the one there that name")
    tables["labels"] = tables["labels"].dropna(subset="label")
    strange = tables["first"].index.difference(tables["labels"].index)
    if len(strange):
        raise UserError(f"sample {strange[0]} has no label ({len(strange)} such samples): add them to labels.csv")
    if "group" not in tables["labels"]:
        tables["labels"]["group"] = tables["labels"].index
    alone = tables["labels"]["group"].isna()
    if alone.any():
        raise UserError(f"sample {alone.idxmax()} has no group ({alone.sum()} such samples): give each its own, or all "
                        "none")
    return tables


def drawn(seed: int = 0, n: int = 600) -> dict[str, pd.DataFrame]:
    """A stand-in: two tables of 6 and 4 columns that share two numbers, of which the label is the sign of one. Two
    samples are a group, and a tenth of the samples lacks the second table."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 2))
    ids = pd.Index([f"s{i:04}" for i in range(n)], name="id")
    tables = {name: pd.DataFrame(np.tanh(shared @ rng.normal(size=(2, width))) + 0.3 * rng.normal(size=(n, width)), ids,
                                 [f"{name}{j}" for j in range(width)]) for name, width in zip(NAMES, (6, 4))}
    tables["second"] = tables["second"][rng.random(n) > 0.1]
    tables["labels"] = pd.DataFrame({"label": np.where(shared[:, 0] > 0, "high", "low"),
                                     "group": [f"g{i // 2:03}" for i in range(n)]}, ids)
    return tables


def groups(ids: list[str], root: str = "", seed: int = 0) -> pd.Series:
    """The group of each sample, for `Study.part`."""
    return read(root, seed)["labels"].loc[ids, "group"]


def load(split: str, root: str = "", seed: int = 0, n_test: int = 100) -> MultimodalData:
    """The "train" or the "test" samples. Which groups are which is drawn by `seed`, over their names and nothing else,
    not by the order of the rows, until `n_test` samples are for testing. No label is looked at: one that few samples
    have may be lacking on a side, `check` counts them."""
    tables = read(root, seed)
    ids, labels = tables["first"].index.sort_values(), tables["labels"]["label"]
    group = tables["labels"].loc[ids, "group"]
    sizes = group.value_counts().sort_index()
    sizes = sizes.iloc[np.random.default_rng(seed).permutation(len(sizes))]
    held = group.isin(sizes.index[sizes.cumsum() - sizes < n_test]).to_numpy()
    if held.all():
        raise UserError(f"of {len(ids)} samples {n_test} are for testing, none is left to train on: add some, lower "
                        "n_test, or give smaller groups")
    train, test = ids[~held], ids[held]

    def described(rows, specs) -> MultimodalData:
        x = {name: tables[name].reindex(rows) for name in NAMES}  # NaN in rows that a table lacks
        return MultimodalData(x, specs, labels.loc[rows], label_names=tuple(sorted(labels.unique())))
    specs = tuple(Modality(name, (tables[name].shape[1],), Normal(0.5), standardise=True, missing="nan")
                  for name in NAMES)
    data = described(train, specs)
    # the test samples are standardised by the training samples' numbers
    return data if split == "train" else described(test, data.specs)


def simulate(root: str, seed: int = 0) -> Path:
    """Writes the stand-in in the layout above; returns the folder."""
    if not root:
        raise UserError("name the folder that the stand-in is written to: --root tables")
    home(root).mkdir(parents=True, exist_ok=True)
    for name, table in drawn(seed).items():
        table.to_csv(home(root) / f"{name}.csv")
    return home(root)


def check(root: str = "") -> list[str]:
    """What the files hold, a line each: samples, groups, modalities, and how many samples have each label."""
    sets = {split: load(split, root) for split in ("train", "test")}
    return [line for split, data in sets.items() for line in data.inventory(split, groups=groups(data.ids, root))]
