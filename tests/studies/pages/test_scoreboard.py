"""The scoreboard leaves no number of the paper out, has no number without a run, and no command that does not parse."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmvm import paths
from mmvm.__main__ import main
from mmvm.study import results
from studies.pages import explorer, scoreboard

TWIN = paths.REPOSITORY / "book" / "text" / "scoreboard.md"
REFERENCE = paths.REPOSITORY / "data" / "reference"


@pytest.fixture(scope="module")
def rows():
    return scoreboard.Rows()


@pytest.fixture(scope="module")
def table(rows):
    return scoreboard.compare(rows)


@pytest.fixture(scope="module")
def orderings(rows):
    return scoreboard.claims(rows)


def test_no_number_of_the_paper_is_left_out(table):
    lines = [line for line in scoreboard.PAPER.read_text(encoding="utf-8").splitlines()[1:] if line]
    assert len(table) == len(lines) and table["id"].is_unique
    assert set(table["state"]) <= set(scoreboard.STATES)
    assert (table["reason"] != "")[table["state"] == "not comparable"].all(), "a reason where nothing is compared"


def test_every_number_of_the_paper_is_on_the_page(table):
    shown = "".join(scoreboard.as_html(part) for _, part in table.groupby("dataset"))
    assert shown.count("<tr>") == len(table) + table["dataset"].nunique()
    page = (paths.REPOSITORY / "book" / "scoreboard.ipynb").read_text(encoding="utf-8")
    # the lines of the claims' own tables come on top
    tables = re.findall(r"<table class=.{2}dataframe scoreboard.{2} .*?</table>", page)
    assert sum(found.count("<tr><th scope") for found in tables) == len(table) + len(tables)


@pytest.mark.slow
def test_no_number_of_ours_is_without_its_run(table):
    ours = table[table["ours"].notna()]
    assert len(ours) and (ours["seeds"] > 0).all()
    assert (table["run"] != "").equals(table["ours"].notna())
    for dataset, part in ours.groupby("dataset"):
        written = results.read(dataset)
        known = written.set_index("run")[["profile", "commit"]]
        for _, line in part.iterrows():
            assert set(known.loc[[line["run"]], "profile"]) == {line["profile"]}, line["id"]
            assert line["date"] in set(written["date"]) and line["commit"] in set(known.loc[[line["run"]], "commit"])


def test_ours_are_means_of_the_rows(table):
    some = table[table["id"].isin(["polymnist/fig2a/mmvm/beta=1/probe",
                                   "cub/fig2c-2f/moe/beta=1/reconstruction", "mimic-cxr/tab1/mmvm/both/edema/auroc"])]
    assert len(some) == 3
    for _, line in some.iterrows():
        written = results.read(line["dataset"])
        written = written[(written["profile"] == "laptop") & (written["method"] == line["method"])
                          & (written["beta"] == line["our beta"])]
        metric, target = {"probe": ("probe", "mean"), "reconstruction": ("reconstruction_weighted", "mean"),
                          "auroc": ("auroc", "Edema")}[line["measure"]]
        values = written[(written["metric"] == metric) & (written["target"] == target)
                         & written["source"].isin(["", "frontal", "lateral"])]
        assert line["ours"] == pytest.approx(values["value"].mean(), rel=1e-9)


def test_commands_parse_and_name_the_runs(table, capsys):
    made = table[table["run"] != ""].drop_duplicates("run")
    assert made["same hash"].all()
    for command in made.groupby("dataset")["command"].last():  # the hash has read the others' settings
        python, dash, module, *arguments = shlex.split(command)
        assert (python, dash, module) == ("python", "-m", "mmvm")
        assert main([*arguments, "--dry-run"]) == 0
    assert "objective" in capsys.readouterr().out
    assert made["command"].is_unique


def test_the_rule_of_the_states():
    line = pd.Series({"value": 0.9, "spread": 0.01, "unit": "share", "kind": "exact"})
    assert scoreboard.state_of(line, 0.915, 0.01, "") == "reproduced"
    assert scoreboard.state_of(line, 0.93, 0.01, "") == "not reproduced"
    assert scoreboard.state_of(line, 0.93, np.nan, "") == "not reproduced"
    assert scoreboard.state_of(line, 0.9, 0.01, "other data") == "not comparable"
    assert scoreboard.state_of(line, np.nan, np.nan, "") == "not comparable"
    assert scoreboard.state_of(line.replace({"exact": "read"}), 0.925,
                               0.01, "") == "reproduced"


def test_the_paper_shows_each_ordering_that_it_is_said_to_show(orderings):
    assert (orderings["paper's gap"] > 0).all(), orderings[["claim", "paper's gap"]]
    known = orderings["state"] != "not comparable"
    assert (orderings["state"].eq("reproduced") == (orderings["our gap"] > orderings["spread"]))[known].all()
    assert (orderings["state"].eq("not reproduced") == (orderings["our gap"] < -orderings["spread"]))[known].all()
    assert orderings["our gap"].notna().equals(known)


def test_an_ordering_has_the_interval_of_welchs_t():
    claim = scoreboard.Claim("polymnist", "a above b and c", "probe", ("a",), ("b", "c"))
    drawn = {"a": [0.93, 0.9, 0.87], "b": [0.84, 0.8, 0.8, 0.76], "c": [0.7, 0.6]}
    gap, half = scoreboard.ordering(claim, {
        name: (np.mean(values), np.std(values, ddof=1), len(values)) for name, values in drawn.items()})
    interval = stats.ttest_ind(drawn["a"], drawn["b"], equal_var=False).confidence_interval(0.95)
    assert gap == pytest.approx(0.1)
    assert (gap - half, gap + half) == pytest.approx((interval.low, interval.high))
    known = {"a": (0.9, 0.0, 1), "b": (0.8, 0.0, 1), "c": (0.7, 0.0, 1)}
    assert scoreboard.ordering(claim, known) == (pytest.approx(0.1), 0.0)
    gap, half = scoreboard.ordering(claim, {**known, "c": (0.7, 0.5, 3)})
    assert gap == pytest.approx(0.2) and gap < half, "the lower one is not told apart from a"
    assert scoreboard.ordering(claim, {**known, "b": (0.95, 0.01, 3), "c": (0.7, 0.5, 3)})[0] == pytest.approx(-0.05)


def test_a_joint_models_beta_is_that_of_a_kl_that_is_counted_once(rows):
    known = pd.Series([0.25, 1.0, 4.0, 16.0])
    assert rows.our_beta("polymnist", "mmvm", "probe", "1", known) == 1.0
    assert rows.our_beta("polymnist", "mopoe", "probe", "1", known) == 4.0, "3 there"
    assert rows.our_beta("cub", "mopoe", "probe", "1", known) == 1.0, "2 there, the smaller of two as near"
    assert rows.our_beta("polymnist", "mopoe", "probe", "16", known) is None, "48 there"


def test_the_chapters_files_say_the_same_as_the_one_file():
    numbers = scoreboard.paper()
    numbers = numbers[numbers["kind"] != "claimed"]
    compared = 0
    for dataset in ("polymnist", "cub", "hippocampus"):
        wide = pd.read_csv(REFERENCE / f"{dataset}_paper.csv")
        for _, line in wide.iterrows():
            own = numbers[(numbers["dataset"] == dataset) & (numbers["method"] == line["method"])]
            at = pd.to_numeric(own["beta"], errors="coerce")
            own = own[own["beta"] == "best"] if np.isnan(line["beta"]) else own[at == line["beta"]]
            for measure in ("reconstruction", "probe", "coherence"):
                if not np.isnan(line[measure]):
                    compared += 1
                    assert line[measure] == own.loc[own["measure"] == measure, "value"].item(), (dataset, line)
    wide = pd.read_csv(REFERENCE / "mimic_cxr_paper.csv")
    both = numbers[numbers["measure"] == "auroc"].merge(wide, on=["method", "view", "label"])
    assert len(both) == len(wide) == (numbers["measure"] == "auroc").sum() and compared > 80
    assert np.allclose(both["value"], both["auroc"]) and np.allclose(both["spread"], both["sd"])


def test_no_number_is_written_by_hand():
    """In the prose; a number of the method, an address or a name in code is none of results."""
    text = TWIN.read_text(encoding="utf-8").split("---", 2)[2]
    prose = re.sub(r"```.*?```|\{[a-z:]+\}`[^`]*`|`[^`]*`", "", text, flags=re.DOTALL)
    assert not re.findall(r"\d", prose), re.findall(r".*\d.*", prose)
    for cell in re.findall(r"```\{code-cell\}.*?```", text, flags=re.DOTALL):
        assert not re.search(r"(?<![\w-])\d*\.\d+", cell), cell


def test_text_of_the_tables_is_escaped(table):
    line = table[table["ours"].notna()].head(1).assign(reason="<script>", method="<b>", label="a & b")
    html = scoreboard.as_html(line)
    assert "<script>" not in html and "<b>" not in html and "a &amp; b" in html


# explorer ------------------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_the_explorer_has_every_run_once():
    payload = explorer.payload()
    assert list(payload["files"]) == [name for name in results.available() if name not in explorer.CHOOSING]
    for name, file in payload["files"].items():
        table = results.read(name)
        assert len(file["runs"]) == table.loc[table["method"] != "untrained", "run"].nunique()
        points = [tuple(run[:4]) for run in file["runs"]]
        assert len(set(points)) == len(points), f"{name}: two runs at one point of a line and one seed"
        assert {run[1] for run in file["runs"]} <= set(payload["methods"])


def test_the_explorers_script_stays_small():
    assert len(explorer.script()) < 450_000


@pytest.mark.slow
def test_every_marker_of_a_method_can_be_drawn():
    script = (paths.REPOSITORY / "book" / "_static" / "explorer.js").read_text(encoding="utf-8")
    known = set(re.findall(r'[{,\n]\s*"?([^\s",]{1})"?: (?:\[|polygon|star)', script)) | {"o"}
    assert {look["marker"] for look in explorer.payload()["methods"].values()} <= known
    assert "innerHTML" not in script and "fetch(" not in script
