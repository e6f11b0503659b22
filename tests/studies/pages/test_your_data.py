"""The chapter on one's own data: rows that lack a modality, in its figures and its recipe; runs of other methods."""

import re
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest

from studies.pages import your_data

ROOT = Path(__file__).resolve().parents[3]
TWIN = ROOT / "book" / "text" / "your-data.md"


@pytest.fixture
def means() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 30, 4))


def test_latents_of_rows_that_lack_a_modality_are_left_out_and_counted(means):
    labels = np.arange(30) % 3
    whole = your_data.latents({"mmvm": means}, labels, ["a", "b"])
    assert [ax.get_title() for ax in whole.axes] == ["MMVM,\na", "MMVM,\nb"]
    means[1, 10:] = np.nan
    means[1, labels == 2] = np.nan  # a class without a row there
    fig = your_data.latents({"mmvm": means, "mine": means}, labels, ["a", "b"])
    titles = [ax.get_title() for ax in fig.axes]
    drawn = [sum(len(dots.get_offsets()) for dots in ax.collections) for ax in fig.axes]
    plt.close("all")
    assert titles == ["MMVM,\na", "MMVM,\nb, 7 of 30", "mine,\na", "mine,\nb, 7 of 30"] and drawn == [30, 7, 30, 7]


def test_the_models_bar_is_in_colour_whatever_its_method():
    board = pd.Series({"PoE, mean of 20 draws": 2.0, "ridge regression": 1.0, "mean": 3.0})
    fig = your_data.errors({"digits": board})
    colours = [bar.get_facecolor() for bar in fig.axes[0].patches]
    plt.close(fig)
    assert colours[0] != colours[1] == colours[2]


def test_one_row_of_digits_can_be_drawn():
    left, right, _ = your_data.two_tables()
    fig = your_data.halves(left[:3], right.columns, {"drawn": right[:3].to_numpy()})
    plt.close(fig)
    assert len(fig.axes) == 3


def test_the_recipe_for_missing_rows_keeps_arrays_and_tables_together():
    """Names whose alphabet is not their order of recording; arrays hold the number of their row."""
    names = pd.Index([f"m{animal}t{trial}" for animal in range(2) for trial in range(12)])
    numbers = pd.DataFrame({"trial": range(len(names))}, names)
    a, b = numbers.drop(names[[1, 13]]), numbers.drop(names[3:6])
    recipe = r"Where a table lacks some, `(every = .*?)`, `(a\.reindex\(every\))`.*?`pictures(\[\[.*?\]\])`"
    steps = re.search(recipe, " ".join(TWIN.read_text().split()))
    space = {"a": a, "b": b, "names": names, "pictures": numbers.to_numpy()}
    exec(steps[1], space)
    every, table, pictures = space["every"], eval(steps[2], space), eval(f"pictures{steps[3]}", space)
    assert sorted(every) == sorted(names) and table["trial"].isna().sum() == 2
    assert (pictures[:, 0] == numbers.loc[every, "trial"]).all()
    kept = b.index.union(a.index.intersection(b.index), sort=False)
    assert kept.equals(b.index), "what lacks nothing stays in the order of recording"


@pytest.mark.slow
@pytest.mark.parametrize("objective, named", [("mmvm:alpha=0.1", "MMVM, alpha=0.1"), ("independent", "Independent")])
def test_papermill_runs_the_page_with_other_methods_which_its_tables_name(objective, named, tmp_path):
    import papermill

    page = jupytext.read(TWIN, fmt="md:myst")
    page.metadata = nbformat.from_dict({"kernelspec": {"name": "python3", "display_name": "Python 3",
                                                       "language": "python"}})
    nbformat.write(page, tmp_path / "page.ipynb")
    run = papermill.execute_notebook(str(tmp_path / "page.ipynb"), str(tmp_path / "x.ipynb"), cwd=ROOT / "book",
                                     parameters={"objective": objective, "epochs": 2, "latent_dim": 4},
                                     progress_bar=False)
    said = {cell.source: "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "")
                                 for output in cell.outputs) for cell in run.cells if cell.cell_type == "code"}
    boards = [text for source, text in said.items() if source.startswith(("board =", "raw =", 'print("cells'))]
    assert len(boards) == 3 and all(f"\n{named}" in text for text in boards)
    assert not any(re.search(r"^MMVM\b(?!, alpha)", text, re.MULTILINE) for text in boards)
    assert any("with these parameters it does not hold that" in text for text in said.values())
