"""The birds of the page `beyond`: pools by the same rule as the chapter's methods, beside them."""

import pandas as pd
import pytest

from mmvm.study import results
from studies.pages import beyond_birds


@pytest.fixture(scope="module")
def birds() -> pd.DataFrame:
    return beyond_birds.rows()


def test_every_method_is_shown_at_the_beta_that_validation_birds_choose(birds):
    found = beyond_birds.board(birds)
    assert found.index.tolist() == ["mmvm", *beyond_birds.POOLS, "moe", "independent"]
    first = results.validated("cub")
    first = first[(first["metric"] == "validation_coherence") & (first["target"] == "mean")]
    for method, beta in found["beta"].items():
        own = first[first["method"] == method].set_index("beta")["value"]
        assert own.idxmax() == beta and len(own) == 5, method


def test_the_numbers_are_means_over_the_seeds(birds):
    found = beyond_birds.board(birds)
    own = birds[(birds["method"] == "hellinger") & (birds["metric"] == "coherence") & (birds["target"] == "cross")]
    assert len(own) == found.loc["hellinger", "seeds"] == 3
    assert own["value"].mean() == pytest.approx(found.loc["hellinger", "coherence"])
    assert own["value"].std() == pytest.approx(found.loc["hellinger", "coherence sd"])


def test_a_seed_is_lost_where_the_image_tells_no_more_than_chance(birds):
    assert beyond_birds.lost_seeds(birds)["mmvm"] == [2], "as the chapter says of MMVM"
    prior = birds["method"] == "mmvm:prior=geometric"
    image = prior & (birds["metric"] == "probe") & (birds["target"] == "image")
    values = birds["value"].mask(image, 0.7).mask(image & (birds["seed"] == 1), 0.5)
    assert beyond_birds.lost_seeds(birds.assign(value=values))["mmvm:prior=geometric"] == [1]


def test_the_table_says_what_the_board_has(birds):
    shown = beyond_birds.table(beyond_birds.board(birds)).set_index("")
    assert shown.index[3:].tolist() == ["joint: Hellinger", "joint: MoE", "independent VAEs"]
    assert (shown["seeds"] == 3).all() and shown["probe"].str.contains("±").all()
