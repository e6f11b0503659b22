"""Learning rates on the pages: read from notes, chosen on validation samples of the first seed, drawn a line each."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from studies.pages import learning_rates as rates


def row(method: str, rate: float | None, beta: float, value: float, metric: str = "probe", seed: int = 0) -> dict:
    note = "" if rate is None else f"learning_rate={rate:g}; 95th percentile"
    return {"method": method, "beta": beta, "metric": metric, "seed": seed, "target": "mean", "source": "",
            "value": value, "note": note}


@pytest.fixture
def rows() -> pd.DataFrame:
    lines = [row("mmvm", None, 1, 0.3), row("mmvm", 2e-3, 1, 0.6), row("mmvm", 2e-3, 1, 0.4, seed=1),
             row("mmvm", 2e-3, 4, 0.9), row("moe", None, 1, 0.7), row("moe", 2e-3, 1, 0.8)]
    judged = [{**line, "metric": "validation_probe", "value": value} for line, value in zip(
        lines, (0.2, 0.5, 0.99, 0.4, 0.9, 0.1), strict=True)]
    return rates.with_rates(pd.DataFrame([*lines, *judged]), usual=5e-3)


def test_a_note_says_the_rate_and_none_is_the_profiles(rows):
    assert rows["rate"].tolist()[:6] == [5e-3, 2e-3, 2e-3, 2e-3, 5e-3, 2e-3]
    assert rates.with_rates(pd.DataFrame({"note": [float("nan"), "n=3;learning_rate=0.0003125"]}),
                            1.0)["rate"].tolist() == [1.0, 0.0003125]


def test_validation_samples_of_the_first_seed_choose_rate_and_beta(rows):
    picked = rates.chosen(rows, "probe").set_index("method")
    assert picked.loc["mmvm", ["rate", "beta", "validated"]].tolist() == [2e-3, 1, 0.5]  # not the .99 of seed 1
    assert picked.loc["moe", ["rate", "beta"]].tolist() == [5e-3, 1]  # not the better score on test samples
    table = rates.at_chosen(rows, picked.reset_index(), "probe")
    assert table.loc["mmvm"].tolist() == [0.6, 0.4] and table.loc["moe", 0] == 0.7 and table.loc["moe"].isna()[1]


def test_methods_choose_among_as_many_pairs_as_the_first_seed_was_run_at(rows):
    assert rates.candidates(rows).to_dict() == {"mmvm": 3, "moe": 2}
    assert rates.candidates(rows[rows["seed"] == 1]).to_dict() == {"mmvm": 1}


def test_rats_with_other_latents_are_not_compared_with_the_others(monkeypatch):
    lines = [{**row("mmvm", 2e-3, 1, 0.6), "experiment": "hippocampus", "profile": "long"} for _ in range(2)]
    lines[1]["note"] = "learning_rate=0.002;latent_dim=4; trained again"
    monkeypatch.setattr(rates.results, "read", lambda name: pd.DataFrame(lines[:1] if "long" in name else lines[1:]))
    assert rates.rats()["note"].tolist() == [lines[0]["note"]] and rates.rats(4)["note"].tolist() == [lines[1]["note"]]
    assert rates.rats(4)["rate"].tolist() == [2e-3] and rates.rats(8).empty


def test_rats_at_best_are_three_folds_at_what_validation_windows_choose():
    found, rows = rates.rats_at_best(), rates.rats()
    one = found.loc["mmvm"]
    own = rows[(rows["method"] == "mmvm") & (rows["rate"] == one["rate"]) & (rows["beta"] == one["beta"])
               & (rows["metric"] == "probe_shared") & (rows["target"] == "mean")]["value"]
    assert len(own) == 3 and one["probe_shared"] == pytest.approx(own.mean())
    assert one["tried"] == rates.candidates(rows)["mmvm"] and found.notna().all(axis=None)


def test_one_score_or_the_sum_of_several_chooses(rows):
    other = rows[rows["metric"] == "validation_probe"].assign(metric="validation_own")
    other["value"] = 1 - 2 * other["value"]  # what shares least keeps most
    judged = pd.concat([rows, other])
    picked = rates.chosen(judged, ["probe", "own"]).set_index("method")
    assert picked.loc["mmvm", ["rate", "beta"]].tolist() == [5e-3, 1] and picked.loc["moe", "rate"] == 2e-3
    assert picked.loc["mmvm", "validated"] == pytest.approx(0.2 + 0.6)


def test_boards_stand_side_by_side_with_the_highest_sum_first():
    board = pd.DataFrame({"rate": 1.0, "beta": [0.5, 4], "tried": [2, 3], "probe_shared": [0.5, 0.6],
                          "probe_shared sd": [0.01, None], "state_recovery": [0.1, 0.3],
                          "state_recovery sd": [0.02, None]},
                         index=["mmvm", "moe"])
    shown = rates.both_table({"two": board, "four": board})
    assert list(shown.index) == ["MoE", "MMVM"] and shown.loc["MMVM", ("two", "shared probe")] == "0.50 ± 0.01"
    assert shown.loc["MoE", ("four", "own state's R²")] == "0.30" and shown.loc["MMVM", ("four", "β")] == "0.5"


def test_the_frontier_is_what_no_other_exceeds_in_both():
    lines = pd.DataFrame({"x": [1.0, 2, 2, 3, 0], "y": [3.0, 2, 1, 1, 3]}, index=list("abcde"))
    assert rates.frontier(lines, "x", "y").index.tolist() == ["a", "b", "d"]


def test_two_scores_against_each_other_have_a_name_per_method_and_hollow_marks_for_one_seed(rows):
    lines = rates.board(rows, ["probe", "validation_probe"])
    fig = rates.both({"two": lines, "four": lines.drop("moe")}, {"probe": "x", "validation_probe": "y"}, 0.1)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["two", "four"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["MMVM", "MoE"]
    marks = [line for line in fig.axes[0].lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    hollow = [len(line.get_xdata()) for line in marks if line.get_markerfacecolor() == "white"]
    assert sorted(hollow) == [2, 2] and [len(line.get_xdata()) for line in marks].count(1) == 1
    plt.close(fig)


def test_a_board_is_means_and_spreads_over_seeds(rows):
    line = rates.board(rows, ["probe"]).loc[("mmvm", 2e-3, 1)]
    assert line["probe"] == pytest.approx(0.5) and line["probe sd"] == pytest.approx(0.02**0.5) and line["seeds"] == 2


@pytest.mark.parametrize("of, study", [(rates.rats, None), (rates.mice, None), (rates.laptop, "mimic-cxr"),
                                       (rates.laptop, "cub")])
def test_committed_runs_are_one_at_each_point(of, study):
    rows = of(study) if study else of()
    points = rows.drop_duplicates("run").groupby(["method", "rate", "beta", "seed"]).size()
    assert len(points) > 20 and points.max() == 1


def test_of_laptop_runs_only_what_has_another_rate_is_shown():
    rows = rates.with_rates(pd.DataFrame([row("mmvm", None, 1, 0.3), row("mmvm", 5e-4, 1, 0.6),
                                          row("moe", None, 1, 0.7), row("moe", 5e-4, 4, 0.8)]), rates.LAPTOPS_USUAL)
    table = rates.tried(rates.board(rows, ["probe"]), {"probe": "score"})
    assert sorted(table.index) == [("mmvm", 1), ("moe", 4)] and table.loc[("mmvm", 1)].tolist() == [0.6, 0.3]
    assert table.columns.tolist() == [("score", 5e-4), ("score", 2e-3)]


def test_the_figure_has_a_line_per_rate_and_one_for_each_other_method(rows):
    fig = rates.figure(rates.board(rows, ["probe"]), {"probe": "probe"}, {"probe": 0.1}, ("moe",), usual=5e-3)
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert sorted(labels) == ["MMVM, 0.002", "MMVM, 0.005", "MoE, 0.005"]
    plt.close(fig)
