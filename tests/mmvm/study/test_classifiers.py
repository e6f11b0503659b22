"""Classifiers that runs share: trained once, also by runs side by side."""

import errno
import threading
import time

import pytest
import torch
from torch import nn

from mmvm import paths
from mmvm.study.classifiers import keep_classifier
from mmvm.training import lock


def test_runs_side_by_side_train_a_classifier_once(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "runs_root", lambda: tmp_path)
    trained, found = [], []

    def kept(train):
        return keep_classifier("m0", ["data", 4], lambda: nn.Linear(2, 3), train, torch.device("cpu"))

    def again():
        trained.append("second")
        return nn.Linear(2, 3)

    other = threading.Thread(target=lambda: found.append(kept(again)))

    def first():
        trained.append("first")
        other.start()
        time.sleep(0.3)  # in which the other would have trained its own
        return nn.Linear(2, 3)

    one = kept(first)
    other.join()
    assert trained == ["first"]
    assert torch.equal(one.weight, found[0].weight)


def test_one_that_cannot_be_read_is_trained_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "runs_root", lambda: tmp_path)
    keep_classifier("m0", [1], lambda: nn.Linear(2, 3), lambda: nn.Linear(2, 3), torch.device("cpu"))
    (path,) = (tmp_path / "classifiers").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    new = nn.Linear(2, 3)
    assert keep_classifier("m0", [1], lambda: nn.Linear(2, 3), lambda: new, torch.device("cpu")) is new


def test_a_kept_one_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "runs_root", lambda: tmp_path)
    one = keep_classifier("m0", [1], lambda: nn.Linear(2, 3), lambda: nn.Linear(2, 3), torch.device("cpu"))

    def locked(*_):
        raise PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(lock.Path, "mkdir", locked)
    again = keep_classifier("m0", [1], lambda: nn.Linear(2, 3), lambda: pytest.fail("trained"), torch.device("cpu"))
    assert torch.equal(again.weight, one.weight)


@pytest.mark.skipif(lock.fcntl is None, reason="no locks here")
def test_a_disk_without_locks_locks_nothing(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")
    monkeypatch.setattr(paths, "runs_root", lambda: tmp_path)
    monkeypatch.setattr(lock.fcntl, "flock", none)
    new = nn.Linear(2, 3)
    assert keep_classifier("m0", [1], lambda: nn.Linear(2, 3), lambda: new, torch.device("cpu")) is new


@pytest.mark.skipif(lock.fcntl is None, reason="no locks here")
def test_who_waits_says_so(tmp_path, capsys):
    def second():
        with lock.in_turn(tmp_path / "lock", "waiting for the first"):
            order.append("second")

    order, other = [], threading.Thread(target=second)
    with lock.in_turn(tmp_path / "lock"):
        other.start()
        time.sleep(0.3)
        order.append("first")
    other.join()
    assert order == ["first", "second"] and capsys.readouterr().err == "waiting for the first\n"
