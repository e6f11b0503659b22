"""Files that are whole or absent, and that notice when a bit of them has changed."""

import numpy
import pytest
import torch
from safetensors.torch import save_file

from mmvm import paths
from mmvm.errors import UserError
from mmvm.files import digest, git_commit, read_safetensors, write_safetensors

TENSORS = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.tensor(7), "c": torch.zeros(0, 2),
           "d": torch.ones(3, dtype=torch.bfloat16), "e": torch.tensor([True, False])}
METADATA = {"format": "test-1", "about": "ümlauts and \"quotes\""}


@pytest.fixture
def path(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", TENSORS, METADATA)
    return tmp_path / "x.safetensors"


def test_what_was_written_is_read(path):
    tensors, metadata = read_safetensors(path, "test-1", "test file", "a test")
    assert metadata == METADATA and tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype and torch.equal(tensors[name], value)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_every_flipped_bit_is_noticed(path):
    """Each byte of the file with one bit changed: an error in one line, or what was written."""
    whole = path.read_bytes()
    silent = 0
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1:])
        try:
            tensors, metadata = read_safetensors(path, "test-1", "test file", "a test")
        except UserError as error:
            assert "\n" not in str(error)
            continue
        silent += 1  # a byte that says nothing, as white space between two entries of the header
        assert metadata == METADATA and all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert silent < 0.05 * len(whole)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 100, -1])
def test_a_cut_file_is_one_line(path, n):
    path.write_bytes(path.read_bytes()[:n])
    with pytest.raises(UserError, match="cannot be read"):
        read_safetensors(path, "test-1", "test file", "a test")


def test_tensors_exchanged_by_name_are_noticed(tmp_path, path):
    stated = digest(TENSORS, METADATA)
    save_file({**TENSORS, "b": TENSORS["b"] + 1}, path, {**METADATA, "digest": stated})
    with pytest.raises(UserError, match="was changed"):
        read_safetensors(path, "test-1", "test file", "a test")


def test_a_file_from_before_there_were_digests_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "old", METADATA)
    assert read_safetensors(tmp_path / "old", "test-2", "test file", "a test", ("test-1",))[1] == METADATA
    with pytest.raises(UserError, match="was changed"):
        read_safetensors(tmp_path / "old", "test-1", "test file", "a test")


def test_missing_and_foreign_files_are_named(tmp_path, path):
    with pytest.raises(UserError, match=r"there is no test file .*absent"):
        read_safetensors(tmp_path / "absent", "test-1", "test file", "a test")
    with pytest.raises(UserError, match="expected 'other-1'"):
        read_safetensors(path, "other-1", "other file", "a test")
    with pytest.raises(UserError, match="cannot be read"):
        read_safetensors(tmp_path, "test-1", "test file", "a test")


def test_a_file_of_something_else_is_not_to_be_deleted(tmp_path):
    numpy.save(tmp_path / "x.npy", numpy.zeros(3))
    with pytest.raises(UserError, match="cannot be read .*: name one that a test wrote, or copy it again") as error:
        read_safetensors(tmp_path / "x.npy", "test-1", "test file", "a test")
    assert "delete" not in str(error.value)
    (tmp_path / "x.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="delete it to start over, or copy it again"):
        read_safetensors(tmp_path / "x.safetensors", "test-1", "test file", "a test")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot be written .*: make folder .*none/deep$"):
        write_safetensors(tmp_path / "none" / "deep" / "x.safetensors", TENSORS, METADATA)


def test_without_git_the_commit_is_what_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("MMVM_COMMIT", raising=False)
    assert git_commit() == ""
    monkeypatch.setenv("MMVM_COMMIT", "0123456789")
    assert git_commit() == "0123456789"
