"""The board of the methods on translated digits: what it averages, its order, and what the page shows of it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mmvm import UserError
from studies.pages import translated as grid
from studies.pages.intervals import half_of_students
from studies.pages.parameters import Translated


def test_a_board_is_means_over_seeds_with_the_highest_probe_first(run_of):
    rows = pd.DataFrame([*run_of("a", "mmvm", 0.5), *run_of("b", "mmvm", 0.7, seed=1), *run_of("c", "moe", 0.9),
                         *run_of("d", "mmvm", 0.3, beta=4.0)])
    found = grid.board(rows)
    assert list(found.index) == [("moe", 1.0), ("mmvm", 1.0), ("mmvm", 4.0)] and found["seeds"].tolist() == [1, 2, 1]
    line = found.loc[("mmvm", 1.0)]
    assert line["probe"] == pytest.approx(0.6) and line["m2"] == pytest.approx(0.5)
    assert line["own error"] == 300 and line["training's error"] == 400  # three modalities from their own latents
    assert line[["self", "cross", "nats", "imputation"]].tolist() == [0.8, 0.2, 12.34, 900.0]


def test_spread_is_over_seeds_and_leads_are_paired(run_of):
    rows = pd.DataFrame([*run_of("a", "mmvm", 0.5), *run_of("b", "mmvm", 0.7, seed=1), *run_of("c", "moe", 0.6),
                         *run_of("d", "moe", 0.9, seed=1), *run_of("e", "moe", 0.1, seed=2), *run_of("f", "avg", 0.9)])
    found = grid.spread(rows, ("mmvm", 1.0))
    assert list(found.index) == [("mmvm", 1.0), ("moe", 1.0)] and found["seeds"].tolist() == [2, 3]
    line = found.loc[("moe", 1.0)]
    assert line["probe sd"] == pytest.approx(np.std([0.6, 0.9, 0.1], ddof=1))
    assert line["probe lead"] == pytest.approx(0.15)  # of the two seeds that both have
    assert line["probe half"] == pytest.approx(half_of_students([0.1, 0.2])) and line["own error lead"] == 0
    assert np.isnan(found.loc[("mmvm", 1.0), ["probe lead", "probe half"]].astype(float)).all()
    shown = grid.spread_table(found)
    assert shown.loc[("MoE", "1"), "probe's lead"].startswith("+0.150 ±") and shown.iloc[0]["probe's lead"] == ""
    assert shown.loc[("MMVM", "1"), ["probe", "own error", "seeds"]].tolist() == ["0.600 ± 0.141", "300 ± 0", 2]


def test_the_table_names_methods_and_rounds(run_of):
    shown = grid.table(grid.board(pd.DataFrame(run_of("a", "mmvm", 0.5))))
    assert shown.loc[("MMVM", "1"), ["probe", "m0", "nats", "own error", "imputed"]].tolist() == [
        "0.50", "0.60", "12.3", "300", "0.20"]


def test_the_figure_has_a_line_per_method_through_its_betas_and_the_papers_beside_it(run_of):
    rows = pd.DataFrame([*run_of("a", "mmvm", 0.5), *run_of("b", "mmvm", 0.7, beta=4.0), *run_of("c", "moe", 0.9),
                         *run_of("d", "moe", 0.9, seed=1), *run_of("e", "mmvm", 0.5, seed=1)])
    paper = pd.DataFrame({"method": ["mmvm", "mmvm", "poe"], "beta": [0.5, 1.0, 1.0], "reconstruction": [5.0, 6, 7],
                          "probe": [0.8, 0.9, 0.2]})
    fig = grid.against_error(grid.board(rows), {"probe": 0.4, "self": 0.1}, grid.spread(rows, ("mmvm", 1.0)), paper)
    here, there, own = fig.axes
    lines = [list(line.get_ydata()) for line in here.lines if line.get_linestyle() != "None"]
    assert lines == [[0.5, 0.7], [0.9], [0.4, 0.4]]
    assert [bars.lines[0].get_ydata().item() for bars in here.containers] == [0.9, 0.5]  # the lines with two seeds
    assert [list(line.get_ydata()) for line in there.lines] == [[0.8, 0.9], [0.2]]
    assert [[text.get_text() for text in ax.texts] for ax in (own, there)] == [["1", "4"], ["1"]]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["MMVM", "PoE", "MoE"]
    plt.close(fig)


def test_chance_is_the_commonest_digit_of_the_validation_tuples():
    assert 0.1 < grid.chance() < 0.12  # MNIST's digits are not equally many


def test_probes_are_left_tuples_to_be_tested_on():
    assert Translated(n_fitted=4_900).n_fitted == 4_900
    with pytest.raises(UserError, match="leave 100 or more"):
        Translated(n_fitted=5_000)


def test_longer_runs_stand_beside_the_short_ones_of_their_seeds(run_of):
    def curve(rows: list[dict], values: list[float]) -> list[dict]:
        looks = [{**rows[0], "metric": metric, "target": target, "source": str(at + 1), "value": value}
                 for metric in ("probe_curve", "reconstruction_curve") for target in ("m0", "m1")
                 for at, value in enumerate(values)]
        return [*(row for row in rows if row["metric"] != "probe_curve"), *looks]

    short = pd.DataFrame([*curve(run_of("a", "mmvm", 0.5), [0.4, 0.5]),
                          *curve(run_of("b", "mmvm", 0.1, seed=1), [0, 0]),
                          *curve(run_of("c", "moe", 0.9), [0.8, 0.9])])
    long = pd.DataFrame(curve(run_of("d", "mmvm", 0.7), [0.5, 0.6, 0.7])).assign(updates=50)
    found = grid.lengths(short, long)
    assert found["probe"].to_dict() == pytest.approx({("mmvm", 1.0, 10): 0.5, ("mmvm", 1.0, 50): 0.7})
    fig = grid.over_updates(short, long, 0.3)
    assert [line.get_ydata().tolist() for line in fig.axes[0].lines[:2]] == [pytest.approx([0.4, 0.5]),
                                                                            pytest.approx([0.5, 0.6, 0.7])]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["MMVM"]
    plt.close(fig)
