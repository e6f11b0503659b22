"""Classifiers that runs share: trained once, also by runs side by side."""

import threading
import time

import torch
from torch import nn

from mmvm import paths
from mmvm.study.classifiers import keep_classifier


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
