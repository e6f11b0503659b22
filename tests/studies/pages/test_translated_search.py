"""The search on translated digits: which run is the best, its line drawn on, what its modalities know and show."""

import numpy as np
import pandas as pd
import pytest

from mmvm.study import results
from studies.pages import translated_search as search

UPDATES = (1_000, 10_000)


def run_of(name: str, note: str, probes, method: str = "mmvm", beta: float = 1.0) -> list[dict]:
    """Rows of a run whose probe, mean over two modalities, is `probes` at `UPDATES`."""
    base = {"run": name, "note": note, "method": method, "beta": beta, "updates": UPDATES[-1], "source": "",
            "target": ""}
    rows = [{**base, "metric": "probe_curve", "source": str(at), "target": target, "value": value + move}
            for at, value in zip(UPDATES, probes) for target, move in (("m0", 0.1), ("m1", -0.1))]
    rows += [{**base, "metric": "probe", "target": target, "value": probes[-1] + move}
             for target, move in (("m0", 0.1), ("m1", -0.1), ("mean", 0.0))]
    rows += [{**base, "metric": "coherence", "source": s, "target": t, "value": value} for s, t, value in (
        ("m0", "m0", 0.6), ("m0", "m1", 0.1), ("m1", "m0", 0.2), ("m1", "m1", 0.15))]
    return [*rows, {**base, "metric": "coherence", "target": "cross", "value": 0.15},
            {**base, "metric": "reconstruction", "target": "sum", "value": 3400.0},
            {**base, "metric": "reconstruction", "target": "sum", "value": 3400.0, "note": f"{note}; n=5000"}]


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame([*run_of("a", "latent_dim=128;optimizer=adam:beta_updates=5", (0.3, 0.5)),
                         *run_of("b", "latent_dim=64", (0.4, 0.6)), *run_of("c", "the profile", (0.5, 0.4)),
                         *run_of("d", "latent_dim=64", (0.9, 0.9), method="independent"),
                         *run_of("e", "latent_dim=64", (0.3, 0.35), beta=0.25)])


def test_runs_are_those_of_mmvm_the_best_first_with_the_size_of_their_latents(rows):
    board = search.runs(rows)
    assert board.index.tolist() == ["b", "a", "c", "e"] and board["latent_dim"].tolist() == [64, 128, 512, 64]
    assert board["cross"].tolist() == [0.15] * 4 and board["error"].tolist() == [3400.0] * 4
    assert board.loc["b", "note"] == "latent_dim=64", "the plain one, not that of a measurement"


def test_a_line_is_drawn_on_over_the_logarithm_of_updates(rows):
    line = search.curve(rows, "b")
    assert line.index.tolist() == list(UPDATES) and line.tolist() == pytest.approx([0.4, 0.6])
    assert search.per_decade(line) == pytest.approx((0.2, -0.2))
    assert search.updates_to(line, 0.8) == pytest.approx(1e5)
    assert search.updates_to(search.curve(rows, "c"), 0.8) == np.inf, "it falls"


def test_what_modalities_know_and_show(rows):
    found = search.by_modality(rows, "b")
    assert found.loc["m0"].tolist() == pytest.approx([0.7, 0.6, 0.2])
    assert found.loc["m1"].tolist() == pytest.approx([0.5, 0.15, 0.1])


def test_the_figure_draws_every_run(rows):
    figure = search.figure(rows, 0.95, less=0.25, chance=0.1)
    left, middle, right = figure.axes
    dashed = [line.get_linestyle() for line in left.get_lines()[:4]]
    assert dashed == ["-", "--", "-", "-"] and [line.get_marker() for line in left.get_lines()[:4]][3] == "."
    assert len(middle.patches) == len(right.patches) == 2 * 3


def test_the_floor_of_each_size_is_the_mean_over_untrained_encoders(rows):
    base = {"method": search.UNTRAINED, "beta": 1.0, "updates": 0}
    bare = pd.DataFrame([{**base, "run": name, "note": f"latent_dim={size}", "metric": metric, "source": source,
                          "target": target, "value": seen - less}
                         for name, size, value in (("u", 64, 0.2), ("v", 64, 0.4), ("w", 128, 0.5))
                         for metric, source, less in (("probe", "", 0.0), ("probe_curve", "0", 0.1))
                         for target, seen in (("m0", value + 0.1), ("m1", value - 0.1), ("mean", 9.0))])
    both = pd.concat([rows, bare], ignore_index=True)
    assert search.floors(both).to_dict() == pytest.approx({64: 0.3, 128: 0.5}) and search.floors(rows).empty
    assert search.floors(both, "probe_curve").to_dict() == pytest.approx({64: 0.2, 128: 0.4})
    assert search.runs(both).equals(search.runs(rows))
    axes = [search.figure(found, 0.95, less=0.25, chance=0.1).axes[0] for found in (both, rows)]
    assert len(axes[0].get_lines()) == len(axes[1].get_lines()) + 2


def test_the_same_run_at_another_beta_or_with_one_that_rises(rows):
    rising = run_of("f", "latent_dim=64;optimizer=adam:decay=cosine,beta_updates=5", (0.4, 0.45), beta=4.0)
    board = search.runs(pd.concat([rows, pd.DataFrame(rising)], ignore_index=True))
    assert search.same_but(board, "b", 0.25) == "e" and search.same_but(board, "b", 1.0) == "b"
    assert search.same_but(board, "b", 4.0, warm=5) == "f"
    for beta, warm in ((4.0, 0), (4.0, 6), (1.0, 5)):
        with pytest.raises(ValueError, match="size 1"):
            search.same_but(board, "b", beta, warm)


def test_the_committed_rows_have_a_best_run_with_a_curve():
    rows = results.read("polymnist_search")
    board = search.runs(rows)
    assert set(board["latent_dim"]) <= set(search.SIZE_COLOURS)
    assert all(len(search.curve(rows, run)) > 2 for run in board.index)
    assert search.by_modality(rows, board.index[0]).notna().all().all()
