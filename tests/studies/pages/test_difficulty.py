"""The difficulty map: a run's level is read from its note, a level's winner from its best betas."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from studies.pages import difficulty

MOVING, STANDING, PLACE = "the profile", "scale=0.5;shift=0.0; trunk=norm", "translated=false"


@pytest.fixture
def rows(run_of) -> pd.DataFrame:
    runs = [("a", "mmvm", 0.5, 1.0, MOVING), ("b", "mmvm", 0.7, 4.0, MOVING), ("c", "moe", 0.6, 1.0, MOVING),
            ("d", "mmvm", 0.3, 1.0, STANDING), ("e", "moe", 0.4, 1.0, STANDING), ("f", "moe", 0.9, 1.0, PLACE)]
    return pd.DataFrame([row for name, method, probe, beta, note in runs
                         for row in run_of(name, method, probe, beta=beta, note=note)])


@pytest.mark.parametrize("said, level", [
    ("the profile", (21, 1.0)), ("translated=false", (28, 0.0)), ("scale=0.5;shift=0.0", (14, 0.0)),
    ("shift=0.5", (21, 0.5))])
def test_a_level_is_what_sets_the_run_apart_from_the_profile(said, level):
    assert difficulty.level(said) == level


def test_a_level_has_a_line_per_method_and_beta(rows):
    found = difficulty.board(rows)
    assert found.index.names == ["size", "movement", "method", "beta"] and len(found) == 6
    assert found.loc[(14, 0.0, "mmvm", 1.0), "probe"] == pytest.approx(0.3)
    assert found.loc[(28, 0.0, "moe", 1.0), ["probe", "cross"]].tolist() == pytest.approx([0.9, 0.2])


def test_each_method_has_a_beta_of_its_own_at_every_level(rows):
    found = difficulty.best(difficulty.board(rows))
    assert found["beta"].to_dict() == {(14, 0.0, "mmvm"): 1, (14, 0.0, "moe"): 1, (21, 1.0, "mmvm"): 4,
                                       (21, 1.0, "moe"): 1, (28, 0.0, "moe"): 1}
    ahead = difficulty.leads(found)
    assert ahead["moe"].round(6).dropna().to_dict() == {(14, 0.0): -0.1, (21, 1.0): 0.1}


def test_the_figure_has_a_panel_per_metric_and_way_to_make_digits_harder(rows):
    fig = difficulty.who_wins(difficulty.best(difficulty.board(rows)), {"probe": "probe", "cross": "imputed"},
                              {"cross": 0.1})
    assert len(fig.axes) == 2 * len(difficulty.COLUMNS)
    probe = fig.axes[0]
    mmvm, moe = (line.get_ydata() for line in probe.lines)
    assert np.isnan(mmvm[:2]).all() and mmvm[2] == 0.3 and moe[[0, 2]].tolist() == [0.9, 0.4]
    assert fig.axes[1].lines[0].get_ydata()[2] == 0.7
    bottom = fig.axes[len(difficulty.COLUMNS)]
    assert [text.get_text() for text in bottom.get_xticklabels()] == ["28", "21", "14"]
    assert [len(ax.lines) for ax in fig.axes[3:]] == [3, 3, 3]  # and chance
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["MMVM", "MoE"]
    plt.close(fig)
