"""Result files: what is written is read, nothing is lost or doubled, and a spoilt file is named with its line."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from mmvm.errors import UserError
from mmvm.objectives import spec
from mmvm.options import canonical
from mmvm.study import results
from mmvm.training import PREFIX

ROW = {"experiment": "polymnist", "method": "mmvm", "beta": 0.25, "seed": 0, "profile": "smoke", "metric": "probe",
       "source": "", "target": "mean", "value": 0.5, "n_train": 100, "epochs": 2, "updates": 20, "device": "cpu",
       "seconds": 1.5, "torch": "2.14.1", "commit": "0123456789", "date": "2026-01-31", "run": "a0b1c2d3e4",
       "data": "3f2a91bc04", "note": ""}
METRICS = {"probe", "reconstruction", "coherence", "imputation", "classifier_distance", "classifier_accuracy",
           "effective_beta", "latent_information", "log_likelihood", "fid", "probe_curve", "reconstruction_curve",
           "gate_entropy", "gate_margin", "gate_weight", "gate_first", "gate_most_used"}
FACTORS = {f"factor_{name}_{probe}" for name in (
    "digit", "ink", "slant", "crop_y", "crop_x", "y", "x",        # of pictures
    "odor", "position", "time", "state_1", "state_2")             # of rats
    for probe in ("linear", "nonlinear")}  # of `mmvm.evaluation.kept`, as are
KEPT = {"information", "information_upper", "aggregate_kl", "information_shared", "information_private",
        "total_correlation", *FACTORS}
SHARES = {"probe", "coherence", "classifier_accuracy", "probe_curve", "gate_weight", "gate_first", "gate_most_used",
          "probe_transfer", "latent_correlation", "probe_clean", "coherence_clean", "gate_first_lies",
          *(f"factor_{name}_{probe}" for name in ("digit", "odor", "position") for probe in ("linear", "nonlinear"))}


def row(**changes):
    return {**ROW, **changes}


@pytest.fixture(autouse=True)
def _runs_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVM_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.csv"


# append and read

def test_what_is_appended_is_read(path):
    rows = [row(), row(target="m0", value=1 / 3, beta=4.0, note="draws=8; n=3"),
            row(source="m1", target="m0", value=-954)]
    returned = results.append(rows, path)
    table = results.read(path)
    pd.testing.assert_frame_equal(table, returned, rtol=1e-5)
    assert list(table.columns) == list(results.COLUMNS) and len(table) == 3
    assert table.to_dict("records")[0] == row()
    third = table[table["target"] == "m0"].set_index("source").loc[""]
    assert third["value"] == pytest.approx(1 / 3, rel=1e-5) and third["note"] == "draws=8; n=3"
    assert [table[name].dtype.kind for name in ("beta", "seed", "value", "epochs")] == ["f", "i", "f", "i"]


def test_append_makes_the_folder_and_keeps_what_is_there(tmp_path):
    path = tmp_path / "a" / "b" / "x.csv"
    results.append([row()], path)
    table = results.append(pd.DataFrame([row(run="ffffffffff", seed=1)]), path)
    assert list(table["run"]) == ["a0b1c2d3e4", "ffffffffff"]
    assert sorted(p.name for p in path.parent.iterdir()) == ["x.csv"], "no temporary and no lock beside it"


def test_rows_of_the_same_run_and_metric_are_replaced(path):
    results.append([row(), row(target="m0"), row(metric="coherence", value=0.1)], path)
    table = results.append([row(value=0.7, date="2026-02-01", seconds=9.0), row(target="m0", value=0.6)], path)
    assert len(table) == 3
    values = table.set_index(["metric", "target"])["value"]
    assert values["probe", "mean"] == 0.7 and values["probe", "m0"] == 0.6 and values["coherence", "mean"] == 0.1
    pd.testing.assert_frame_equal(results.append([row(value=0.7)], path), results.append([row(value=0.7)], path))


@pytest.mark.parametrize("changes", [{"run": "ffffffffff"}, {"profile": "laptop"}, {"experiment": "other"},
                                     {"metric": "coherence"}], ids=str)
def test_other_rows_are_kept(changes, path):
    results.append([row()], path)
    assert len(results.append([row(**changes, value=0.9)], path)) == 2


def test_a_metric_that_is_measured_again_leaves_nothing_of_the_first_time(path):
    """As of a label that no test sample has any more, whose number would stand beside an average without it."""
    results.append([row(), row(target="m0"), row(target="m1"), row(source="m0", target="m1"), row(run="b")], path)
    table = results.append([row(value=0.7), row(target="m0", value=0.7)], path)
    own = table[table["run"] == row()["run"]]
    assert own[["source", "target", "value"]].to_numpy().tolist() == [["", "mean", 0.7], ["", "m0", 0.7]]
    assert (table["run"] == "b").sum() == 1


def test_what_is_returned_is_what_the_file_holds(path):
    rows = [row(beta=2**-9), row(metric="coherence", beta=2**-9, value=1 / 3)]
    results.append(rows[:1], path)
    returned = results.append(rows[1:], path)
    pd.testing.assert_frame_equal(returned, results.read(path), check_exact=True)
    assert len(results.scoreboard(returned, ["probe", "coherence"])) == 1, "one beta, written at one time or two"


def test_the_file_does_not_depend_on_the_order_of_the_runs(tmp_path):
    rows = [row(run=f"{run:010d}", seed=run, target=target) for run in range(3) for target in ("mean", "m0")]
    for name, parts in (("a.csv", (rows[:2], rows[2:])), ("b.csv", (rows[2:], rows[:2]))):
        for part in parts:
            results.append(part, tmp_path / name)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_labels_stay_text(path):
    labels = {"profile": "2026", "run": "0000000012", "commit": "1234567890", "source": "30", "torch": "2.10"}
    results.append([row(**labels), row(profile="None", note="nan")], path)
    table = results.read(path).set_index("profile")
    assert table.loc["2026", list(labels)[1:]].to_dict() == {k: v for k, v in labels.items() if k != "profile"}
    assert table.loc["None", "note"] == "nan"


def test_text_with_commas_and_quotes_survives(path):
    note = 'weights "a, b"; n=3'
    results.append([row(note=note)], path)
    assert results.read(path)["note"][0] == note


@pytest.mark.parametrize("name", ["note", "data"])
def test_what_younger_columns_say_is_optional(name, path):
    without = {column: value for column, value in ROW.items() if column != name}
    results.append([without, row(target="m0", **{name: "x"}), row(target="m1", **{name: None})], path)
    assert results.read(path).set_index("target")[name].to_dict() == {"mean": "", "m0": "x", "m1": ""}


@pytest.mark.parametrize("name", ["note", "data"])
def test_files_without_a_younger_column_are_read_and_extended(name, path):
    old = [column for column in results.COLUMNS if column != name]
    path.write_text(",".join(old) + "\n" + ",".join(str(ROW[column]) for column in old) + "\n")
    assert results.read(path).to_dict("records") == [row(**{name: ""})]
    table = results.append([row(metric="coherence", target="m0", **{name: "new"})], path)
    assert table.set_index("target")[name].to_dict() == {"mean": "", "m0": "new"}


def test_provenance_is_of_this_machine_and_day():
    found = results.provenance(torch.device("cpu"))
    assert found.keys() == {"device", "torch", "commit", "date"} and found["device"] == "cpu"
    assert torch.__version__.startswith(found["torch"]) and "+" not in found["torch"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", found["date"])


APPEND = """
import os, sys
from mmvm.study import results
row, path = eval(sys.argv[1]), sys.argv[2]
for worker in range(4):
    if os.fork() == 0:
        os.environ["MMVM_RUNS"] = f"{path}-{worker}"  # as of a checkout of its own
        for i in range(6):
            results.append([{**row, "run": f"{worker}-{i}", "target": f"m{t}"} for t in range(2)], path)
        os._exit(0)
sys.exit(any(os.wait()[1] for _ in range(4)))
"""


@pytest.mark.slow
def test_processes_of_several_checkouts_that_append_at_once_lose_nothing(path):
    subprocess.run([sys.executable, "-c", APPEND, repr(ROW), str(path)], check=True)
    assert len(results.read(path)) == 4 * 6 * 2


# mistakes

@pytest.mark.parametrize("rows, message", [
    ([{name: value for name, value in ROW.items() if name != "seed"}], r"lack \['seed'\]"),
    ([row(colour="red")], r"must not have \['colour'\]"),
    ([], "result rows lack"),
    ([row(), row(source="m0", target="m1", value=float("nan"))], "the value of probe m0 m1 is no number"),
    ([row(value=float("inf"))], "the value of probe mean is no number"),
    ([row(value=None)], "the value of probe mean is no number"),
])
def test_append_refuses_incomplete_rows(rows, message, path):
    with pytest.raises(UserError, match=message):
        results.append(rows, path)
    assert not path.exists()


def lines_of(path):
    results.append([row(), row(target="m0"), row(target="m1", note="n")], path)
    return path.read_text().splitlines()


@pytest.mark.parametrize("column, value, message", [
    ("value", "nan", "value is 'nan', not a number"),
    ("value", "1e999", "value is '1e999', not a number"),
    ("value", "", "value is '', not a number"),
    ("value", "high", "value is 'high', not a number"),
    ("value", "True", "value is 'True', not a number"),
    ("beta", "0,25", "has 21 fields instead of 20"),
    ("seed", "0.5", "seed is '0.5', not a whole number"),
    ("epochs", "", "epochs is '', not a whole number"),
    ("updates", "inf", "updates is 'inf', not a whole number"),
    ("metric", "", "metric is '', not a name"),
    ("run", "", "run is '', not a name"),
    ("experiment", "", "experiment is '', not a name"),
])
def test_a_wrong_cell_is_named_with_its_line(column, value, message, path):
    lines = lines_of(path)
    cells = lines[2].split(",")
    cells[list(results.COLUMNS).index(column)] = value
    lines[2] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"^{path}, line 3:? {message}.*(delete the line|restore)"):
        results.read(path)
    with pytest.raises(UserError, match="line 3"):
        results.append([row()], path)


def test_a_line_cut_anywhere_is_named(path):
    text = "\n".join(lines_of(path)) + "\n"
    start = text.rstrip("\n").rfind("\n") + 1
    for end in range(start + 1, text.rindex(",") + 1):
        path.write_text(text[:end])
        with pytest.raises(UserError, match=rf"^{path}, line 4 has \d+ fields instead of 20: .*restore the file"):
            results.read(path)


@pytest.mark.parametrize("spoil, message", [
    (lambda lines: [], "lacks the columns experiment, method"),
    (lambda lines: lines[1:], "lacks the columns"),
    (lambda lines: [lines[0].replace("seconds,", ""), *lines[1:]], "line 2 has 20 fields instead of 19"),
    (lambda lines: [line.replace("seconds,", "").replace("1.5,", "") for line in lines], "lacks the columns seconds"),
    (lambda lines: [lines[0], lines[1], "", lines[2]], "line 3 has 0 fields"),
    (lambda lines: [lines[0], lines[1] + ",more"], "line 2 has 21 fields instead of 20"),
    (lambda lines: [lines[0], '"' + lines[1]], r"is no csv file \(unexpected end of data\)"),
    (lambda lines: ["<<<<<<< HEAD", *lines], "line 2 has 20 fields instead of 1"),
], ids=["empty", "no-header", "short-header", "column", "blank-line", "long-line", "quote", "conflict"])
def test_a_malformed_file_is_named(spoil, message, path):
    path.write_text("".join(line + "\n" for line in spoil(lines_of(path))))
    with pytest.raises(UserError, match=rf"^{path}.*{message}.*restore"):
        results.read(path)


def test_a_file_that_is_no_text_is_named(path):
    path.write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match=rf"^{path} is no csv file .*restore it"):
        results.read(path)


def test_an_unknown_name_lists_the_committed_files():
    with pytest.raises(UserError, match="there are no results .*/data/results/nothing.csv: the committed ones are "
                                        f"{', '.join(results.available())}"):
        results.read("nothing")


# tables

@pytest.fixture
def table(path):
    """Two seeds of mmvm at beta 1, one of them also shorter; one seed of independent at two betas."""
    runs = [("mmvm", 1.0, 0, 20, 0.6, 10.0), ("mmvm", 1.0, 1, 20, 0.8, 30.0), ("mmvm", 1.0, 0, 5, 0.2, 90.0),
            ("independent", 1.0, 0, 20, 0.3, 8.0), ("independent", 2.0, 0, 20, 0.4, 9.0)]
    rows = []
    for number, (method, beta, seed, updates, probe, error) in enumerate(runs):
        run = row(method=method, beta=beta, seed=seed, updates=updates, run=f"run{number}")
        rows += [{**run, "value": probe}, {**run, "target": "m0", "value": 99.0},
                 {**run, "source": "5", "metric": "probe_curve", "value": 99.0},
                 {**run, "metric": "reconstruction", "target": "sum", "value": error},
                 *({**run, "metric": "coherence", "target": target, "value": value}
                   for target, value in (("mean", probe / 2), ("cross", probe / 4), ("self", 1.0))),
                 {**run, "metric": "coherence", "source": "m0", "target": "m0", "value": 99.0}]
    return results.append(rows, path)


def test_scoreboard_averages_over_seeds_and_separates_numbers_of_updates(table):
    board = results.scoreboard(table, ["probe", "reconstruction"])
    assert list(board.columns) == ["profile", "method", "beta", "updates", "seeds", "probe", "probe sd",
                                   "reconstruction", "reconstruction sd"]
    board = board.set_index(["method", "beta", "updates"])
    assert len(board) == 4
    both = board.loc["mmvm", 1.0, 20]
    assert both["seeds"] == 2 and both["probe"] == pytest.approx(0.7) and both["reconstruction"] == 20
    assert both["probe sd"] == pytest.approx(np.std([0.6, 0.8], ddof=1))
    alone = board.loc["mmvm", 1.0, 5]
    assert alone["seeds"] == 1 and alone["probe"] == 0.2 and np.isnan(alone["probe sd"])


def test_scoreboard_counts_the_seeds_of_the_metric_with_fewest(table):
    """A mean over one seed is not shown as one of two; a metric that a line lacks counts for nothing."""
    fewer = table[(table["metric"] != "reconstruction") | (table["seed"] == 0) & (table["beta"] == 1.0)]
    board = results.scoreboard(fewer, ["probe", "reconstruction"]).set_index(["method", "beta", "updates"])
    assert board.loc["mmvm", 1.0, 20]["seeds"] == 1 and np.isnan(board.loc["mmvm", 1.0, 20]["reconstruction sd"])
    both = results.scoreboard(fewer, ["probe"]).set_index(["method", "beta", "updates"])
    assert both.loc["mmvm", 1.0, 20]["seeds"] == 2 and (board.loc["independent", 2.0, 20]["seeds"] == 1)


def test_scoreboard_of_another_average(table):
    board = results.scoreboard(table, ["coherence"], target="cross").set_index(["method", "beta", "updates"])
    assert board.loc["mmvm", 1.0, 20]["coherence"] == pytest.approx(0.7 / 4)


def test_the_own_error_is_the_smaller_of_what_a_latent_that_knows_gives():
    """A mixture trains on others' latents, a joint posterior's experts may know nothing alone; where single pairs were
    not kept, nobody knows."""
    rows = []
    for run, method, trained, alone in (("a", "moe", 30.0, (9.0, 8.0)), ("b", "poe", 20.0, (90.0, 8.0)),
                                        ("c", "mmvm", 19.0, ())):
        rows.append(row(run=run, method=method, metric="reconstruction", target="sum", value=trained))
        rows += [row(run=run, method=method, metric="imputation", source=f"m{i}", target=f"m{i}", value=value)
                 for i, value in enumerate(alone)]
        rows += [row(run=run, method=method, metric="imputation", source="m0", target="m1", value=1.0),
                 row(run=run, method=method, metric="imputation", target="self", value=2.0)]
    rows.append(row(run="a", method="moe", profile="long", metric="imputation", source="m0", target="m0", value=1.0))
    table = pd.DataFrame(rows)
    found = results.with_own_error(table)
    pd.testing.assert_frame_equal(found.iloc[:len(table)], table)
    own = found.iloc[len(table):]
    assert (own["metric"] == "own_error").all() and dict(zip(own["run"], own["value"])) == {"a": 17.0, "b": 20.0}
    assert results.scoreboard(found, ["own_error"])["own_error"].dropna().tolist() == [17.0, 20.0]


def test_a_method_without_the_metric_shows_none(table):
    table = table[(table["metric"] != "reconstruction") | (table["method"] == "mmvm")]
    board = results.scoreboard(table, ["probe", "reconstruction"]).set_index(["method", "beta", "updates"])
    assert np.isnan(board.loc["independent", 1.0, 20]["reconstruction"])


def test_per_run_has_one_line_a_run_with_averages_as_columns(table):
    wide = results.per_run(table)
    assert list(wide["run"]) == ["run3", "run4", "run0", "run2", "run1"], "by method, beta, seed"
    line = wide.set_index("run").loc["run1"]
    assert (line["probe"], line["reconstruction"], line["coherence"]) == (0.8, 30.0, 0.4)
    assert (line["coherence cross"], line["coherence self"], line["seed"], line["updates"]) == (0.2, 1.0, 1, 20)
    assert 99.0 not in wide.to_numpy()
    later = table.assign(commit=table["commit"].where((table["run"] != "run1") | (table["metric"] != "probe"), "later"))
    later = later.assign(seconds=later["seconds"].where(later["commit"] != "later", 9.0))
    again = results.per_run(later)
    assert list(again["run"]) == list(wide["run"]), "rows of a run that were measured later do not make it two"
    assert again.set_index("run").loc["run1", "probe"] == 0.8


def test_at_best_beta_chooses_by_the_lowest_seed(table):
    table = table[table["updates"] == 20]
    best = results.at_best_beta(table, ["probe", "coherence"]).set_index("method")
    assert best["beta"].to_dict() == {"independent": 2.0, "mmvm": 1.0}
    assert best.loc["mmvm", "probe"] == pytest.approx(0.7) and best.loc["mmvm", "seeds"] == 2
    shown = results.with_spread(best, "probe", 2)
    assert shown.to_dict() == {"independent": "0.40", "mmvm": "0.70 ± 0.14"}


def test_a_method_without_the_seed_that_chooses_is_named(table):
    table = table[(table["updates"] == 20) & ((table["method"] == "independent") | (table["seed"] == 1))]
    with pytest.raises(UserError, match="no run of the seed that chooses, 0: mmvm$"):
        results.at_best_beta(table, ["probe"])


def validated(table):
    """The rows with validation metrics that would choose another beta than the test rows do."""
    own = table[(table["metric"] == "probe") & (table["source"] == "")]
    return pd.concat([table, own.assign(metric="validation_probe", value=1 - own["value"])], ignore_index=True)


def test_validation_rows_choose_beta_where_all_have_them(table):
    table = table[table["updates"] == 20]
    both = validated(table)
    assert results.chooser(table) == "probe" and results.chooser(both) == "validation_probe"
    betas = [results.at_best_beta(rows, ["probe"]).set_index("method")["beta"].to_dict() for rows in (table, both)]
    assert betas[0] != betas[1] == {method: min(
        (row["value"], row["beta"]) for _, row in table[(table["metric"] == "probe") & (table["source"] == "") & (
            table["seed"] == 0) & (table["method"] == method)].iterrows())[1] for method in set(table["method"])}
    some = both.drop(both[(both["metric"] == "validation_probe") & (both["method"] == "mmvm")].index)
    assert results.chooser(some) == "probe", "one rule for all methods"
    assert results.at_best_beta(both, ["probe"]).set_index("method").loc["mmvm", "probe"] in set(
        results.scoreboard(table, ["probe"])["probe"]), "what is shown is measured on test rows"


def test_runs_of_their_own_may_choose_beta_on_validation_rows(table):
    table = table[table["updates"] == 20]
    apart = validated(table).assign(updates=10, n_train=5, run=lambda rows: "v" + rows["run"])
    best = results.at_best_beta(table, ["probe"], validated=apart[apart["seed"] == 0]).set_index("method")
    there = results.at_best_beta(validated(table), ["probe"]).set_index("method")
    assert best["beta"].to_dict() == there["beta"].to_dict() != results.at_best_beta(
        table, ["probe"]).set_index("method")["beta"].to_dict()
    assert (best["updates"] == 20).all() and best["probe"].to_dict() == there["probe"].to_dict(), "shown: the table's"
    for chose in (apart[apart["method"] != "independent"],
                  apart.assign(beta=apart["beta"].where(apart["method"] != "independent", 7.0))):
        with pytest.raises(UserError, match="no run at the beta that validation rows choose.*: independent"):
            results.at_best_beta(table, ["probe"], validated=chose)
    found = results.at_best_beta(table, ["probe"], validated=apart[apart["method"] != "mmvm"])
    assert dict(zip(found["method"], found["beta"])) == best["beta"].to_dict(), "of one beta there is nothing to choose"


def test_rows_of_another_profile_choose_nothing(table):
    table = table[table["updates"] == 20]
    own = validated(table).assign(updates=10, run=lambda rows: "v" + rows["run"])
    others = own.assign(profile="long", run="l" + own["run"],
                        value=own["value"].where(own["metric"] != "validation_probe", 1 - own["value"]))
    alone, both = (results.at_best_beta(table, ["probe"], validated=rows) for rows in (own, pd.concat([others, own])))
    pd.testing.assert_frame_equal(alone, both)
    with pytest.raises(UserError, match="no validation row is of profile smoke: make some, or leave"):
        results.at_best_beta(table, ["probe"], validated=others)


def test_rows_that_choose_are_read_by_study(tmp_path, monkeypatch):
    monkeypatch.setattr(results.paths, "results_root", lambda: tmp_path)
    assert results.validated("polymnist") is None
    results.append([row(), row(experiment="cub", run="c")], tmp_path / f"{results.VALIDATION}.csv")
    assert results.validated("cub")["run"].tolist() == ["c"] and results.validated("hippocampus") is None


def test_seeds_that_stopped_early_are_one_line_of_the_scoreboard(table):
    table = table[(table["updates"] == 20) & (table["method"] == "mmvm") & (table["beta"] == 1)]
    runs = list(dict.fromkeys(table["run"]))
    assert len(runs) == 2
    other = table.assign(updates=table["updates"].where(table["run"] == runs[0], 35))
    assert len(results.scoreboard(other, ["probe"])) == 2, "of runs of other lengths"
    best = other.drop_duplicates("run").assign(metric="best_epoch", source="", target="mean", value=3.0)
    line = results.scoreboard(pd.concat([other, best], ignore_index=True), ["probe"])
    assert line[["updates", "seeds"]].to_numpy().tolist() == [[35, 2]] and line["probe"][0] == pytest.approx(0.7)


# what is committed

COMMITTED = results.available()
MODALITIES = {"polymnist": r"m\d", "polymnist_search": r"m\d", "errata": r"m\d", "cub": "image|text",
              "hippocampus": r"[A-Z]\w+", "mimic-cxr": "frontal|lateral"}
OWN_METRICS = {"cub": {*(f"{metric}{suffix}" for metric in ("probe", "coherence")
                         for suffix in ("_accuracy", "_auroc_hard", "_average_precision", "_average_precision_hard",
                                        "_by_attribute")),
                       *(f"caption_{name}" for name in ("colour_accuracy", "colour_words", "distinct",
                                                        "distinct_bigrams", "grammatical")),
                       "classifier_auroc", "constant_accuracy", "constant_average_precision",
                       "reconstruction_weighted", "words"},
               "polymnist_search": {"latent_dimensions", "latent_correlation", "probe_transfer"},
               "hippocampus": {"probe_shared", "probe_transfer", "probe_chance", "probe_shared_chance",
                               "deviance_explained", "deviance_label", "silhouette_odor", "silhouette_animal",
                               "odor_recovery", "odor_recovery_shared", "state_recovery", "squared_error"},
               "mimic-cxr": {*(f"{metric}{suffix}" for metric in ("auroc", "auroc_average", "auroc_both",
                                                                  "average_precision", "brier", "calibration_error")
                               for suffix in ("", "_logistic")),
                             *(f"reliability_{part}" for part in ("confidence", "count", "frequency")),
                             "classifier_auroc", "coherence_by_label", "constant_average_precision",
                             "imputation_constant", "label_efficiency"}}
MODALITIES["hippocampus_long"] = MODALITIES["hippocampus"]
OWN_METRICS["hippocampus_long"] = {prefix + name for name in OWN_METRICS["hippocampus"] | METRICS
                                   for prefix in ("", PREFIX)}
MODALITIES["hippocampus_information"] = MODALITIES["hippocampus"]
OWN_METRICS["hippocampus_information"] = OWN_METRICS["hippocampus"] | KEPT
MODALITIES["validation"] = "|".join(MODALITIES[name] for name in ("polymnist", "cub", "mimic-cxr"))
OWN_METRICS["validation"] = {prefix + name for name in METRICS | OWN_METRICS["cub"] | OWN_METRICS["mimic-cxr"]
                             for prefix in ("", PREFIX)}
for _name in ("ablations", "ablations_translated", "information", "information_translated", "polymnist_grid"):
    MODALITIES[_name] = MODALITIES["polymnist"]
    OWN_METRICS[_name] = KEPT | {f"{metric}_clean" for metric in ("probe", "coherence", "imputation",
                                                                 "classifier_distance")} | {"gate_first_lies"}
MODALITIES["errata_birds"], OWN_METRICS["errata_birds"] = MODALITIES["cub"], OWN_METRICS["cub"]
MODALITIES["pools_birds"], OWN_METRICS["pools_birds"] = MODALITIES["cub"], OWN_METRICS["cub"]
MODALITIES["pools"] = f"{MODALITIES['hippocampus']}|{MODALITIES['polymnist']}"
OWN_METRICS["pools"] = {prefix + name for name in METRICS | OWN_METRICS["hippocampus"] for prefix in ("", PREFIX)}
OWN_METRICS["learning_rates"] = OWN_METRICS["hippocampus_long"] | OWN_METRICS["validation"]
MODALITIES["generation"] = MODALITIES["polymnist"]
OWN_METRICS["generation"] = {f"{density}_{name}" for density in ("prior", "mixture", "diffusion") for name in (
    "joint_coherence", "joint_classes", "joint_distance", "joint_diversity", "joint_nearest", "joint_fid",
    "conditional_coherence_1", "conditional_coherence_2", *(f"{what}_{factor}" for what in ("readable", "joint_spread")
                                                            for factor in ("ink", "slant", "crop_y", "crop_x")))}
OWN_METHODS = {"mimic-cxr": {"supervised"}, "polymnist_search": {"untrained", "supervised"}}
OWN_OPTIONS = {"mimic-cxr": {"lateral_missing"}}


def test_there_are_committed_results():
    assert "polymnist" in COMMITTED


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_rows_are_complete(name):
    table = results.read(name)
    assert len(table)
    text = table[["profile", "method", "target", "device", "torch"]]
    assert (text != "").all().all()
    assert table["commit"].str.fullmatch(r"[0-9a-f]{10}\+?").all() and table["run"].str.fullmatch("[0-9a-f]{10}").all()
    assert table["date"].str.fullmatch(r"20\d\d-\d\d-\d\d").all()
    bare, spent = table["method"] == "untrained", table[["epochs", "updates", "seconds"]]
    assert (table["n_train"] > 0).all() and (spent[~bare] > 0).all().all() and (spent[bare] == 0).all().all()
    assert np.isfinite(table["value"]).all()
    assert not table.duplicated(results.KEY).any()


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_methods_and_metrics_are_known(name):
    table = results.read(name)
    assert set(table["metric"]) <= METRICS | OWN_METRICS.get(name, set())
    shares = table[table["metric"].isin(SHARES)]["value"]
    assert shares.between(0, 1).all()
    for method in set(table["method"]):
        text, *options = method.split("/")
        assert text in OWN_METHODS.get(name, ()) or canonical(text, "objective", spec.options_of()) == text
        assert {option.partition("=")[0] for option in options} <= OWN_OPTIONS.get(name, set())


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_averages_are_those_of_their_entries(name):
    table = results.read(name)
    table = table[~table["metric"].str.contains("curve|gate")]
    one = [re.fullmatch(MODALITIES.get(name, MODALITIES[study]), target) is not None  # a table may be of many studies
           for study, target in zip(table["experiment"], table["target"])]
    of_one, key = pd.Series(one, index=table.index), ["run", "metric"]
    entries, averages = table[of_one], table[~of_one & (table["source"] == "")]
    same = entries["source"] == entries["target"]
    expected = pd.concat([part.groupby(key)["value"].agg(how).rename(target) for target, part, how in (
        ("mean", entries, "mean"), ("sum", entries, "sum"), ("cross", entries[~same], "mean"),
        ("self", entries[same], "mean"))], axis=1).stack().rename("expected")
    both = averages.set_index([*key, "target"]).join(expected.rename_axis([*key, "target"]), how="inner")
    assert len(both)
    np.testing.assert_allclose(both["value"], both["expected"], rtol=1e-4)
