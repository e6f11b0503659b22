"""The landing page's pictures: nothing in them is written too small, and a model is asked what the page says."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mmvm import pretrained
from mmvm.study.registry import STUDIES
from studies.mimic_cxr.data import ChestXrays
from studies.pages import decoder, pictures

PIXELS, SMALLEST = 320, 11  # of a picture's width on the page; of its text


def figures():
    rng = np.random.default_rng(0)
    images = rng.random((3, 3, 8, 8))
    yield "grid", pictures.grid({"given": images, "imagined": images[:, :1]})
    yield "with_words", pictures.with_words(images, ["a bird " * 12] * 3, picture_first=True)
    yield "animals", pictures.animals(torch.randn(5, 12, 2), [0, 1, 2, 3] * 3, list("abcde"), "ABCD")
    yield "between", pictures.between(pretrained(decoder.MODEL), decoder.digits(), 3, 8)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_no_text_is_below_11_pixels_on_the_page():
    for name, figure in figures():
        figure.canvas.draw()
        scale = PIXELS / figure.get_size_inches()[0] / 72
        sizes = [text.get_fontsize() * scale for text in figure.findobj(plt.Text) if text.get_text().strip()]
        assert sizes and min(sizes) >= SMALLEST, (name, sizes)


def test_the_way_between_two_digits_begins_and_ends_at_them():
    model, data = pretrained(decoder.MODEL), decoder.digits()
    figure = pictures.between(model, data, 3, 8)
    shown = [np.asarray(ax.images[0].get_array()) for ax in figure.axes]
    with torch.no_grad():
        ends = model.decoders[1](decoder.means(model, data)[0, [3, 8]]).clip(0, 1).movedim(1, -1)
    for at, end in zip((8, 15), ends):  # the second row of eight
        assert np.allclose(shown[at], end, atol=1e-6)
    assert np.abs(shown[8] - shown[15]).max() > 0.05


def test_what_is_imagined_depends_on_the_source_alone():
    model, data = pretrained(decoder.MODEL), decoder.digits()
    alone = pictures.imagined(model, {"m0": data.modalities["m0"]}, "m0", "m1")
    assert torch.equal(alone, pictures.imagined(model, data.modalities, "m0", "m1"))
    assert alone.shape == (10, 3, 28, 28)


def test_sentences_are_the_most_probable_words():
    words = ["<pad>", "<unk>", "<eos>", "a", "bird", "."]
    tokens = torch.tensor([[3, 4, 5, 2, 0]])
    assert pictures.sentences(tokens, words) == ["a bird."]
    assert pictures.sentences(torch.eye(6)[tokens].movedim(-1, 1), words) == ["a bird."]


@pytest.mark.parametrize("folder", ["polymnist", "translated", "cub", "hippocampus", "mimic-cxr"])
def test_models_of_a_folder_begin_with_mmvm_and_end_with_independent_vaes(folder):
    methods = list(pictures.of_folder(folder))
    assert len(methods) == 3 and methods[0] == "mmvm" and methods[-1] == "independent"


def test_a_rerun_with_other_parameters_shows_its_own_models():
    trained = {"mmvm": pretrained(decoder.MODEL)}
    p = STUDIES["polymnist"].from_profile("smoke")
    assert list(pictures.shown(p, trained)) == list(pictures.of_folder("polymnist"))
    assert pictures.shown(dataclasses.replace(p, epochs=p.epochs + 1), trained) is trained


def test_samples_lie_beside_the_models():
    birds, words = pictures.samples("cub", 6)
    assert len(birds) == 6 and birds.labels.shape == (6, 6)
    assert all("bird" in text for text in pictures.sentences(birds.modalities["text"], words))
    chests, words = pictures.samples("mimic-cxr", 3, ChestXrays, standin=True)
    assert chests.standin and len(chests) == 3 and not words
