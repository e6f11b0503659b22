"""What the results explorer of the page `scoreboard` shows: all committed runs, one line each, for a script in it.

`payload` is written beside the page by book/_ext/players.py; book/_static/explorer.js draws it.
"""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mmvm.study import results
from mmvm.study.figures import METHOD_COLOURS, METHOD_MARKERS, METHOD_NAMES, over_beta
from studies.pages.translated_search import UNTRAINED

RUN = ["profile", "method", "beta", "seed", "date", "commit", "seconds"]  # of a run, before its measures
# says little of a run, or is of those who judge it
HIDDEN = r"^(effective_beta|words|best_epoch|validation_.*|constant_.*|classifier_accuracy|classifier_auroc)$"
DIGITS = 6  # significant ones, as in the files
CHOOSING = {results.VALIDATION, "learning_rates"}  # files of runs that choose betas and rates on validation samples
COUNTS = r";? ?(n=\d+|trunk=\w+|measured at \w+)"  # of a note: how it was measured, not what was trained


def appearance(method: str, settings: str) -> dict:
    """Label, colour and marker as in the figures; of a variant its method's, drawn dashed."""
    plain = re.split("[:/]", method)[0]
    shown = method if method in METHOD_NAMES else plain
    label = METHOD_NAMES[shown] if shown == method else f"{METHOD_NAMES[plain]}, {method[len(plain) + 1:]}"
    return {"label": f"{label}, {settings}" if settings else label, "colour": METHOD_COLOURS[shown],
            "marker": METHOD_MARKERS[shown], "dashed": plain != method or bool(settings)}


def settings_of(table: pd.DataFrame, wide: pd.DataFrame) -> pd.Series:
    """What tells runs of one profile and method apart beside beta and seed: the note of their probe, and the number of
    updates where there are several."""
    notes = table[(table["metric"] == "probe") & (table["target"] == "mean")].set_index("run")["note"]
    notes = wide["run"].map(notes).fillna("").str.replace(COUNTS, "", regex=True).replace("the profile", "")
    several = wide.groupby(["profile", "method", notes])["updates"].transform("nunique") > 1
    updates = wide["updates"].map("{:,} updates".format).where(several, "")
    return (notes + "; " + updates).str.strip("; ")


def payload() -> dict:
    """name of the file -> measures and runs: a list of `RUN` and of the measures' averages, null where there is none;
    and the appearance of the methods, a variant counting as one."""
    files, methods = {}, {}
    for name in results.available():
        if name in CHOOSING:
            continue
        table = results.read(name)
        table = table[table["method"] != UNTRAINED]
        wide = results.per_run(table)
        columns = [column for column in wide if column not in {*RUN, "run", "epochs", "updates"}]
        measures = [column for column in columns if not re.match(HIDDEN, column)]
        # what was measured later has a date and a commit of its own: a run is one line all the same
        wide = wide.groupby("run", sort=False, as_index=False).first()
        settings = settings_of(table, wide)
        names = wide["method"] + settings.map(lambda text: f" ({text})" if text else "")
        methods |= {name: appearance(*pair) for name, *pair in zip(names, wide["method"], settings)}
        wide = wide.assign(method=names)
        runs = [[*line[:len(RUN)], *(None if np.isnan(value) else float(f"{value:.{DIGITS}g}")
                                     for value in line[len(RUN):])]
                for line in wide[[*RUN, *measures]].itertuples(index=False)]
        files[name] = {"measures": measures, "runs": runs}
    order = sorted(methods, key=lambda name: (name not in METHOD_NAMES, list(METHOD_NAMES).index(
        name if name in METHOD_NAMES else re.split("[:/ ]", name)[0])))
    return {"run": RUN, "files": files, "methods": {name: methods[name] for name in order}}


def script() -> str:
    """The payload as a script, which a page can load from the disk too."""
    return f"window.mmvmRows = {json.dumps(payload(), separators=(',', ':'), allow_nan=False)};\n"


def still(measure: str) -> plt.Figure:
    """What stands in for the explorer where no script runs: its first view, and the same of CUB."""
    boards = {}
    for name in ("polymnist", "cub"):
        table = results.read(name)
        table = table[(table["profile"] == "laptop") & ~table["method"].str.contains("[:/]")]
        boards[name] = results.scoreboard(table, [measure]).rename(columns={
            measure: name, f"{measure} sd": f"{name} sd"})[["method", "beta", name, f"{name} sd"]]
    board = boards["polymnist"].merge(boards["cub"], on=["method", "beta"], how="outer")
    return over_beta(board, {"polymnist": f"PolyMNIST, {measure}", "cub": f"CUB, {measure}"}, {}, {})
