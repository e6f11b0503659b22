"""A lab's own photographs and captions in CUB's layout: partial copies, odd names and places, few classes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmvm.__main__ import main
from mmvm.errors import UserError
from mmvm.study.study import run
from studies.cub import data as cub
from studies.cub.study import CUB

ALL = 12    # photographs of a lab: four in each of three classes


def write(root: Path, classes=("1.Möwe am Meer", "2.spatz", "3.Star"), n: int = 4, train=lambda i: i % 4 > 0) -> Path:
    """The smallest files that the loader asks for: no classes.txt, no attributes, sizes and modes that differ."""
    base, draw, rows = root / "CUB_200_2011", np.random.default_rng(0), []
    for c, name in enumerate(classes, 1):
        (base / "images" / name).mkdir(parents=True)
        (root / "text_c10" / name).mkdir(parents=True)
        for k in range(n):
            rows.append((f"{name}/Bild {k} ü.jpg", c))
            pixels = draw.integers(0, 256, (20 + 9 * k, 50, 3), np.uint8)
            Image.fromarray(pixels[..., 0] if k == 1 else pixels).save(base / "images" / rows[-1][0])
            text = "a red bird\nthe bird has a black bill\n" * 2
            (root / "text_c10" / rows[-1][0]).with_suffix(".txt").write_text(text)
    for file, values in (("images.txt", [name for name, _ in rows]), ("image_class_labels.txt", [c for _, c in rows]),
                         ("train_test_split.txt", [int(train(i)) for i in range(len(rows))])):
        (base / file).write_text("".join(f"{i} {value}\n" for i, value in enumerate(values, 1)), encoding="utf-8")
    return root


@pytest.fixture
def own(tmp_path):
    return write(tmp_path / "Vögel vom Dach")


def names(root: Path) -> list[str]:
    lines = (root / "CUB_200_2011" / "images.txt").read_text(encoding="utf-8").splitlines()
    return [line.partition(" ")[2] for line in lines]


def test_check_of_a_partial_copy_counts_a_photograph_once(own):
    """One photograph lacks its file, one its captions, one both."""
    first, second, third = (names(own)[i] for i in (1, 2, 6))
    for name in (first, third):
        (own / "CUB_200_2011" / "images" / name).unlink()
    for name in (second, third):
        (own / "text_c10" / name).with_suffix(".txt").unlink()
    report = cub.check(own, missing="skip", split_by="official")
    assert "2 images without image file skipped, the first is 1.Möwe am Meer/Bild 1 ü.jpg" in report
    assert "1 images without caption file skipped, the first is 1.Möwe am Meer/Bild 2 ü.jpg" in report
    assert any(line.startswith("images: all 9 are there and open; 2 grey") for line in report)
    assert "captions: 36, ten for each image but 9" in report
    assert "official split: train_test_split.txt; 6 images for training, 3 for testing" in report
    assert "train: 24 samples of 2 modalities (6 images, 3 classes)" in report
    assert "test: 12 samples of 2 modalities (3 images, 3 classes)" in report
    with pytest.raises(UserError, match=r"(?s)2 of 12 image files are missing.*2 of 12 caption files are missing"):
        cub.check(own, split_by="official")


def test_check_takes_the_options_of_load_and_counts_the_same(own, capsys):
    for labels in ("captions", "classes"):
        report = cub.check(own, split_by="official", labels=labels, captions_per_image=2, more_than=0)
        for split in ("train", "test"):
            data = cub.load(split, own, split_by="official", labels=labels, captions_per_image=2, more_than=0)
            highest = int(data.modalities["text"].max())
            assert f"{split}, text: (32,) int16, 0 to {highest}; 0 samples missing" in report
            counts = data.labels.sum(0) if labels == "captions" else np.bincount(data.labels)
            line = ", ".join(f"{name} {int(n)}" for name, n in zip(data.label_names, counts))
            assert any(said.startswith(f"{split}, labels: ") and line in said for said in report)
    assert main(["data", "cub", "--root", str(own), "--check", "--set", "split_by=official", "--set", "crop=x"]) == 2
    assert "crop must be one of 'squash', 'centre', got 'x'" in capsys.readouterr().err


def test_a_split_that_is_not_asked_for_may_be_absent_or_wrong(own):
    (own / "CUB_200_2011" / "train_test_split.txt").unlink()
    write_lists = [(own / name).write_text(text) for name, text in (
        ("trainvalclasses.txt", "1.Möwe am Meer\n2.spatz\n"), ("testclasses.txt", "3.Star\n"))]
    assert write_lists and any("'official' cannot be used" in line for line in cub.check(own))
    with pytest.raises(UserError, match="train_test_split.txt is missing"):
        cub.check(own, split_by="official")


@pytest.mark.parametrize("file, content, said", [
    ("trainvalclasses.txt", b"Seagull\n", r"row 1: 'Seagull' is no class such as 001\."),
    ("trainvalclasses.txt", "1.Möwe\n".encode("latin-1"), "is not UTF-8 .* save it as UTF-8"),
    ("CUB_200_2011/images.txt", "1 1.Möwe/x.jpg\n".encode("latin-1"), "is not UTF-8 .* save it as UTF-8")])
def test_lists_that_a_lab_wrote(own, file, content, said):
    (own / "testclasses.txt").write_text("3.Star\n")
    (own / file).write_bytes(content)
    with pytest.raises(UserError, match=said):
        cub.load("train", own, labels="classes")


def test_a_list_with_a_byte_order_mark_is_read(own):
    path = own / "CUB_200_2011" / "images.txt"
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert len(cub.load("train", own, split_by="official", labels="captions")) == 9 * 4


def test_nothing_left_to_read_is_said(own):
    shutil.rmtree(own / "CUB_200_2011" / "images")
    for call in (lambda: cub.load("train", own, missing="skip"), lambda: cub.check(own, missing="skip")):
        with pytest.raises(UserError, match=f"none of {ALL} images of .* has both an image file and captions"):
            call()


def test_one_class_one_photograph_and_an_empty_test_set(tmp_path):
    one = write(tmp_path / "one", ("1.Star",), n=1, train=lambda i: True)
    assert len(cub.load("train", one, labels="classes")) == 4
    for call in (lambda: cub.load("test", one), lambda: cub.check(one), lambda: cub.check(one, split_by="official")):
        with pytest.raises(UserError, match="no image is left for the test split"):
            call()


def test_links_and_a_tilde(own, tmp_path, monkeypatch):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "CUB_200_2011").symlink_to(own / "CUB_200_2011")
    (linked / "text_c10").symlink_to(own / "text_c10")
    monkeypatch.setenv("HOME", str(tmp_path))
    plain, via = (cub.load("train", root, labels="captions", split_by="official") for root in (own, "~/linked"))
    assert plain.ids == via.ids and (plain.labels == via.labels).all()
    assert cub.check("~/linked", split_by="official") == cub.check(own, split_by="official")


def test_captions_that_are_all_alike_leave_rows_of_what_can_be_measured(own, tmp_path):
    """Every pair shows the same attributes, so there is nothing to tell apart; one photograph shows less, then some."""
    settings = {"root": str(own), "labels": "captions", "split_by": "official", "more_than": 0, "epochs": 1,
                "classifier_epochs": 1, "latent_dim": 2, "batch_size": 8, "device": "cpu",
                "network": "conv:image_channels=4,text_channels=4"}
    rows = run(CUB(**settings)).rows
    assert {"reconstruction", "imputation", "classifier_accuracy"} <= {row["metric"] for row in rows}
    assert not {"probe", "coherence", "classifier_auroc"} & {row["metric"] for row in rows}
    for i in (0, 1):    # of the test and of the training split
        (own / "text_c10" / names(own)[i]).with_suffix(".txt").write_text("a black bird\nthe bird is black\n")
    rows = run(CUB(**settings)).rows
    for metric in ("probe", "coherence", "classifier_auroc"):
        notes = {row["note"] for row in rows if row["metric"] == metric}
        assert notes == {"labels=1/6"}, metric
