"""Result rows: one number a row, with everything needed to know where it came from.

A row exists only if a run produced it. The book's tables and prose read these files; nothing is typed by hand.
"""

import csv
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mmvm import paths
from mmvm.errors import UserError
from mmvm.files import git_commit, write_text
from mmvm.training import PREFIX
from mmvm.training.lock import in_turn_at

__all__ = ["COLUMNS", "append", "at_best_beta", "available", "chooser", "per_run", "read", "scoreboard", "validated",
           "with_own_error", "with_spread"]

COLUMNS = {
    "experiment": "chapter that the run belongs to",
    "method": "objective, with its bound where that is not the default",
    "beta": "weight of the regulariser",
    "seed": "seed of weights, order and draws",
    "profile": "smoke | laptop | paper | any label given by the user",
    "metric": "what was measured",
    "source": "modality (or update, or number of labelled samples, of a curve) it was measured from; may be empty",
    "target": "modality, label or bin it was measured on, or 'mean', 'sum', 'cross', 'self'",
    "value": "the number: accuracies in [0, 1], errors in nats per sample",
    "n_train": "training samples",
    "epochs": "epochs trained",
    "updates": "updates made",
    "device": "cpu, or the GPU's name",
    "seconds": "training time, evaluation not counted",
    "torch": "torch version",
    "commit": "commit of the project; + means with uncommitted changes in mmvm or studies",
    "date": "day the row was written (UTC)",
    "run": "hash of the run's parameters",
    "data": "start of the training data's fingerprint; empty: not recorded",
    "note": "what else the number depends on: a network's file and hash, a library's version; mostly empty",
}
"""Name -> meaning of the columns of a result row, in their order.

>>> mmvm.study.results.COLUMNS["beta"]
'weight of the regulariser'
"""
VALIDATION = "validation"  # the file of the runs that choose the betas of all studies
RESTORE = "restore it (git checkout), or delete it and run again"
COMMIT = git_commit()  # now, with the code as imported: the tree may change while a run goes on
MAY_LACK = ("data", "note")  # younger than some files, which stay as they are
KEY = ["experiment", "profile", "run", "metric", "source", "target"]
AVERAGES = ("mean", "sum", "cross", "self")  # targets of rows that stand for several
NUMBERS = {"beta": float, "seed": int, "value": float, "n_train": int, "epochs": int, "updates": int, "seconds": float}


def provenance(device: torch.device) -> dict:
    """device, torch, commit and date of a row written now."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "torch": torch.__version__.split("+")[0], "commit": COMMIT,
            "date": datetime.now(UTC).date().isoformat()}


def append(rows: list[dict] | pd.DataFrame, path: str | os.PathLike) -> pd.DataFrame:
    """Adds rows to a csv file (made if absent), in place of all older rows of the same run and metric: give a metric as
    a whole. Returns the file as `read` does. Several processes may append to one file. Raises `UserError` for rows with
    missing or unknown columns, or without a value.

    >>> rows = mmvm.study.run(Toy(epochs=1)).rows
    >>> len(mmvm.study.results.append(rows, folder / "results.csv")) == len(rows)
    True
    """
    path = Path(path)
    new = _filled(pd.DataFrame(rows))
    if set(new.columns) != set(COLUMNS):
        raise UserError(f"result rows lack {sorted(set(COLUMNS) - set(new.columns))} and must not have "
                        f"{sorted(set(new.columns) - set(COLUMNS))}")
    new = new[list(COLUMNS)].astype({name: NUMBERS.get(name, str) for name in COLUMNS})
    if (wrong := ~np.isfinite(new["value"])).any():
        what = new.loc[wrong, ["metric", "source", "target"]].iloc[0]
        raise UserError(f"the value of {' '.join(filter(None, what))} is no number: a row needs one, leave it out")
    path.parent.mkdir(parents=True, exist_ok=True)
    with in_turn_at(path.parent):  # the file itself is replaced as a whole
        old = read(path) if path.exists() else new.iloc[:0]
        # what the new rows have no number of any more would else stay as if it were theirs
        old = old[~pd.MultiIndex.from_frame(old[KEY[:4]]).isin(pd.MultiIndex.from_frame(new[KEY[:4]]))]
        table = pd.concat([old, new]) if len(old) else new
        table = table.drop_duplicates(KEY, keep="last").sort_values(
            ["experiment", "profile", "method", "beta", "seed", "run", "metric"], kind="stable")
        write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
        return read(path)


def read(name_or_path: str | os.PathLike) -> pd.DataFrame:
    """The rows of data/results/<name>.csv, or of any csv file with these columns.

    Raises `UserError` where the file is absent or a column or number in it is not what it should be.

    >>> table = mmvm.study.results.append(mmvm.study.run(Toy(epochs=1)).rows, folder / "results.csv")
    >>> mmvm.study.results.read(folder / "results.csv")["beta"].unique()
    array([1.])
    """
    path = Path(name_or_path) if str(name_or_path).endswith(".csv") else paths.results_root() / f"{name_or_path}.csv"
    if not path.is_file():
        raise UserError(f"there are no results {path}: the committed ones are {', '.join(available()) or 'none'}; of a "
                        "run, name its results.csv")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            # as text first: an empty cell stays empty, and a label like 2026 or None stays what it is
            header, *lines = list(csv.reader(file, strict=True)) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no csv file ({error}): {RESTORE}") from None
    for number, line in enumerate(lines, 2):  # pandas would fill up or cut such a line
        if len(line) != len(header):
            raise UserError(f"{path}, line {number} has {len(line)} fields instead of {len(header)}: delete the line "
                            "and run it again, or restore the file")
    table = _filled(pd.DataFrame(lines, columns=header, dtype=str))
    if missing := [name for name in COLUMNS if name not in table]:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}: {RESTORE}")
    for name in ("experiment", "metric", "run"):
        _refuse(path, table[name], table[name] == "", "a name")
    for name, kind in NUMBERS.items():
        numbers = pd.to_numeric(table[name], errors="coerce")
        if kind is int:
            _refuse(path, table[name], numbers % 1 != 0, "a whole number")
        _refuse(path, table[name], ~np.isfinite(numbers), "a number")
        table[name] = numbers.astype(kind)
    return table[list(COLUMNS)]


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """With empty texts where a column that may be absent is."""
    return table.assign(**{name: table[name].fillna("") if name in table else "" for name in MAY_LACK})


def _refuse(path: Path, column: pd.Series, wrong: pd.Series, wanted: str) -> None:
    """`UserError` at the first row that is wrong."""
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(f"{path}, line {row + 2}: {column.name} is {column[row]!r}, not {wanted}: delete the line and "
                        "run it again, or restore the file")


def available() -> list[str]:
    """Names of the committed result files, as `read` takes them, in the order of the alphabet.

    >>> len(mmvm.study.results.available()) > 0
    True
    """
    return sorted(path.stem for path in paths.results_root().glob("*.csv"))


def per_run(table: pd.DataFrame) -> pd.DataFrame:
    """One line per run, sorted by method and beta: its settings, and its averages as columns: `probe` (mean over
    modalities), `reconstruction` (sum over modalities), `coherence` (mean over all pairs), `coherence cross`, ...

    >>> rows = mmvm.study.run(Toy(epochs=1)).rows
    >>> "probe" in mmvm.study.results.per_run(mmvm.study.results.append(rows, folder / "results.csv"))
    True
    """
    averages = table[(table["source"] == "") & table["target"].isin(AVERAGES)]
    averages = averages.assign(seconds=averages.groupby(["profile", "run"])["seconds"].transform("last"))
    column = averages["metric"].where(averages["target"].isin(["mean", "sum"]),
                                      averages["metric"] + " " + averages["target"])
    settings = ["profile", "method", "beta", "seed", "run", "epochs", "updates", "seconds"]
    wide = averages.assign(column=column).pivot(index=settings, columns="column", values="value").reset_index()
    made = table.groupby("run")[["commit", "date"]].last()  # a run's later measurements may be of a later commit
    return wide.rename_axis(columns=None).join(made, on="run").sort_values(["profile", "method", "beta", "seed"],
                                                                          ignore_index=True)


def scoreboard(table: pd.DataFrame, metrics: list[str], target: str = "mean") -> pd.DataFrame:
    """One line per profile, method, beta and number of updates: mean, and standard deviation over seeds where there are
    several, of each of `metrics` at `target` ("mean": the sum where that is what a metric has), with the number of
    seeds, of the metric there with fewest. Runs that stopped early differ in their updates and are one line, the most.

    >>> table = mmvm.study.results.append(mmvm.study.run(Toy(epochs=1)).rows, folder / "results.csv")
    >>> mmvm.study.results.scoreboard(table, ["probe"])["seeds"].tolist()
    [1]
    """
    table = _one_length(table)
    averages = ["mean", "sum"] if target == "mean" else [target]
    rows = table[table["metric"].isin(metrics) & table["target"].isin(averages) & (table["source"] == "")]
    keys = ["profile", "method", "beta", "updates"]
    board = rows.groupby([*keys, "metric"])["seed"].nunique().groupby(level=keys).min().to_frame("seeds")
    for metric in metrics:
        values = rows[rows["metric"] == metric].groupby(keys)["value"]
        board[metric] = values.mean()
        board[f"{metric} sd"] = values.std()
    return board.reset_index()


def _one_length(table: pd.DataFrame) -> pd.DataFrame:
    """With the most updates of its seeds for each run that stopped early."""
    stopped = table["run"].isin(table.loc[table["metric"] == "best_epoch", "run"]).to_numpy()
    most = table.assign(updates=table["updates"].where(stopped)).groupby(["profile", "method", "beta"])["updates"]
    return table.assign(updates=most.transform("max").where(stopped, table["updates"]).astype(int))


def with_own_error(table: pd.DataFrame) -> pd.DataFrame:
    """`table`, and for each run a row of the metric "own_error", target "sum": nats per sample, unweighted, with
    every modality decoded from a latent that knows it. It is sum_m -log p(x_m | z_m) with z_m drawn from q_m alone (the
    diagonal of `imputation`) or as in training with everything given (`reconstruction`), whichever is smaller.

    `reconstruction` alone compares unlike things: training draws z_m from q_m in MMVM and independent VAEs and from
    one joint posterior in others, but a mixture's decoders mostly read latents of other modalities. Runs without rows
    of single pairs get none.

    >>> table = mmvm.study.results.append(mmvm.study.run(Toy(epochs=1)).rows, folder / "results.csv")
    >>> len(mmvm.study.results.with_own_error(table)) - len(table)  # this run has measured no imputation
    0
    """
    trained = table[(table["metric"] == "reconstruction") & (table["target"] == "sum")]
    alone = table[(table["metric"] == "imputation") & (table["source"] == table["target"])]
    alone = alone.groupby(["profile", "run"])["value"].sum().rename("alone")
    own = trained.join(alone, on=["profile", "run"], how="inner")
    own = own.assign(metric="own_error", value=own[["value", "alone"]].min(axis=1)).drop(columns="alone")
    return pd.concat([table, own], ignore_index=True)


def chooser(table: pd.DataFrame, by: str = "probe") -> str:
    """The metric that chooses a beta by `by`: validation_<by> where all runs of the lowest seed have measured it, else
    `by` itself, on test rows.

    >>> table = mmvm.study.results.append(mmvm.study.run(Toy(epochs=1)).rows, folder / "results.csv")
    >>> mmvm.study.results.chooser(table, "probe")  # this run has kept no rows for validation
    'probe'
    """
    first = table[table["seed"] == table["seed"].min()]
    lacking = set(first.loc[first["metric"] == by, "run"]) - set(first.loc[first["metric"] == PREFIX + by, "run"])
    return by if lacking else PREFIX + by


def validated(experiment: str) -> pd.DataFrame | None:
    """What chooses a study's betas: its rows of data/results/validation.csv, of runs that kept validation rows out of
    the training; None where none of its runs is there.

    >>> mmvm.study.results.validated("a study of one's own") is None
    True
    """
    table = read(VALIDATION) if VALIDATION in available() else pd.DataFrame(columns=["experiment"])
    rows = table[table["experiment"] == experiment]
    return rows if len(rows) else None


def at_best_beta(table: pd.DataFrame, metrics: list[str], by: str = "probe",
                 validated: pd.DataFrame | None = None) -> pd.DataFrame:
    """The lines of `scoreboard(table, metrics)` at each method's best beta: where the lowest seed, which every beta has
    been run with, has the highest `chooser(table, by)`. One rule for all methods; `table` should hold one profile.

    `validated`: rows of the same methods and profile that chose on validation rows, in runs of their own, which kept
    these out of the training; what is shown comes from `table` all the same. Of a method with a single beta nothing is
    chosen. Raises `UserError` where a beta that they choose is not in the table, a method of the table not in them, all
    of them of other profiles, or the lowest seed not in a method's runs.

    >>> rows = [row for beta in (0.1, 1.0) for row in mmvm.study.run(Toy(epochs=1, beta=beta)).rows]
    >>> table = mmvm.study.results.append(rows, folder / "results.csv")
    >>> len(mmvm.study.results.at_best_beta(table, ["probe"]))  # one line for the one method
    1
    """
    if validated is not None and "profile" in validated and len(table):
        validated = validated[validated["profile"].isin(own := sorted(set(table["profile"])))]
        if validated.empty:
            raise UserError(f"no validation row is of profile {', '.join(own)}: make some, or leave `validated` out")
    source, table = _one_length(table if validated is None else validated), _one_length(table)
    by = chooser(source, by)
    first = scoreboard(source[source["seed"] == source["seed"].min()], [by])
    chosen = first.loc[first.groupby("method")[by].idxmax(), ["profile", "method", "beta", "updates"]]
    board = scoreboard(table, metrics)
    if validated is None:
        _refuse_lacking(board, chosen, f"no run of the seed that chooses, {source['seed'].min()}")
        return chosen.merge(board)
    single = board.groupby("method")["beta"].transform("nunique") == 1
    best = pd.concat([board.merge(chosen[["method", "beta"]]), board[single & ~board["method"].isin(chosen["method"])]])
    best = best.sort_values(["profile", "method"], ignore_index=True)
    _refuse_lacking(board, best, "no run at the beta that validation rows choose, or no validation rows")
    return best


def _refuse_lacking(board: pd.DataFrame, best: pd.DataFrame, why: str) -> None:
    """`UserError` where a method of `board` is not in `best`: a table without it would look complete."""
    if lacking := sorted(set(board["method"]) - set(best["method"])):
        raise UserError(f"{why}: {', '.join(lacking)}")


def with_spread(board: pd.DataFrame, metric: str, digits: int) -> pd.Series:
    """"mean ± standard deviation" per line of a scoreboard; the mean alone where there is one seed.

    >>> import pandas as pd
    >>> mmvm.study.results.with_spread(pd.DataFrame({"probe": [0.912], "probe sd": [0.004]}), "probe", 3).tolist()
    ['0.912 ± 0.004']
    """
    return board.apply(lambda line: f"{line[metric]:.{digits}f}" + (
        "" if pd.isna(line[f"{metric} sd"]) else f" ± {line[f'{metric} sd']:.{digits}f}"), axis=1)
