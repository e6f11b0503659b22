"""What a run of each study writes names no folder, no user and no machine; and nothing is asked of the network."""

import os
import platform
import re
import socket

import pytest

from mmvm.__main__ import main
from mmvm.paths import REPOSITORY
from mmvm.study.registry import STUDIES

pytestmark = pytest.mark.slow

USER = "somebody-of-the-lab"
TINY = {"polymnist": dict(n_train=64, n_test=60, network="conv:channels=2", latent_dim=4, classifier_epochs=1,
                          n_probe=60, n_modalities=2, batch_size=32, epochs=1),
        "cub": dict(n_images=16, captions_per_image=3, epochs=1), "hippocampus": dict(epochs=1),
        "mimic-cxr": dict(n_subjects=40, epochs=1)}


class NoNetwork(socket.socket):
    def __init__(self, *arguments, **options):
        raise AssertionError("a socket was asked for")


def closed(*arguments, **options):
    raise AssertionError("the network was asked")


@pytest.mark.parametrize("study", TINY)
def test_a_run_asks_no_network_and_names_nobody(study, tmp_path, monkeypatch, capsys):
    private = tmp_path / "private-folder"
    monkeypatch.setattr(socket, "socket", NoNetwork)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, closed)
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, USER)
    monkeypatch.setenv("HOME", str(private / "home"))
    monkeypatch.setenv("MMVM_RUNS", str(private / "runs"))
    if study in ("cub", "mimic-cxr"):  # whose stand-ins are written
        monkeypatch.setenv("MMVM_DATA", str(private / "data"))
    settings = [word for name, value in TINY[study].items() for word in ("--set", f"{name}={value}")]
    out = private / "runs" / "mine"
    assert main(["train", study, "--out", str(out), *settings, "--set", "device=cpu"]) == 0
    assert main(["show", str(out / "checkpoint.safetensors")]) == 0
    capsys.readouterr()
    names = [str(tmp_path), "private-folder", str(REPOSITORY), USER, platform.node(), os.path.expanduser("~")]
    files = [path for path in private.rglob("*") if path.is_file()]
    assert out / "results.csv" in files and out / "history.jsonl" in files
    found = [f"{path.relative_to(private)}: {name}" for path in files for name in names
             if len(name) > 3 and name.encode() in path.read_bytes()]
    assert not found


def test_every_study_is_searched():
    assert set(TINY) == set(STUDIES)


def test_no_module_unpickles():
    """`torch.load` with weights_only reads tensors alone; numpy says no by default, and here again."""
    wrong = re.compile(r"\bimport (c?pickle|dill|joblib|shelve|marshal)\b|\bfrom (c?pickle|dill|joblib|shelve) |"
                       r"allow_pickle=True|weights_only=False|read_pickle|to_pickle|torch\.save\(")
    for folder in ("mmvm", "studies", "workflow"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            text = path.read_text()
            if path.name == "search.py":  # what it pickles goes to its own workers, and into no file
                text = text.replace("import pickle\n", "", 1)
            assert not wrong.search(text), path
            assert all("weights_only=True" in call for call in re.findall(r"torch\.load\([^)]*\)", text)), path
