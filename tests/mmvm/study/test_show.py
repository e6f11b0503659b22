"""`python -m mmvm show`: what it says of each kind of file, and that it neither believes nor imports what it reads."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mmvm import MultimodalData, MultimodalVAE, Schedule, UserError, fit, keep
from mmvm.__main__ import main
from mmvm.data import Modality
from mmvm.diffusion import LatentDiffusion
from mmvm.diffusion.denoiser import Denoiser
from mmvm.files import read_safetensors, write_safetensors
from mmvm.likelihoods import Normal, Poisson
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import spec
from mmvm.study import show
from mmvm.study.classifiers import CLASSIFIER, keep_classifier
from mmvm.training import checkpoint

SPECS = (Modality("left", (2,), Normal(0.5), weight=2.0, features=("up", "down")), Modality("right", (3, 4), Poisson()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A kept model, a run of it, a classifier and two prepared arrays."""
    folder = tmp_path_factory.mktemp("files")
    model = MultimodalVAE(SPECS, [MLPEncoder(s.shape, 3, (5,)) for s in SPECS],
                          [MLPDecoder(s.shape, 3, (5,)) for s in SPECS], spec.build("mmvm:gate=soft", 3, 2),
                          Schedule(0.0, 1.5, 10, "linear"))
    model.eval().save(folder / "model.safetensors")
    data = MultimodalData({"left": torch.randn(8, 2), "right": torch.ones(8, 3, 4)}, SPECS)
    fit(model, data, epochs=2, batch_size=4, learning_rate=1e-3, check="off", out=folder / "run", config={"lab": "x y"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMVM_RUNS", str(folder))
        keep_classifier("rows", [1], lambda: nn.Linear(2, 3), lambda: nn.Linear(2, 3), torch.device("cpu"))
    np.save(folder / "images.npy", np.zeros((7, 1, 4, 4), np.uint8))
    np.save(folder / "rows.npy", np.zeros(7, [("name", "S24"), ("check", "<u4")]))
    return folder


def test_a_kept_model(folder):
    said = "\n".join(show.lines(folder / "model.safetensors"))
    for words in ("model.safetensors: kept model", "mmvm 0.1.0, torch ", "3 latent dimensions, beta Schedule(",
                  "beta Schedule(start=0.0, end=1.5, steps=10, form='linear')", "text mmvm:gate=soft",
                  "objective MMVM: bound pairwise, standard_normal_weight 0.0, n_experts None",
                  "objective Gated: mode soft, temperature 1.0",
                  "Modality(name='left', shape=(2,), likelihood=Normal(scale=0.5), weight=2.0, ",
                  "features=('up', 'down')", "Modality(name='right', shape=(3, 4), likelihood=Poisson()",
                  "      (0): MLPEncoder(", "Linear(in_features=12, out_features=5, bias=True)", "tensors of float32"):
        assert words in said, said
    assert "in evaluation mode" in said and "imports" not in said


def test_a_kept_diffusion(tmp_path):
    LatentDiffusion(["left", "right"], Denoiser(2, 3, 4, 1), torch.zeros(2, 3), torch.ones(2, 3), "0123456789ab").save(
        tmp_path / "d.safetensors")
    said = "\n".join(show.lines(tmp_path / "d.safetensors"))
    for words in ("d.safetensors: kept diffusion", "mmvm 0.1.0, torch ", "over the latents of left, right, of a model "
                  "with the weights 0123456789...", "40 steps, guidance 1.0", "network: 16 tensors of float32"):
        assert words in said, said


def test_a_checkpoint_a_classifier_and_arrays(folder):
    said = "\n".join(show.lines(folder / "run" / "checkpoint.safetensors"))
    for words in (": checkpoint", "step 4, epoch 2", "trained on data ", "lab = 'x y'", "batch_size = 4",
                  "left's weight = 2.0", "objective = 'MMVM'", "model: ", "optimizer: "):
        assert words in said, said
    [file] = (folder / "classifiers").glob("*.safetensors")
    assert list(show.lines(file)) == [f"{file}: classifier", "  weights: 2 tensors of float32, 9 numbers, 0.0 MB"]
    assert list(show.lines(folder / "images.npy")) == [f"{folder / 'images.npy'}: array (7, 1, 4, 4) of uint8, 0.0 MB"]
    assert "array (7,) of name |S24, check uint32" in next(show.lines(folder / "rows.npy"))


def test_a_folder_is_all_of_its_files(folder, capsys):
    assert main(["show", str(folder)]) == 0
    said = capsys.readouterr().out
    for words in ("kept model", "checkpoint", "classifier", "images.npy: array", "rows.npy: array"):
        assert words in said


def test_nothing_is_imported(folder, tmp_path, monkeypatch):
    """Whatever classes a file names, also ours and those that the caller would not allow."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lab_of_others.py").write_text("raise SystemExit('imported')")
    tensors, metadata = read_safetensors(folder / "model.safetensors", keep.FORMAT, "", "")
    recipe = metadata["recipe"].replace('"module": "mmvm.networks.mlp:MLPEncoder"',
                                        '"\\u006dodule":"lab_of_others:Encoder"')
    write_safetensors(tmp_path / "x.safetensors", tensors, {
        **metadata, "recipe": recipe, "about": json.dumps(["red \033[31m", "line\nbreak"])})
    said = list(show.lines(tmp_path / "x.safetensors"))
    assert "  imports, if load(..., allow=...) names them: lab_of_others:Encoder" in said
    assert {"  red ?[31m", "  line?break"} < set(said)
    assert "lab_of_others" not in sys.modules


def damaged(folder, path, **changed):
    tensors, metadata = read_safetensors(folder / "model.safetensors", keep.FORMAT, "", "")
    write_safetensors(path, tensors, {**metadata, **changed})


def test_other_files_are_one_line(folder, tmp_path):
    path = tmp_path / "x.safetensors"
    for changed, words in [
            ({"format": "mmvm-model-9"}, "is no file of this program.*mmvm-model-9"),
            ({"recipe": "{"}, "says of itself"), ({"recipe": "[" * 100_000}, "says of itself"),
            ({"about": "[3]"}, "says of itself"),
            ({"format": CLASSIFIER, "about": "["}, "says of itself"), ({"versions": "[]"}, "says of itself"),
            ({"format": checkpoint.FORMAT}, "says of itself")]:
        damaged(folder, path, **changed)
        with pytest.raises(UserError, match=words) as caught:
            list(show.lines(path))
        assert "\n" not in str(caught.value)
    whole = (folder / "model.safetensors").read_bytes()
    for name, content, words in [("a.safetensors", whole[:-1] + bytes([whole[-1] ^ 1]), "was changed"),
                                 ("a.safetensors", whole[:50], "cannot be read"), ("a.csv", b"a,b", "cannot be read"),
                                 ("a.npy", b"\x93NUMPY\1\0\6\0{'a'}\n", "cannot be read"),
                                 ("b.npy", b"", "cannot be read")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=words) as caught:
            list(show.lines(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_mistakes_end_with_a_sentence(tmp_path, capsys):
    for path, words in ((tmp_path, "has no .npy or .safetensors"), (tmp_path / "absent", "there is no file"),
                        (tmp_path / "absent.npy", "cannot be read")):
        assert main(["show", str(path)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("mmvm: ") and words in said and said.count("\n") == 1
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read"):
        list(show.lines(tmp_path / "objects.npy"))
