"""PolyMNIST: what load() promises, on the data that ships and on small sets made here."""

import gzip
import hashlib
import re
import shutil
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mmvm.errors import UserError
from mmvm.likelihoods import Laplace
from mmvm.paths import REPOSITORY
from mmvm.study.study import run
from studies.polymnist.check import check, read_sums
from studies.polymnist.data import check as check_data, factors, load
from studies.polymnist.mnist import LABEL_COUNTS, SIDE, read_mnist
from studies.polymnist.pictures import photo_folder, read_photos, resize
from studies.polymnist.study import PolyMNIST

SHIPPED = REPOSITORY / "data" / "polymnist"


def write_idx(path, array, magic=None):
    """`array` as an idx file, gzipped where the name says so."""
    content = (magic or bytes((0, 0, 8, array.ndim))) + struct.pack(f">{array.ndim}I", *array.shape)
    content += array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


@pytest.fixture
def small_root(tmp_path):
    """A root with 60 training and 30 test digits; digit i of class y has its own grey level and shape."""
    (tmp_path / "mnist").mkdir()
    random = np.random.default_rng(0)
    for split, n in (("train", 60), ("t10k", 30)):
        write_idx(tmp_path / "mnist" / f"{split}-images-idx3-ubyte.gz", random.integers(0, 256, (n, SIDE, SIDE)))
        write_idx(tmp_path / "mnist" / f"{split}-labels-idx1-ubyte.gz", np.arange(n) % 10)
    return tmp_path


@pytest.fixture
def plain_photos(tmp_path):
    """A folder with one photo of a single colour per modality: what differs from it is the digit."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for m, colour in enumerate([(10, 60, 250), (0, 0, 0), (128, 127, 200)]):
        Image.new("RGB", (40 + m, 31), colour).save(folder / f"photo{m}.png")
    return folder


@pytest.fixture
def released(tmp_path):
    """Twelve rows of three modalities in the released layout, row numbers 0 to 11 and digits row % 10."""
    root = tmp_path / "released"
    pictures = np.random.default_rng(1).integers(0, 256, (3, 12, SIDE, SIDE, 3), dtype=np.uint8)
    for m in range(3):
        folder = root / "train" / f"m{m}"
        folder.mkdir(parents=True)
        order = np.random.default_rng(m).permutation(12)        # the folder's own order must not matter
        for row in order:
            Image.fromarray(pictures[m, row]).save(folder / f"{row}.{row % 10}.png")
    return root, pictures


def digest(data):
    return hashlib.sha256(b"".join(x.numpy().tobytes() for x in data.modalities.values())).hexdigest()


# What is built ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("split, translated, expected", [
    ("train", True, "b3449676b3525a77f99a779cc1d30c0c93b76b2295defa4ff895c23617f360f9"),
    ("train", False, "9c272558521bd4ed07baed47047c77463bc26fca6dc94a89c22b1dab90a085ec"),
    ("test", True, "a3a6e1ecc23527827596d609103cf7612c7d3e7b76071ef74d4929fd658524c2"),
    ("test", False, "819beb0d51cfef6733330ae3539a8c94b94fe1b8c6c01ab7e0cd13c669debf62"),
], ids=["train, translated", "train", "test, translated", "test"])
def test_same_bytes_on_every_machine(split, translated, expected):
    data = load(split, SHIPPED, n=64, translated=translated)
    assert digest(data) == expected


def test_shapes_types_and_descriptions():
    data = load("test", SHIPPED, n_modalities=3)
    assert data.names == ["m0", "m1", "m2"] and len(data) == 10_000 and data.n_classes == 10
    for x in data.modalities.values():
        assert x.shape == (10_000, 3, 28, 28) and x.dtype == torch.uint8 and x.is_contiguous()
    assert all(spec.likelihood == Laplace(0.75) and spec.scale == 1 / 255 and spec.shape == (3, 28, 28)
               for spec in data.specs)
    assert data.labels.dtype == torch.int64 and data.observed.all()
    assert data.ids[0] == "test/0" and data.ids[-1] == "test/9999"


def test_labels_are_those_of_mnist_in_its_order():
    for split in ("train", "test"):
        _, labels = read_mnist(SHIPPED, split, download=False)
        assert tuple(np.bincount(labels)) == LABEL_COUNTS[split]
    assert load("test", SHIPPED, n_modalities=1).labels.tolist() == labels.tolist()


def test_fewer_modalities_are_the_first_ones():
    five, three = load("test", SHIPPED, n=200), load("test", SHIPPED, n=200, n_modalities=3)
    for name in three.names:
        assert torch.equal(five.modalities[name], three.modalities[name])
    assert torch.equal(five.labels, three.labels)


def test_seed_and_split_change_everything_else_repeats(small_root):
    options = dict(root=small_root, n_modalities=2)
    assert digest(load("train", **options)) == digest(load("train", **options))
    assert digest(load("train", **options)) != digest(load("train", seed=1, **options))
    # the same digits under both names: only the stream differs
    for kind in ("images-idx3", "labels-idx1"):
        shutil.copy(small_root / "mnist" / f"train-{kind}-ubyte.gz", small_root / "mnist" / f"t10k-{kind}-ubyte.gz")
    assert digest(load("train", **options)) != digest(load("test", **options))


def test_subset_holds_rows_of_the_full_set():
    full = load("test", SHIPPED, n_modalities=2, seed=3)
    some, more = (load("test", SHIPPED, n_modalities=2, seed=3, n=n) for n in (150, 400))
    rows = torch.tensor([int(name.removeprefix("test/")) for name in more.ids])
    assert len(rows.unique()) == 400 and more.ids[:150] == some.ids
    for name in full.names:
        assert torch.equal(full.modalities[name][rows], more.modalities[name])
        assert torch.equal(more.modalities[name][:150], some.modalities[name])
    assert torch.equal(full.labels[rows], more.labels)
    assert len(some.labels[:20].unique()) > 4, "a subset must not be sorted by class"


def test_every_modality_shows_another_instance_of_the_same_class(small_root, tmp_path):
    # black photos and one bright pixel per digit, at a place that names the instance
    digits = np.zeros((60, SIDE, SIDE))
    digits[np.arange(60), np.arange(60) // 28, np.arange(60) % 28] = 255
    write_idx(small_root / "mnist" / "train-images-idx3-ubyte.gz", digits)
    folder = tmp_path / "black"
    folder.mkdir()
    for m in range(3):
        Image.new("RGB", (SIDE, SIDE)).save(folder / f"{m}.png")
    data = load("train", small_root, n_modalities=3, translated=False, backgrounds=folder)
    shown = torch.stack([x[:, 0].flatten(1).argmax(1) for x in data.modalities.values()])     # (M, N) instances
    for instances in shown:
        assert sorted(instances.tolist()) == list(range(60)), "each digit is used once per modality"
        assert torch.equal(instances % 10, data.labels), "the class must stay"
    assert not torch.equal(shown[0], shown[1]) and not torch.equal(shown[1], shown[2])


@pytest.mark.parametrize("translated", [True, False])
def test_colours_are_inverted_on_the_digit_and_nowhere_else(small_root, plain_photos, translated):
    data = load("train", small_root, n_modalities=3, translated=translated, backgrounds=plain_photos)
    for x, colour in zip(data.modalities.values(), [(10, 60, 250), (0, 0, 0), (128, 127, 200)]):
        background = torch.tensor(colour, dtype=torch.uint8)[None, :, None, None]
        digit = x == 255 - background
        assert (digit ^ (x == background)).all(), "a value is the photo's or its inverse"
        assert (digit.all(1) == digit.any(1)).all(), "the three colours invert together"


def test_untranslated_digit_is_mnist_above_128(small_root, plain_photos):
    data = load("train", small_root, n_modalities=2, translated=False, backgrounds=plain_photos)
    digits, labels = read_mnist(small_root, "train", download=False)
    masks = {mask.tobytes(): label for mask, label in zip(digits > 128, labels)}
    for picture, label in zip(data.modalities["m1"], data.labels):      # m1 is black
        assert masks[(picture[0] == 255).numpy().tobytes()] == label


def test_translated_digits_reach_every_place_and_stay_inside(small_root, plain_photos):
    write_idx(small_root / "mnist" / "train-images-idx3-ubyte.gz", np.full((2000, SIDE, SIDE), 255))
    write_idx(small_root / "mnist" / "train-labels-idx1-ubyte.gz", np.arange(2000) % 10)
    data = load("train", small_root, n_modalities=2, backgrounds=plain_photos)
    mask = data.modalities["m1"][:, 0] == 255
    assert (mask.sum((1, 2)) == 21 * 21).all(), "no digit loses a pixel at the border"
    rows, columns = mask.any(2), mask.any(1)
    assert (rows.sum(1) == 21).all() and (columns.sum(1) == 21).all()
    places = set(zip(rows.int().argmax(1).tolist(), columns.int().argmax(1).tolist()))
    assert places == {(i, j) for i in range(8) for j in range(8)}


@pytest.mark.parametrize("scale, side", [(1.0, 28), (0.5, 14), (0.04, 1)])
def test_other_scales(small_root, plain_photos, scale, side):
    write_idx(small_root / "mnist" / "train-images-idx3-ubyte.gz", np.full((60, SIDE, SIDE), 255))
    data = load("train", small_root, n_modalities=2, backgrounds=plain_photos, scale=scale)
    assert ((data.modalities["m1"][:, 0] == 255).sum((1, 2)) == side ** 2).all()


@pytest.mark.parametrize("shift, places", [(0, {3}), (0.3, {2, 3, 4}), (0.5, {1, 2, 3, 4, 5}), (1, set(range(8)))])
def test_a_translated_digit_moves_as_far_as_it_may_around_the_middle(shift, places):
    made = factors("test", SHIPPED, n_modalities=2, shift=shift)
    assert set(made["y"].flat) == set(made["x"].flat) == places
    assert (made["instance"] == factors("test", SHIPPED, n_modalities=2)["instance"]).all()
    inked = load("test", SHIPPED, n_modalities=1, shift=shift, n=50)
    own = PolyMNIST(translated=True, shift=float(shift), n_modalities=1, n_test=50)
    assert digest(own.data("test")) == digest(inked)


def test_contrast_of_ink_and_ground_is_as_the_hypotheses_of_the_difficulty_map_say():
    said = (REPOSITORY / "data" / "results" / "difficulty.md").read_text()
    found = [np.abs(255 - 2 * photo.astype(float)).mean() / 255
             for photo in read_photos(photo_folder(SHIPPED, None), 5)]
    told = [float(x) for x in re.findall(r"\.\d\d", said[said.index("bytes b, is"):said.index("a test")])]
    assert told == pytest.approx(found, abs=0.0051)


def test_full_scale_equals_the_untranslated_set(small_root):
    translated = load("train", small_root, n_modalities=2, scale=1.0)
    assert digest(translated) == digest(load("train", small_root, n_modalities=2, translated=False))


def test_resizing_agrees_with_pillow_but_for_rounding():
    digits, _ = read_mnist(SHIPPED, "test", download=False)
    ours = resize(digits[:300], 21)
    pillow = [np.asarray(Image.fromarray(digit).resize((21, 21), Image.Resampling.BILINEAR)) for digit in digits[:300]]
    assert (ours != (np.stack(pillow) > 128)).mean() < 1e-3


def test_crops_come_from_everywhere_in_the_photo(small_root, tmp_path):
    write_idx(small_root / "mnist" / "train-images-idx3-ubyte.gz", np.zeros((2000, SIDE, SIDE)))
    write_idx(small_root / "mnist" / "train-labels-idx1-ubyte.gz", np.arange(2000) % 10)
    folder = tmp_path / "ramp"
    folder.mkdir()
    rows, columns = np.mgrid[:32, :30]
    ramp = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)
    Image.fromarray(ramp).save(folder / "ramp.png")
    x = load("train", small_root, n_modalities=1, backgrounds=folder).modalities["m0"]
    corners = {tuple(corner) for corner in x[:, :2, 0, 0].tolist()}
    assert corners == {(i, j) for i in range(5) for j in range(3)}
    assert (x[:, 0, -1, 0] - x[:, 0, 0, 0] == 27).all() and (x[:, 1, 0, -1] - x[:, 1, 0, 0] == 27).all()


def test_unpacked_files_and_torchvisions_folder_are_read(small_root):
    expected = digest(load("train", small_root))
    raw = small_root / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in list((small_root / "mnist").glob("*.gz")):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert digest(load("train", small_root)) == expected


# What is refused -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, message", [
    (dict(split="valid"), "unknown split 'valid'.*'train', 'test' and 'validation'"),
    (dict(n_modalities=0), "n_modalities=0.*from 1"),
    (dict(n_modalities=6), "5 photos, 6 modalities.*lower n_modalities to 5"),
    (dict(n_modalities=2.0), "n_modalities=2.0"),
    (dict(n_modalities=True), "n_modalities=True"),
    (dict(scale=0), "scale=0"),
    (dict(scale=1.1), "scale=1.1"),
    (dict(scale=0.01), "scale=0.01.*at least one"),
    (dict(scale=float("nan")), "scale=nan"),
    (dict(shift=-0.1), "shift=-0.1.*0 .*to 1"),
    (dict(shift=float("nan")), "shift=nan"),
    (dict(seed=-1), "seed=-1"),
    (dict(seed=0.5), "seed=0.5"),
    (dict(n=0), "n=0.*1 to 30"),
    (dict(n=31), "n=31.*1 to 30"),
    (dict(n=2.5), "n=2.5"),
    (dict(backgrounds="nowhere"), "'nowhere' is not a folder"),
])
def test_impossible_options(small_root, options, message):
    with pytest.raises(UserError, match=message):
        load(**{"split": "test", "root": small_root, **options})


def replace_torchvision(monkeypatch, fetch):
    """`fetch` in place of torchvision's MNIST; None: importing torchvision fails."""
    module = fetch and SimpleNamespace(datasets=SimpleNamespace(MNIST=fetch))
    monkeypatch.setitem(sys.modules, "torchvision", module)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", fetch and module.datasets)


def test_absent_mnist_is_never_downloaded_silently(tmp_path, monkeypatch):
    def fetch(*arguments, **options):
        raise OSError("no network")

    replace_torchvision(monkeypatch, None)
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz is not in .*download=True.*copy its four"):
        load("train", tmp_path)
    replace_torchvision(monkeypatch, fetch)
    with pytest.raises(UserError, match="could not be downloaded .*OSError: no network.*copy its four"):
        load("train", tmp_path, download=True)


def test_download_is_read_like_any_other_mnist(tmp_path, small_root, monkeypatch):
    def fetch(root, download):
        assert download
        (root / "MNIST" / "raw").mkdir(parents=True)
        for path in (small_root / "mnist").glob("*.gz"):
            shutil.copy(path, root / "MNIST" / "raw")

    replace_torchvision(monkeypatch, fetch)
    assert digest(load("test", tmp_path / "new", download=True)) == digest(load("test", small_root))


def test_cut_gzip(small_root):
    path = small_root / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz .*cut or damaged.*download it again"):
        load("train", small_root)
    path.write_bytes(b"<html>Not found</html>")
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz .*cut or damaged"):
        load("train", small_root)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz"):
        load("train", small_root)


def test_cut_unpacked_file(small_root):
    path = small_root / "mnist" / "train-images-idx3-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.unlink()
    for length in (0, 3, 10, len(content) - 1):
        (path.parent / path.stem).write_bytes(content[:length])
        with pytest.raises(UserError, match="train-images-idx3-ubyte (begins with|holds)"):
            load("train", small_root)


def test_wrong_magic(small_root):
    folder = small_root / "mnist"
    shutil.copy(folder / "train-labels-idx1-ubyte.gz", folder / "train-images-idx3-ubyte.gz")
    with pytest.raises(UserError, match="images-idx3-ubyte.gz begins with 00 00 08 01.*with 00 00 08 03"):
        load("train", small_root)


def test_unequal_counts(small_root):
    folder = small_root / "mnist"
    shutil.copy(folder / "t10k-labels-idx1-ubyte.gz", folder / "train-labels-idx1-ubyte.gz")
    with pytest.raises(UserError, match="60 digits, train-labels-idx1-ubyte.gz 30 labels"):
        load("train", small_root)


def test_wrong_picture_size_and_label(small_root):
    write_idx(small_root / "mnist" / "t10k-images-idx3-ubyte.gz", np.zeros((30, 32, 32)))
    with pytest.raises(UserError, match="32 x 32 pixels, MNIST has 28 x 28"):
        load("test", small_root)
    write_idx(small_root / "mnist" / "train-labels-idx1-ubyte.gz", np.arange(60) % 11)
    with pytest.raises(UserError, match="label 10 in row 10, digits are 0 to 9"):
        load("train", small_root)


# Photos ----------------------------------------------------------------------------------------------------

def test_photos_of_any_format_in_the_order_of_their_names(small_root, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.new("L", (30, 30), 200).save(folder / "c.bmp")
    Image.new("RGBA", (30, 30), (1, 2, 3, 9)).save(folder / "b.png")
    Image.new("P", (30, 30), 0).save(folder / "a.gif")
    (folder / "README.txt").write_text("not a photo")
    (folder / ".a.png").write_bytes(b"a trace of the file manager")
    data = load("test", small_root, n_modalities=3, backgrounds=folder, n=5)
    seen = [sorted(set(x[:, 2].flatten().tolist())) for x in data.modalities.values()]
    assert seen[1] == [3, 252] and seen[2] == [55, 200]


def test_too_few_photos(small_root, plain_photos):
    with pytest.raises(UserError, match="holds 3 photos, 4 modalities.*lower n_modalities to 3"):
        load("test", small_root, n_modalities=4, backgrounds=plain_photos)


def test_small_unreadable_and_deep_photos(small_root, plain_photos):
    path = plain_photos / "photo0.png"
    Image.new("RGB", (27, 100)).save(path)
    with pytest.raises(UserError, match="photo0.png has 27 x 100 pixels.*28 x 28"):
        load("test", small_root, n_modalities=1, backgrounds=plain_photos)
    Image.fromarray(np.zeros((30, 30), dtype=np.uint16)).save(path)
    with pytest.raises(UserError, match="photo0.png has more than 8 bits"):
        load("test", small_root, n_modalities=1, backgrounds=plain_photos)
    path.write_bytes((SHIPPED / "backgrounds" / "m0_hubble.png").read_bytes()[:5000])
    with pytest.raises(UserError, match="photo0.png cannot be read"):
        load("test", small_root, n_modalities=1, backgrounds=plain_photos)


# The released layout ---------------------------------------------------------------------------------------

def test_released_pictures_pair_by_number(released):
    root, pictures = released
    data = load("train", root, n_modalities=3)
    assert data.ids == [f"train/{row}" for row in range(12)]       # 10 and 11 behind 9, not behind 1
    assert data.labels.tolist() == [row % 10 for row in range(12)]
    for m, x in enumerate(data.modalities.values()):
        assert np.array_equal(x.permute(0, 2, 3, 1).numpy(), pictures[m])
    assert load("train", root, n_modalities=2).names == ["m0", "m1"]


def test_released_subset_holds_rows_of_the_full_set(released):
    root, pictures = released
    data = load("train", root, n_modalities=3, n=5)
    rows = [int(name.removeprefix("train/")) for name in data.ids]
    assert len(set(rows)) == 5
    assert np.array_equal(data.modalities["m2"].permute(0, 2, 3, 1).numpy(), pictures[2, rows])


def test_released_layout_read_back_from_a_built_set(small_root, tmp_path):
    built = load("test", small_root, n_modalities=2)
    for name, x in built.modalities.items():
        folder = tmp_path / "copy" / "test" / name
        folder.mkdir(parents=True)
        for row, (picture, digit) in enumerate(zip(x, built.labels)):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{row}.{digit}.png")
    data = load("test", tmp_path / "copy", n_modalities=2)
    assert digest(data) == digest(built) and torch.equal(data.labels, built.labels)


def test_released_digits_must_agree(released):
    root, _ = released
    (root / "train" / "m1" / "7.7.png").rename(root / "train" / "m1" / "7.3.png")
    with pytest.raises(UserError, match="row 7 is the digit 7 in .*m0/7.7.png and 3 in .*m1/7.3.png"):
        load("train", root, n_modalities=3)
    with pytest.raises(UserError, match="row 7 is the digit"):
        check(root)


@pytest.mark.parametrize("m", [0, 2])
def test_released_row_missing_in_one_modality(released, m):
    root, _ = released
    (root / "train" / f"m{m}" / "10.0.png").unlink()
    with pytest.raises(UserError, match=rf"row 10 is missing in .*m{m}, but .*10.0.png exists"):
        load("train", root, n_modalities=3)


def test_released_pictures_of_another_kind(released):
    root, _ = released
    path = root / "train" / "m2" / "5.5.png"
    Image.new("RGB", (27, 28)).save(path)
    with pytest.raises(UserError, match=r"5.5.png \(row 5\) is a picture of 27 x 28.*28 x 28 in RGB"):
        load("train", root, n_modalities=3)
    Image.new("L", (28, 28)).save(path)
    with pytest.raises(UserError, match=r"5.5.png \(row 5\).*mode L"):
        load("train", root, n_modalities=3)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"5.5.png \(row 5\) cannot be read"):
        load("train", root, n_modalities=3)


def test_released_names_and_folders(released):
    root, _ = released
    with pytest.raises(UserError, match="m3 is missing, 5 modalities need m0 to m4.*lower n_modalities"):
        load("train", root)
    with pytest.raises(UserError, match="test/m0 is missing"):
        load("test", root, n_modalities=3)
    with pytest.raises(UserError, match="test has no folders m0, m1"):
        check(root)
    with pytest.raises(UserError, match="drop `backgrounds`"):
        load("train", root, n_modalities=3, backgrounds=SHIPPED / "backgrounds")
    shutil.copy(root / "train" / "m0" / "3.3.png", root / "train" / "m0" / "3.4.png")
    with pytest.raises(UserError, match="row 3 of .* has two files"):
        load("train", root, n_modalities=3)
    (root / "train" / "m0" / "3.4.png").rename(root / "train" / "m0" / "three.png")
    with pytest.raises(UserError, match="three.png is not named <row>.<digit>.png"):
        load("train", root, n_modalities=3)
    for path in (root / "train" / "m0").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="m0 holds no pictures"):
        load("train", root, n_modalities=3)


# Verifying -------------------------------------------------------------------------------------------------

def test_check_passes_on_what_ships():
    report = check(SHIPPED)
    assert sum("SHA-256 as recorded" in line for line in report) == 9
    assert sum("label counts as published" in line for line in report) == 2
    assert sum(line.startswith("photo of m") for line in report) == 5


def test_every_file_that_ships_is_listed_with_its_hash():
    listed = {name for _, name in read_sums(SHIPPED)}
    there = {path.relative_to(SHIPPED).as_posix() for path in SHIPPED.rglob("*") if path.is_file()}
    assert listed == there - {"SHA256SUMS"}
    datasheet = (REPOSITORY / "data" / "README.md").read_text(encoding="utf-8")
    for digest_, name in read_sums(SHIPPED):
        size = (SHIPPED / name).stat().st_size
        assert digest_ in datasheet and f"{size:,}" in datasheet, f"data/README.md does not know {name}"


def test_check_names_every_problem(tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(SHIPPED, root)
    photo, labels = root / "backgrounds" / "m2_rocket.png", root / "mnist" / "t10k-labels-idx1-ubyte.gz"
    photo.write_bytes(photo.read_bytes()[:-1])
    digits = np.frombuffer(gzip.decompress(labels.read_bytes())[8:], dtype=np.uint8).copy()
    digits[5] = 9 - digits[5]
    write_idx(labels, digits)
    (root / "backgrounds" / "m4_chelsea.png").unlink()
    with pytest.raises(UserError) as caught:
        check(root)
    message = str(caught.value)
    assert "m2_rocket.png (202,857 bytes)" in message and "SHA-256" in message
    assert "m4_chelsea.png is missing" in message
    assert "t10k-labels-idx1-ubyte.gz has MD5" in message
    assert "train-images" not in message


def test_check_of_a_folder_without_recorded_hashes(small_root):
    with pytest.raises(UserError, match="has MD5 .* unpacked, MNIST's is"):
        check(small_root)
    shutil.copy(SHIPPED / "SHA256SUMS", small_root)
    (small_root / "SHA256SUMS").write_text("what is this\n")
    with pytest.raises(UserError, match="line 1: 'what is this' is not a SHA-256"):
        check(small_root)


def test_check_of_the_released_layout(released):
    root, _ = released
    shutil.copytree(root / "train", root / "test")
    assert check(root) == ["train: 12 rows in each of 3 modalities, digits equal",
                           "test: 12 rows in each of 3 modalities, digits equal"]
    report = check_data(root, n=5, seed=2)
    data = load("test", root, n_modalities=3, n=5, seed=2)
    assert report[2] == "train, 5 of 12: 5 samples of 3 modalities"
    assert "validation tuples of this layout are other tuples, but not of other handwriting" in report[7]
    assert report[-5:-1] == ["test, 5 of 12: 5 samples of 3 modalities", *(
        f"test, 5 of 12, {name}: (3, 28, 28) uint8, {x.min()} to {x.max()}; 0 samples missing"
        for name, x in data.modalities.items())]
    counts = ", ".join(f"{digit} {int(n)}" for digit, n in enumerate(data.labels.bincount(minlength=10)))
    assert report[-1] == f"test, 5 of 12, labels: 10 classes, {counts}"
    assert "train: 12 samples of 2 modalities" in check_data(root, n_modalities=2)


def test_check_builds_what_the_options_of_load_say(plain_photos):
    report = check_data(SHIPPED, backgrounds=str(plain_photos), translated=False, n=3, held_out=True)
    assert "photo of m2: photo2.png, 42 x 31 pixels" in report
    assert sum(line.startswith("photo of") for line in report) == 3
    assert "train, 3 of 55,000: 3 samples of 3 modalities" in report
    data = load("test", SHIPPED, n_modalities=3, backgrounds=plain_photos, translated=False, n=3)
    assert f"test, 3 of 10,000, m1: (3, 28, 28) uint8, 0 to {data.modalities['m1'].max()}; 0 samples missing" in report
    with pytest.raises(UserError, match="n_modalities=0: give a whole number"):
        check_data(SHIPPED, n_modalities=0)


def test_what_cannot_be_measured_is_refused_before_the_training(released, tmp_path):
    root, _ = released
    for path in [*root.rglob("*.png")]:
        path.rename(path.with_name(f"{path.name.split('.')[0]}.3.png"))
    with pytest.raises(UserError, match="test/m0 is missing: a set has the folders train and test, unpack or add"):
        load("test", root, n_modalities=3)
    shutil.copytree(root / "train", root / "test")
    p = PolyMNIST(root=str(root), n_train=12, n_test=12, epochs=1, out=str(tmp_path / "run"), device="cpu")
    with pytest.raises(UserError, match="all 12 training tuples show a 3: the probe and the coherence need two"):
        run(p)
    assert not list((tmp_path / "run").glob("*.safetensors"))
    for n in (None, 5):
        with pytest.raises(UserError, match="no row is left for the train split: the last 5,000 training rows"):
            load("train", root, n_modalities=3, held_out=True, n=n)
