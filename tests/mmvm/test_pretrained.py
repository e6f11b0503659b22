"""Models that ship are found by name."""

import pytest

import mmvm
from mmvm import UserError, paths, pretrained


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "models_root", lambda: tmp_path)
    return tmp_path


def test_none_ships(shipped):
    with pytest.raises(UserError, match="no model 'rats/mmvm' ships with the project; there are: none"):
        pretrained("rats/mmvm")


def test_unknown_names_list_the_known(shipped):
    for name in ("b/mmvm", "a/poe"):
        (shipped / name).parent.mkdir()
        (shipped / f"{name}.safetensors").touch()
    for name in ("a/mmvm", "", "a", "../a/poe", "a/poe.safetensors"):
        with pytest.raises(UserError, match=f"no model {name!r} ships .* there are: a/poe, b/mmvm"):
            mmvm.pretrained(name)
