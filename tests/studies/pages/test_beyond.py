"""The page `beyond`: tables of the rows, texts that name methods, and a live part of the model that ships."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from mmvm import paths
from mmvm.objectives import build, spec
from mmvm.options import canonical
from mmvm.study import results
from studies.pages import beyond, beyond_figures as figures

TEXTS = {text for members in beyond.FAMILY.values() for text in members.values()} | {
    *beyond.JOINT, *beyond.PEERS, "independent"}


def rows_of(method="mmvm", beta=1e-4, seed=0, study="hippocampus", **values) -> pd.DataFrame:
    """Rows of one run, metric -> value, or (target, value)."""
    lines = []
    for metric, value in values.items():
        target, value = value if isinstance(value, tuple) else ("mean", value)
        lines.append({"experiment": study, "method": method, "beta": beta, "seed": seed, "profile": "laptop",
                      "metric": metric, "source": "", "target": target, "value": value, "updates": 480,
                      "run": f"{method} {beta} {seed} {study}"})
    return pd.DataFrame(lines)


def on_rats(method, beta, seed, shared):
    return rows_of(method, beta, seed, probe_shared=shared, state_recovery=0.1, squared_error=0.28,
                   probe_transfer=("cross", shared / 2))


def test_every_text_is_a_method_of_the_list_of_runs_and_has_words():
    listed = yaml.safe_load((paths.REPOSITORY / "workflow" / "lists" / "pools.yaml").read_text())["runs"]
    asked = {run["settings"]["objective"] for run in listed if "study" not in run}
    assert TEXTS == set(beyond.POOLED) == asked
    assert all(canonical(text, "objective", spec.options_of()) == text for text in TEXTS)


@pytest.mark.parametrize("name, members", beyond.FAMILY.items())
def test_a_line_is_over_the_exponent_that_its_methods_have(name, members):
    for exponent, text in members.items():
        objective = build(text, 2, 5)
        assert objective.exponent == exponent
        if exponent:  # at 0 all of them are the geometric pool's divergence itself
            assert objective.matched == (name == "one Gaussian")
            assert objective.matched or objective.bound == name.replace("single draws", "monte_carlo")


def test_the_board_of_pools_has_one_beta_and_one_line_a_method():
    rows = pd.concat([on_rats("mmvm", 1e-4, 0, 0.4), on_rats("mmvm", 1e-4, 1, 0.5), on_rats("mmvm", 1e-2, 0, 0.9),
                      on_rats("moe", 1e-4, 0, 0.6), on_rats("avg", 1e-4, 0, 0.6),
                      on_rats("poe", 1e-4, 0, 0.6).assign(experiment="polymnist")])
    board = beyond.pools(rows, 1e-4)
    assert board.index.tolist() == ["mmvm", "moe"]
    assert board.loc["mmvm", ["probe_shared", "transfer", "seeds"]].tolist() == pytest.approx([0.45, 0.225, 2])
    assert board.loc["mmvm", "probe_shared sd"] == pytest.approx(np.std([0.4, 0.5], ddof=1))
    table = beyond.pools_table(board)
    assert table["shared probe"].tolist() == ["0.45 ± 0.07", "0.60"] and table["seeds"].tolist() == [2, 1]


def made(method, beta, seed, density, joint):
    values = {name: 0.5 for name in beyond.GENERATED} | {"joint_coherence": joint}
    return rows_of(method, beta, seed, "polymnist", **{f"{density}_{name}": value for name, value in values.items()})


def test_generated_has_a_line_for_each_density_and_no_other_rows():
    rows = pd.concat([made("mmvm", 1.0, 0, "mixture", 0.2), made("mmvm", 1.0, 1, "mixture", 0.4),
                      made("mmvm", 1.0, 0, "diffusion", 0.6), made("poe", 0.0625, 0, "mixture", 0.1),
                      rows_of("mmvm", 1.0, 0, "polymnist", probe=0.9)])
    board = beyond.generated(rows)
    assert beyond.line_names(board) == ["MMVM, β = 1: Gaussian mixture", "MMVM, β = 1: diffusion",
                                        "PoE, β = 0.0625: Gaussian mixture"]
    assert board["joint_coherence"].tolist() == pytest.approx([0.3, 0.6, 0.1]) and board["seeds"].tolist() == [2, 1, 1]
    table = beyond.generated_table(board, beyond.line_names(board))
    assert table["joint"].tolist() == ["0.30 ± 0.14", "0.60", "0.10"] and "strokes" not in table


def test_the_spread_of_strokes_is_shown_where_they_can_be_read():
    rows = [made("mmvm", beta, 0, "diffusion", 0.2) for beta in (1.0, 4.0)]
    rows += [rows_of("mmvm", beta, 0, "polymnist", diffusion_joint_spread_ink=0.5, diffusion_joint_spread_slant=0.7,
                     diffusion_readable_ink=0.9, diffusion_readable_slant=readable)
             for beta, readable in ((1.0, 0.5), (4.0, 0.1))]
    board = beyond.generated(pd.concat(rows))
    assert beyond.generated_table(board, beyond.line_names(board))["strokes"].tolist() == ["0.60", ""]


def test_leaders_are_the_best_of_their_boards_beside_mmvm():
    leaders = beyond.Leaders()
    for measure, boards in leaders.boards.items():
        for study, board in boards.items():
            assert "mmvm" in board.index and not board.index.str.contains("[:/]").any() and board.index.is_unique
            metric = leaders.own(study, measure)
            assert leaders.best(study, measure)[1] == board[metric].max()
            near = leaders.level(study, measure)
            assert near[0] == board[metric].idxmax() and len(near) < len(board)
            assert board[f"{metric} sd"].notna().all()
    assert leaders.own("hippocampus", "probe") == "probe_shared"
    assert leaders.said("coherence").count(";") == 3 and "MMVM" in leaders.said("coherence")


def test_a_leaders_beta_is_that_of_the_very_measure_on_validation_samples():
    boards = beyond.Leaders().boards
    for measure, target in (("probe", "mean"), ("coherence", "cross")):
        rows = results.validated("mimic-cxr")
        rows = rows[(rows["metric"] == f"validation_{measure}") & (rows["target"] == target) & (rows["source"] == "")
                    & (rows["method"] == "mmvm") & (rows["seed"] == 0)].set_index("beta")["value"]
        assert boards[measure]["mimic-cxr"].loc["mmvm", "beta"] == rows.idxmax()
    assert boards["probe"]["mimic-cxr"].loc["mmvm", "beta"] != boards["coherence"]["mimic-cxr"].loc["mmvm", "beta"]
    own = results.read("hippocampus_long")
    own = own[(own["metric"] == "probe_shared") & (own["method"] == "moe") & (own["target"] == "mean")]
    own = own[own["beta"] == boards["probe"]["hippocampus"].loc["moe", "beta"]]
    assert boards["probe"]["hippocampus"].loc["moe", "probe_shared"] == pytest.approx(own["value"].mean())


def test_what_hidden_laterals_cost_is_of_the_rows():
    rows = results.read("mimic-cxr")
    rows = rows[rows["profile"] == "missing"].set_index(["method", "metric", "source", "target"])["value"]
    found = beyond.hidden_laterals()
    for share in (0.25, 0.75):
        assert found.loc["mopoe", share] == rows[f"mopoe/lateral_missing={share}", "imputation", "", "cross"]
    assert set(found.index) == {"mmvm", "mopoe", "poe", "independent"}


def test_methods_that_are_level_are_named_together():
    class Some(beyond.Leaders):
        boards = {"coherence": {study: pd.DataFrame(
            {"coherence": [0.5, 0.6, 0.59], "coherence sd": [0.01, np.nan, 0.02], "seeds": [3, 1, 3]},
            index=["mmvm", "poe", "moe"]) for study in beyond.Leaders.STUDIES}}
    assert Some().level("cub", "coherence") == ["poe", "moe"]
    assert Some().said("coherence").startswith("digits PoE*, MoE 0.60 (MMVM 0.50); birds")


def test_the_consensus_is_the_best_unbiased_guess():
    """Among weights with sum 1 none has a smaller variance under the experts' covariance; independent: the product."""
    sd, rho = np.array([0.5, 1.5, 0.9]), 0.4
    covariance = np.outer(sd, sd) * (rho + (1 - rho) * np.eye(3))
    _, deviation, weights = beyond.consensus([0.0, 0.0, 0.0], sd, rho)
    assert weights.sum() == pytest.approx(1) and weights @ covariance @ weights == pytest.approx(deviation**2)
    moves = np.random.default_rng(0).normal(size=(200, 3))
    others = weights + moves - moves.mean(1, keepdims=True)
    assert (np.einsum("km,mn,kn->k", others, covariance, others) >= deviation**2).all()
    mean, deviation, _ = beyond.consensus([-1.0, 2.0], [0.5, 1.0], 0.0)
    assert (mean, deviation) == pytest.approx(((-1 * 4 + 2) / 5, 5**-0.5))


def test_the_sheets_have_a_picture_for_every_draw():
    pictures = {"a": torch.rand(4, 3, 28, 28), "b": torch.rand(4, 3, 28, 28)}
    figure = figures.sheets({"one": pictures, "two": pictures})
    assert len(figure.axes) == 16 and [text.get_text() for text in figure.texts] == ["one", "two"]
    boxes = [ax.get_position() for ax in figure.axes]
    assert all(0 <= box.x0 < box.x1 <= 1.001 and -0.001 <= box.y0 < box.y1 <= 1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_figure_over_the_exponent_draws_what_has_run():
    rows = pd.concat([on_rats(text, 1e-4, 0, 0.3 + 0.01 * i) for i, text in enumerate(sorted(TEXTS))])
    figure = figures.over_exponent(beyond.pools(rows, 1e-4), 0.3)
    assert len(figure.axes) == 4
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert len(labels) == len(beyond.FAMILY) + len(beyond.JOINT) + 1  # independent VAEs, a line
    line = next(line for line in figure.axes[0].get_lines() if line.get_color() == figures.STYLES["pairwise"][0])
    assert line.get_xdata().tolist() == [0.0, 0.5, 1.0]
    some = figures.over_exponent(beyond.pools(rows[rows["method"].isin(("mmvm", "poe"))], 1e-4), 0.3)
    assert some.axes[0].get_legend_handles_labels()[1] == ["prior: pairwise", "joint: PoE"]


def test_the_frontier_has_every_method_at_every_beta_and_a_group():
    rows = pd.concat([on_rats(text, beta, 0, 0.3) for text in sorted(TEXTS) for beta in (1e-5, 1e-4)])
    board = beyond.frontier(rows)
    assert len(board) == 2 * len(TEXTS) and board["group"].notna().all()
    assert set(board["group"]) == set(beyond.GROUPS) == set(figures.PULLS) == set(figures.PULL_NAMES)
    figure = figures.frontier(board, 0.3)
    assert len(figure.legends[0].get_texts()) == 4 + 2


def test_own_probes_have_a_spread_where_there_are_seeds():
    rows = pd.concat([rows_of(text, beta, seed, probe=0.4 + 0.1 * seed, probe_chance=0.3)
                      for text in (*beyond.GROWING, "independent") for beta, seed in ((1e-4, 0), (1e-4, 1), (1e-2, 0))])
    table = beyond.own_probes(rows)
    assert table.loc[beyond.POOLED["mmvm"]].tolist() == ["0.45 ± 0.07", "0.40"]
    assert table.loc["permuted trials"].tolist() == ["0.30", "0.30"] and table.columns[0] == "β = 0.0001"


def test_a_sheet_has_ten_rows_of_ten():
    pictures = torch.zeros(100, 3, 4, 4)
    pictures[37] = 1  # fourth row, eighth picture
    figure = figures.sheets_of_100({"one": pictures, "two": pictures, "three": pictures})
    drawn = figure.axes[0].get_images()[0].get_array()
    assert drawn.shape == (40, 40, 3) and drawn[12:16, 28:32].min() == 1 and drawn.sum() == 3 * 16
    assert [ax.get_title(loc="left") for ax in figure.axes[:3]] == ["one", "two", "three"]


@pytest.fixture(scope="module")
def live():
    return beyond.Live(n_train=300, updates=3)


@pytest.mark.slow
def test_the_live_part_is_of_the_model_that_ships_and_leaves_the_random_state_alone(live):
    live.densities, live.test  # noqa: B018  (made when first asked for)
    state = torch.get_rng_state()
    for name in beyond.SAMPLED:
        drawn = live.joint(name, 4)
        assert list(drawn) == ["m0", "m1", "m2"] and {tuple(x.shape) for x in drawn.values()} == {(4, 3, 28, 28)}
        assert all(torch.equal(drawn[m], x) for m, x in live.joint(name, 4).items())
    held = live.held("m0", 5, "diffusion", 3)
    assert not torch.equal(held["m1"][0], held["m1"][1]), "nine draws, not one"
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.slow
def test_own_latents_are_draws_of_the_test_tuples_posteriors(live):
    own = live.densities["own"][1]
    with torch.no_grad():
        q = live.models["mmvm"].encode([x[:50] for x in live.test.modalities.values()])
        away = (own.sample(50) - q.mean) / q.std
    assert away.shape == q.mean.shape and abs(float(away.mean())) < 0.1
    assert float(away.std()) == pytest.approx(1, abs=0.1)
