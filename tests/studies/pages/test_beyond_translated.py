"""Translated digits of the page `beyond`: its methods beside the grid's, each at the beta of its best probe."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from studies.pages import beyond_translated


@pytest.fixture
def found(run_of, monkeypatch) -> pd.DataFrame:
    tables = {"polymnist_grid_beyond": [*run_of("a", "mmvm:prior=geometric", 0.5),
                                        *run_of("b", "mmvm:prior=geometric", 0.7, beta=0.25),
                                        *run_of("c", "mvae", 0.4)],
              "polymnist_grid": [*run_of("d", "mmvm", 0.6), *run_of("e", "moe", 0.9)]}
    monkeypatch.setattr(beyond_translated.results, "read", lambda name: pd.DataFrame(tables[name]))
    return beyond_translated.board()


def test_the_board_has_the_pages_methods_and_those_beside_them_only(found):
    assert found.index.tolist() == [("mmvm:prior=geometric", 0.25), ("mmvm", 1.0), ("mmvm:prior=geometric", 1.0),
                                    ("mvae", 1.0)]
    assert beyond_translated.best(found).index.tolist() == [("mmvm:prior=geometric", 0.25), ("mmvm", 1.0),
                                                            ("mvae", 1.0)]


def test_the_table_names_methods(found):
    shown = beyond_translated.table(beyond_translated.best(found))
    assert shown.index.tolist() == [("MMVM, geometric prior", "1/4"), ("MMVM", "1"), ("MVAE", "1")]
    assert shown["probe"].tolist() == ["0.70", "0.60", "0.40"]


def test_the_figure_has_a_line_a_method_over_beta_in_both_panels(found):
    fig = beyond_translated.against_error(found, {"probe": 0.3, "cross": 0.1})
    for ax, level in zip(fig.axes, (0.3, 0.1)):
        lines = [line for line in ax.lines if line.get_linestyle() != "None"]
        assert len(lines) == 4 and set(lines[-1].get_ydata()) == {level}
    assert fig.axes[0].lines[0].get_ydata().tolist() == [0.7, 0.5]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["MMVM, geometric prior", "MVAE", "MMVM"]
    plt.close(fig)
