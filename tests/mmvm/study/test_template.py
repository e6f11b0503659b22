"""The data of the package that `new-study` writes: a split by ids alone, and files with mistakes are named."""

import importlib.util

import pandas as pd
import pytest

from mmvm.errors import UserError
from mmvm.study import new


@pytest.fixture(scope="module")
def data():
    spec = importlib.util.spec_from_file_location("template_data", new.TEMPLATE / "newstudy" / "data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path, data):
    return data.simulate(str(tmp_path / "tables"))


def change(root, name, how):
    """The table without an index, through `how`, back into its file."""
    how(pd.read_csv(root / f"{name}.csv", dtype={"id": str})).to_csv(root / f"{name}.csv", index=False)


def test_the_split_is_by_ids_and_not_by_the_order_of_the_rows(root, data):
    before = data.load("test", str(root))
    assert before.ids == data.load("test").ids, "of files as of what is drawn"
    for name in ("first", "second", "labels"):
        change(root, name, lambda table: table.iloc[::-1])
    after = data.load("test", str(root))
    assert after.ids == before.ids and after.labels.equal(before.labels)


@pytest.mark.parametrize("name, how, words", [
    ("labels", lambda t: t.assign(label=t["label"].mask(t.index == 3)), r"sample s0003 has no label \(1 such samples"),
    ("labels", lambda t: t.iloc[1:], r"sample s0000 has no label \(1 such"),
    ("labels", lambda t: t.rename(columns={"label": "y"}), "labels.csv has no column label: add it"),
    ("first", lambda t: t.iloc[:60], "of 60 samples 100 are for testing, none is left to train on"),
    ("first", lambda t: t.rename(columns={"id": "name"}), "first.csv is no table with a column id"),
    ("second", lambda t: pd.concat([t, t.iloc[:1]]), "second.csv has a row without an id, or an id twice"),
    ("second", lambda t: t.assign(id=t["id"].mask(t.index == 0)), "second.csv has a row without an id")])
@pytest.mark.parametrize("what", ["load", "check"])
def test_mistakes_in_a_table_are_one_line(what, name, how, words, root, data):
    change(root, name, how)
    with pytest.raises(UserError, match=words) as error:
        data.check(str(root)) if what == "check" else data.load("train", str(root))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"\x00\x01\xff", b"", b"id,a\ns1,1,2,3\ns2,1\ns3,1,2,3,4,5\n"])
def test_what_is_no_table_is_one_line(content, root, data):
    (root / "first.csv").write_bytes(content)
    with pytest.raises(UserError, match="first.csv (is no table with a column id|has a row)") as error:
        data.load("train", str(root))
    assert "\n" not in str(error.value)


def test_a_label_that_no_sample_needs_may_be_empty(root, data):
    change(root, "labels", lambda t: pd.concat([t, pd.DataFrame({"id": ["extra"], "label": [None]})]))
    assert data.load("train", str(root)).label_names == ("high", "low")


def sides(data, root):
    return [set(data.load(split, str(root)).ids) for split in ("train", "test")]


def test_a_group_is_for_training_or_for_testing(root, data):
    train, test = (set(data.groups(sorted(ids), str(root))) for ids in sides(data, root))
    assert train and test and not train & test
    change(root, "labels", lambda t: t.assign(group=t["group"].str[1:3]))  # 30 groups of 20
    train, test = (set(data.groups(sorted(ids), str(root))) for ids in sides(data, root))
    assert len(train) == 25 and len(test) == 5 and not train & test


def test_without_groups_every_sample_is_one(root, data):
    change(root, "labels", lambda t: t.drop(columns="group"))
    train, test = sides(data, root)
    assert (len(train), len(test)) == (500, 100)
    assert data.groups(["s0003"], str(root)).tolist() == ["s0003"]


@pytest.mark.parametrize("how, words", [
    (lambda t: t.assign(group=t["group"].mask(t.index == 3)), r"sample s0003 has no group \(1 such samples\)"),
    (lambda t: t.assign(group="one"), "none is left to train on: add some, lower n_test, or give smaller groups")])
def test_groups_that_cannot_be_divided_are_one_line(how, words, root, data):
    change(root, "labels", how)
    with pytest.raises(UserError, match=words):
        data.load("train", str(root))
