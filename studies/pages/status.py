"""The page `status`: which runs the committed rows come from, when and on what, and how long chapters take."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mmvm import paths
from mmvm.study import results
from mmvm.study.figures import INK, MODALITY_COLOURS, WIDTH
from studies.pages.translated_search import UNTRAINED

TEXTS = Path("book") / "text"
# results file -> the chapters that read it; empty: rows that no chapter reads yet
SHOWN = {"polymnist": ("intro", "polymnist", "collapse", "errata", "beyond", "cost", "scoreboard"),
         "cub": ("cub", "errata", "beyond", "scoreboard"), "errata": ("errata",), "errata_birds": ("errata",),
         "pools": ("beyond", "hippocampus"), "pools_birds": ("beyond",),
         "hippocampus": ("hippocampus", "errata", "beyond", "scoreboard"), "generation": ("beyond",),
         "mimic-cxr": ("mimic-cxr", "beyond", "scoreboard"), "polymnist_search": ("intro", "translated"),
         "polymnist_grid": ("intro", "polymnist", "translated", "ablations", "information", "beyond", "scoreboard"),
         "polymnist_gpu": (), "hippocampus_long": ("hippocampus", "beyond"),
         "learning_rates": ("hippocampus", "intro", "polymnist", "cub", "mimic-cxr", "beyond"),
         "hippocampus_information": ("hippocampus",),
         "information": ("intro", "polymnist", "information", "collapse", "beyond"),
         "ablations": ("intro", "ablations", "errata"), "information_translated": ("translated", "information"),
         "ablations_translated": ("intro", "translated", "ablations"),
         "validation": ("intro", "polymnist", "cub", "mimic-cxr", "beyond", "scoreboard")}
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "matplotlib", "jupyter-book", "jupytext",
            "papermill", "nbval", "snakemake")
DAY = '<span style="white-space: nowrap">{}</span>'
RUNTIME = re.compile(r"\*\*Runtime and memory:?\*\*:?\s*(?:of the live (?:run|part):)?\s*(.+?)(?:\.\s|\.$|\s\*\*)",
                     re.DOTALL)


def runs() -> pd.DataFrame:
    """A line per results file and profile, the most hours first.

    file, profile, runs, rows, seeds    how many; rows also of encoders that were not trained
    minutes, hours                      of training: the median run's, and all runs' together
    device, torch                       that the rows name, each once
    first, last                         dates, as texts
    """
    lines = []
    for name in results.available():
        for profile, rows in results.read(name).groupby("profile"):
            one = rows[rows["method"] != UNTRAINED].drop_duplicates("run")
            lines.append({"file": name, "profile": profile, "runs": len(one), "rows": len(rows),
                          "seeds": one["seed"].nunique(), "minutes": one["seconds"].median() / 60,
                          "hours": one["seconds"].sum() / 3600, "device": ", ".join(sorted(set(one["device"]))),
                          "torch": ", ".join(sorted(set(one["torch"]))), "first": one["date"].min(),
                          "last": one["date"].max()})
    return pd.DataFrame(lines).sort_values("hours", ascending=False, ignore_index=True)


def named(board: pd.DataFrame) -> list[str]:
    """What the lines of `runs` are of, in words."""
    return [file if file == profile else f"{file}, {profile}" for file, profile in zip(board["file"], board["profile"])]


def hours(board: pd.DataFrame) -> plt.Figure:
    """A bar per line of `runs`: hours of training on a logarithmic axis, the number of runs beside it."""
    fig, ax = plt.subplots(figsize=(WIDTH, 0.24 * len(board) + 0.7))
    places = np.arange(len(board))
    ax.barh(places, board["hours"], height=0.66, color=MODALITY_COLOURS[0])
    for y, value, n in zip(places, board["hours"], board["runs"]):
        ax.text(value * 1.08, y, f"{n:,}", va="center", color=INK)
    ax.set_yticks(places, named(board))
    ax.invert_yaxis()
    ax.set(xscale="log", xlabel="hours of training, all runs; beside the bars the number of runs",
           xlim=(board["hours"].min() / 2, board["hours"].max() * 2.5))
    ax.xaxis.set_major_formatter("{x:g}")
    return fig


def table(board: pd.DataFrame) -> pd.DataFrame:
    """`runs` in words, with the pages that read their file."""
    chapters = [", ".join(f'<a href="{name}.html">{name}</a>' for name in SHOWN.get(file, ())) or "none yet"
                for file in board["file"]]
    return pd.DataFrame({"rows": named(board), "pages that read the file": chapters, "runs": board["runs"],
                         "seeds": board["seeds"], "minutes a run": board["minutes"].map("{:.1f}".format),
                         "on": board["device"] + ", torch " + board["torch"], "newest": board["last"].map(DAY.format)})


def runtime(chapter: str, root: Path = paths.REPOSITORY) -> str:
    """What a chapter's opening says of the time and memory of its live part, in a line; "" where it says nothing."""
    found = RUNTIME.search((root / TEXTS / f"{chapter}.md").read_text(encoding="utf-8"))
    return " ".join(found.group(1).split()) if found else ""


def chapters() -> pd.DataFrame:
    """A line per chapter that says how long it takes: its live part, and the date of the newest rows that it shows."""
    board = runs()
    lines = []
    for path in sorted((paths.REPOSITORY / TEXTS).glob("*.md")):
        if said := runtime(path.stem):
            own = board[board["file"].map(lambda file, name=path.stem: name in SHOWN.get(file, ()))]
            lines.append({"chapter": f'<a href="{path.stem}.html">{path.stem}</a>', "live part": said,
                          "newest rows": DAY.format(own["last"].max()) if len(own) else ""})
    return pd.DataFrame(lines)


def versions() -> pd.DataFrame:
    """The versions in requirements.lock that the chapters are run with."""
    lock = (paths.REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", lock, re.MULTILINE))
    return pd.DataFrame({"package": PACKAGES, "version": [pins[name] for name in PACKAGES]})
