"""studies.pages.digits: the same runs once, with all their seeds."""

import pandas as pd

from mmvm.study import results
from studies.pages import digits


def test_laptop_runs_in_place_have_their_seeds_once():
    rows = digits.in_place()
    probes = rows[(rows["metric"] == "probe") & (rows["target"] == "mean") & (rows["source"] == "")]
    assert not probes.duplicated(["method", "beta", "seed"]).any()
    at_one = probes[(probes["beta"] == 1) & (probes["method"] == "moe")].set_index("seed")["value"]
    written = results.read("polymnist")
    written = written[(written["profile"] == "laptop") & (written["metric"] == "probe") & (written["target"] == "mean")]
    first = written[(written["method"] == "moe") & (written["beta"] == 1)]
    assert sorted(at_one.index) == [0, 1, 2] and first["seed"].tolist() == [0]
    assert at_one[0] == first["value"].item()
    assert set(rows["profile"]) == {"laptop"} and set(digits.in_place("translated")["profile"]) == {"translated"}


def test_other_nets_have_a_line_a_run_and_the_highest_probe_first():
    lines = digits.other_nets()
    assert set(lines.index.get_level_values("net")) == set(digits.NETS.values()) and lines.index.is_unique
    for _, own in lines.groupby(level=["net", "updates"]):
        assert own["probe"].is_monotonic_decreasing


def test_bars_of_a_lost_run_are_left_out():
    board = pd.DataFrame({"method": ["moe", "poe", "mmvm"], "probe": [0.8, 0.9, 0.9], "probe sd": [0.2, 0.01, None],
                          "own_error sd": [9.0, 3.0, None]})
    found = digits.without_lost(board)
    assert found["probe sd"].isna().tolist() == found["own_error sd"].isna().tolist() == [True, False, True]
    assert found["probe"].tolist() == [0.8, 0.9, 0.9]
