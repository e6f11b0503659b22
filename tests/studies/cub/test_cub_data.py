"""CUB's files: the painted stand-in in the official layout, the loader's checks, captions, splits and the cache."""

import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from mmvm.__main__ import main
from mmvm.errors import UserError
from mmvm.likelihoods import Categorical
from studies.cub import attributes as cub_attributes, cache as cub_cache, data as cub
from studies.cub.captions import COLOUR_GROUPS, EOS, PAD, SPECIAL, UNK, Vocabulary, as_text, colour_groups, tokenise
from studies.cub.standin import captions as bird_captions, files as cub_standin, paint as birds, species as bird_species

N_IMAGES, N_SPECIES = 36, 8


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    return cub.simulate(tmp_path_factory.mktemp("cub") / "set", N_IMAGES, N_SPECIES, seed=3)


@pytest.fixture
def copy(painted, tmp_path) -> Path:
    """The stand-in in a folder that a test may damage."""
    return Path(shutil.copytree(painted, tmp_path / "copy", ignore=shutil.ignore_patterns(".mmvm-cache")))


@pytest.fixture(scope="module")
def train(painted):
    return cub.load("train", painted)


@pytest.fixture(scope="module")
def test(painted):
    return cub.load("test", painted)


def images_of(data) -> set[str]:
    return {name.split("#")[0] for name in data.ids}


# the painter

def painting(seed: int = 0, **changes):
    draw = Random(seed)
    bird = bird_species.draw_bird(draw, bird_species.draw_species(draw))
    bird = bird_species.Bird(**{**vars(bird), **changes})
    return bird, birds.paint(bird, draw)


def test_the_same_seed_paints_the_same_bird():
    a, b, c = painting(1)[1], painting(1)[1], painting(2)[1]
    assert np.array_equal(a.image, b.image) and a.shares == b.shares
    assert a.image.shape != c.image.shape or not np.array_equal(a.image, c.image)


def test_draws_do_not_depend_on_the_order_of_a_set():
    bird, _ = painting(3)
    tones = birds.Canvas(bird, Random(0), 96, 72).tone
    assert list(tones) == list(dict.fromkeys(bird.colours.values()))


@pytest.mark.parametrize("pose", bird_species.POSES)
def test_a_bird_is_whole_in_its_picture_and_its_shares_add_up(pose):
    for seed in range(5):
        _, picture = painting(seed, pose=pose)
        assert picture.image.dtype == np.uint8 and max(picture.image.shape) == birds.LONG_SIDE
        assert sum(picture.shares.values()) == pytest.approx(1) and min(picture.shares.values()) >= 0
        assert 0.04 < picture.pixels / picture.image[..., 0].size < 0.8


def test_colours_are_seen_where_they_are_said_to_be():
    """Two birds that differ in one colour differ in about as many pixels as its part is said to take up."""
    bird, before = painting(5, pose="perched")
    colour = "red" if bird.colours["wings"] != "red" else "blue"
    # the palette's order decides which random numbers a tone gets: give both birds the same palette
    first = bird_species.Bird(bird.species, {**bird.colours, "legs": "red", "eye": "blue"}, "perched", False)
    second = bird_species.Bird(first.species, {**first.colours, "wings": colour}, "perched", False)
    pictures = [birds.paint(b, Random(9)) for b in (first, second)]
    if set(first.colours.values()) == set(second.colours.values()):
        changed = (np.abs(pictures[0].image.astype(int) - pictures[1].image).max(-1) > 40).sum()
        assert changed == pytest.approx(pictures[0].shares["wings"] * pictures[0].pixels, rel=0.4)
    assert pictures[0].shares == pytest.approx(pictures[1].shares)


def test_a_grey_picture_has_no_colour():
    bird, picture = painting(4, grey=True)
    assert (picture.image == picture.image[..., :1]).all()


# captions

def test_captions_name_only_what_is_seen_and_never_everything():
    for seed in range(30):
        bird, picture = painting(seed)
        seen = bird_captions.visible(picture)
        allowed = {bird.colours[part] for part in seen} | ({"white"} if bird.species.wing_bars or bird.species.eye_ring
                                                           else set())
        mentioned = set()
        for sentence in bird_captions.captions(bird, picture, Random(seed)):
            tokens = tokenise(sentence)
            assert len(tokens) < cub.LENGTH
            named = {token.replace("gray", "grey") for token in tokens} & set(cub_attributes.COLOURS)
            assert named <= allowed, sentence
            own = {part for part, words in bird_captions.WORDS.items() if any(word in sentence for word in words)}
            assert len(own & set(seen)) < len(seen), "all parts in one sentence"
            mentioned |= own
            assert not ("rest of" in sentence and len(set(bird.colours.values())) == 1)
        assert len(mentioned) >= 3


def test_captions_are_varied():
    bird, picture = painting(0)
    sentences = bird_captions.captions(bird, picture, Random(0), 200)
    assert len(set(sentences)) > 150 and len({" ".join(s.split()[:2]) for s in sentences}) > 8


@pytest.mark.parametrize("text, tokens", [
    ("This bird's wings are Black, and white.",
     ["this", "bird", "'s", "wings", "are", "black", ",", "and", "white", "."]),
    ("medium-sized bird (grey)", ["medium-sized", "bird", "(", "grey", ")"]),
    ("  a   3 inch\tbill ", ["a", "3", "inch", "bill"]),
    ("caf\u00e9 \ufffd_x", ["caf\u00e9", "\ufffd", "_", "x"]),
    ("", []),
])
def test_tokens(text, tokens):
    assert tokenise(text) == tokens


def test_vocabulary_counts_more_than_and_keeps_its_specials_first():
    vocabulary = Vocabulary.of([["red", "bird", "."]] * 3 + [["bird"]] * 2 + [["blue"]] * 4, more_than=3)
    assert vocabulary.words == (*SPECIAL, "bird", "blue")  # five, four; "red" and "." occur three times only
    row = vocabulary.encode(["blue", "red", "bird"], 6)
    assert row.tolist() == [4, UNK, 3, EOS, PAD, PAD]
    assert vocabulary.decode(row) == ["blue", "<unk>", "bird"]
    assert vocabulary.encode(["blue"] * 9, 4).tolist() == [4, 4, 4, EOS], "cut, with its end"
    assert as_text(["a", "bird", "'s", "wing", ",", "red", "."]) == "a bird's wing, red."


def test_colour_words_have_the_papers_groups():
    assert [len(names) for names in COLOUR_GROUPS.values()] == [7, 1, 1, 4, 1, 1]
    assert sorted(sum(COLOUR_GROUPS.values(), ())) == sorted(cub_attributes.COLOURS) == sorted(bird_species.COLOURS)
    assert colour_groups(tokenise("a gray and Olive bird, reddish")) == {2, 3, 0}


# attributes

def test_attribute_numbers_are_the_official_ones():
    assert len(cub_attributes.NAMES) == 312 and cub_attributes.PRIMARY == tuple(range(249, 264))
    assert cub_attributes.NAMES[0] == "has_bill_shape::curved_(up_or_down)"
    assert cub_attributes.NAMES[248] == "has_primary_color::blue" and cub_attributes.NAMES[262].endswith("::buff")


def test_malformed_rows_are_read_by_their_first_fields_or_left_out(tmp_path):
    path = tmp_path / "image_attribute_labels.txt"
    path.write_text("1 249 1 4 3.2\n1 250 0 3 1\n1 253 1 0 3 5.5\n1 254 1 0 0 3 5.5\n2 259\n2 x 1 1 1\n2 999 1 4 1\n"
                    "2 263 1 4 2.5\n7 1 1 4 2\n")
    rows = cub_attributes.read(path)
    assert (rows.n_rows, rows.n_repaired, rows.n_skipped) == (9, 2, 3)
    assert set(rows.colours) == {1, 2, 7} and not rows.colours[7].any()
    assert [cub_attributes.COLOURS[i] for i in np.flatnonzero(rows.colours[1])] == ["blue", "rufous", "grey"]
    assert cub_attributes.merged(rows.colours[2]).tolist() == [False, False, False, True, False, False]
    assert cub_attributes.merged(rows.colours[1]).tolist() == [True, False, True, False, False, False]


@pytest.mark.parametrize("text, message", [("", "0 of 0 rows"), ("a b c d e\nf g h i j\n", "2 of 2 rows are not")])
def test_a_foreign_attribute_file_is_refused(tmp_path, text, message):
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        cub_attributes.read(tmp_path / "labels.txt")


def test_labels_are_what_the_picture_shows(painted):
    """The stand-in's primary colours come from the painted areas: at least 18 % of the bird."""
    labels = cub.load("train", painted, split_by="official", captions_per_image=1).labels
    other = cub.load("test", painted, split_by="official", captions_per_image=1).labels
    counts = torch.cat([labels, other]).sum(1)
    assert counts.min() >= 1 and counts.max() <= 5 and 1.2 < counts.float().mean() < 2.6


# the stand-in on disk

def test_the_stand_in_has_the_official_layout_with_its_oddities(painted):
    base = painted / "CUB_200_2011"
    names = [line.split()[1] for line in (base / "images.txt").read_text().splitlines()]
    assert len(names) == N_IMAGES and len((base / "classes.txt").read_text().splitlines()) == N_SPECIES
    modes, sizes = set(), set()
    for name in names:
        with Image.open(base / "images" / name) as image:
            modes.add(image.mode)
            sizes.add(image.size)
        assert len((painted / "text_c10" / name).with_suffix(".txt").read_text().splitlines()) == 10
    assert modes == {"RGB", "L"} and len(sizes) > 1
    rows = cub_attributes.read(base / "attributes" / "image_attribute_labels.txt")
    assert rows.n_rows == 312 * N_IMAGES and rows.n_repaired and rows.n_skipped
    assert len((painted / "attributes.txt").read_text().splitlines()) == 312


def test_settings_that_are_cut_are_those_of_no_set(tmp_path):
    (tmp_path / "standin.json").write_text('{"version": 1,')
    with pytest.raises(UserError, match="exists and is no stand-in of these settings"):
        cub.simulate(tmp_path, 8, 4)


def test_a_complete_stand_in_is_left_alone_and_anything_else_refused(painted, tmp_path, monkeypatch):
    before = (painted / "standin.json").stat().st_mtime_ns
    assert cub.simulate(painted, N_IMAGES, N_SPECIES, seed=3) == painted
    assert (painted / "standin.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="exists and is no stand-in of these settings"):
        cub.simulate(painted, N_IMAGES, N_SPECIES, seed=4)
    with pytest.raises(UserError, match="at least two images of each"):
        cub.simulate(tmp_path / "x", 9, 8)

    def fails(*arguments):
        raise OSError("disk full")
    monkeypatch.setattr(cub_standin, "paint", fails)
    with pytest.raises(OSError, match="disk full"):
        cub.simulate(tmp_path / "half", 8, 4)
    assert not list(tmp_path.iterdir()), "half a set is no set"


# the loader

def test_pairs_and_what_describes_them(train, test, painted):
    assert train.names == ["image", "text"] and len(train) + len(test) == 10 * N_IMAGES
    image, text = train.specs
    assert image.shape == (3, 64, 64) and text.shape == (32,)
    assert text.likelihood == Categorical(ignore=PAD) and text.weight == 128
    assert cub.load("train", painted, pads_counted=True).specs[1].likelihood == Categorical()
    batch = train.batch(torch.tensor([0, 9, 10]))
    assert batch.x[0].shape == (3, 3, 64, 64) and batch.x[0].dtype == torch.uint8
    assert torch.equal(batch.x[0][0], batch.x[0][1]) and not torch.equal(batch.x[0][0], batch.x[0][2])
    assert batch.labels.shape == (3, 6) and batch.labels.dtype == torch.bool
    ends = (train.modalities["text"] == EOS).sum(1)
    assert (ends == 1).all(), "one end per caption"
    after = train.modalities["text"].flatten()[1:][(train.modalities["text"] == EOS).flatten()[:-1]]
    assert set(after.tolist()) <= {PAD, *train.modalities["text"][:, 0].tolist()}


def test_captions_and_images_belong_together(train, painted):
    for row in (0, 15, len(train) - 1):
        name, number = train.ids[row].split("#")
        line = (painted / "text_c10" / name).with_suffix(".txt").read_text().splitlines()[int(number)]
        words = train.vocabulary.decode(train.modalities["text"][row].tolist())
        assert [word for word in words if word != "<unk>"] == [t for t in tokenise(line) if t in train.vocabulary.index]
        pixels = cub.read_image(painted / "CUB_200_2011" / "images" / name)
        assert np.array_equal(train.modalities["image"][row].numpy(), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("split_by", ["classes", "official"])
def test_no_image_is_in_both_splits(painted, split_by):
    parts = [images_of(cub.load(split, painted, split_by=split_by)) for split in ("train", "test")]
    assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == N_IMAGES
    folders = [{name.split("/")[0] for name in part} for part in parts]
    assert bool(folders[0] & folders[1]) == (split_by == "official")


def test_the_vocabulary_is_of_the_training_split_only(copy):
    names = sorted(images_of(cub.load("test", copy)))
    for name in names:
        (copy / "text_c10" / name).with_suffix(".txt").write_text("quokka quokka\n" * 10)
    train, test = cub.load("train", copy), cub.load("test", copy)
    assert "quokka" not in train.vocabulary.index and train.vocabulary == test.vocabulary
    assert (test.modalities["text"][:, 0] == UNK).all()
    for name in sorted(images_of(train)):
        (copy / "text_c10" / name).with_suffix(".txt").write_text("wombat\n")
    small = cub.load("train", copy)  # and the cache noticed
    assert "wombat" in small.vocabulary.index and len(small) == len(train) // 10
    assert any("other than ten captions" in line for line in small.report)


def test_class_lists_decide_where_they_are_there(copy):
    names = [line.split()[1] for line in (copy / "CUB_200_2011" / "classes.txt").read_text().splitlines()]
    (copy / "text_c10" / "testclasses.txt").write_text("\n".join(names[:2]))
    (copy / "text_c10" / "trainvalclasses.txt").write_text("\n".join(names[2:]))
    assert {name.split("/")[0] for name in images_of(cub.load("test", copy))} == set(names[:2])
    (copy / "text_c10" / "trainvalclasses.txt").write_text("\n".join(names[3:]))
    with pytest.raises(UserError, match="class 3 is in neither of trainvalclasses.txt and testclasses.txt"):
        cub.load("test", copy)
    (copy / "text_c10" / "trainvalclasses.txt").write_text("\n".join(names[1:]))
    with pytest.raises(UserError, match="class 2 is in both"):
        cub.load("test", copy)


def test_labels_of_captions_and_of_classes(painted):
    data = cub.load("train", painted, labels="captions", captions_per_image=10)
    name = data.ids[0].split("#")[0]
    lines = (painted / "text_c10" / name).with_suffix(".txt").read_text().splitlines()
    share = np.mean([[group in colour_groups(tokenise(line)) for group in range(6)] for line in lines], 0)
    assert data.labels[0].tolist() == (share >= 0.3).tolist()
    classes = cub.load("train", painted, labels="classes")
    assert classes.n_classes == N_SPECIES and set(classes.labels.tolist()) == {0, 1, 2, 4, 5, 6}
    assert classes.label_names[0] == name.split("/")[0]


def test_images_of_any_format_size_and_mode(copy):
    folder = copy / "CUB_200_2011" / "images"
    names = (copy / "CUB_200_2011" / "images.txt").read_text().splitlines()
    first, second = (folder / line.split()[1] for line in names[:2])
    stripes = np.zeros((20, 60, 3), np.uint8)
    stripes[:, :20], stripes[:, 40:] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(stripes).save(first, format="PNG")      # the name does not matter
    Image.fromarray(stripes).convert("CMYK").save(second)
    squashed, centred = (cub.load("train", copy, crop=crop).modalities["image"][0] for crop in ("squash", "centre"))
    assert squashed[0, 32, 5] > 200 and squashed[2, 32, 58] > 200, "the whole picture"
    assert centred.max() == 0, "the middle square"
    assert cub.read_image(second).shape == (64, 64, 3)


def test_absent_and_broken_files_are_named(copy):
    base = copy / "CUB_200_2011"
    number, name = (base / "images.txt").read_text().splitlines()[4].split()
    text = (copy / "text_c10" / name).with_suffix(".txt")
    text.write_text("")
    with pytest.raises(UserError, match=rf"1 of {N_IMAGES} images have no caption file, the first is .*{text.name} "
                                        rf"\(image {number}\): unpack the archives again, or use missing='skip'"):
        cub.load("train", copy)
    skipped = [cub.load(split, copy, missing="skip") for split in ("train", "test")]
    assert sum(map(len, skipped)) == 10 * (N_IMAGES - 1) and name not in images_of(skipped[0]) | images_of(skipped[1])
    assert any("1 images without caption file skipped" in line for line in skipped[0].report)
    (base / "images" / name).unlink()
    assert any("without image file" in line for line in cub.load("train", copy, missing="skip").report)
    with pytest.raises(UserError, match=r"(?s)1 of 36 image files are missing.*1 of 36 caption files.*The files: CUB"):
        cub.check(copy)
    other = (base / "images.txt").read_text().splitlines()[5].split()[1]
    (base / "images" / other).write_bytes(b"no image")
    with pytest.raises(UserError, match=f"the image .*{other} cannot be read"):
        cub.load("train", copy, missing="skip")


@pytest.mark.parametrize("file, text, message", [
    ("images.txt", "1 a/b.jpg\n1 a/c.jpg\n", "row 2: '1 a/c.jpg' is a number that came before"),
    ("images.txt", "1 a/b.jpg\nx\n", "row 2: 'x' is not 'number value'"),
    ("images.txt", "1 a/b.jpg\n2 a/b.jpg\n", "names a/b.jpg twice"),
    ("images.txt", "\n", "images.txt is empty"),
    ("image_class_labels.txt", "1 1\n", "has no row for image 2 .* was expected: restore the file from CUB_200"),
    ("train_test_split.txt", "\n".join(f"{i} 2" for i in range(1, 99)), "gives image 1 the value '2'"),
])
def test_inconsistent_lists_are_named_with_their_row(copy, file, text, message):
    (copy / "CUB_200_2011" / file).write_text(text)
    with pytest.raises(UserError, match=message):
        cub.load("train", copy)


def test_options_and_roots_that_do_not_exist(painted, tmp_path):
    for name, value in (("split", "val"), ("split_by", "x"), ("labels", "x"), ("crop", "x"), ("missing", "x")):
        with pytest.raises(UserError, match=f"^{name} must be one of"):
            cub.load(**{"split": "train", "root": painted, name: value})
    with pytest.raises(UserError, match="captions_per_image must be at least 1"):
        cub.load("train", painted, captions_per_image=0)
    with pytest.raises(UserError, match="python -m mmvm data cub --root .* --simulate`, or unpack there CUB_200"):
        cub.load("train", tmp_path)


def test_attributes_that_are_absent_leave_the_other_labels(copy):
    (copy / "CUB_200_2011" / "attributes" / "image_attribute_labels.txt").unlink()
    with pytest.raises(UserError, match="use labels='captions'"):
        cub.load("train", copy)
    assert cub.load("train", copy, labels="captions").labels.any()
    assert any("image_attribute_labels.txt is absent" in line for line in cub.check(copy))


def test_check_reports_counts_splits_and_attribute_rows(painted):
    text = "\n".join(cub.check(painted))
    assert f"{N_IMAGES} images of {N_SPECIES} classes: CUB-200-2011 has 11,788 of 200, so this is a subset or a" in text
    assert "1 grey" in text and "360, ten for each image" in text
    lines = (painted / "CUB_200_2011" / "train_test_split.txt").read_text().splitlines()
    n_train = sum(line.endswith(" 1") for line in lines)
    assert f"train_test_split.txt; {n_train} images for training, {N_IMAGES - n_train} for testing" in text
    assert "every fourth of 8 classes" in text and "11,232 attribute rows" in text


# the cache

def test_the_cache_is_used_and_made_anew_when_stale_or_cut(copy):
    before = cub.load("train", copy)
    fourth, first = before.modalities["image"][3].clone(), before.ids[0].split("#")[0]
    del before      # a file that is mapped must not be cut
    entry = copy / ".mmvm-cache" / "images-squash"
    stamp = (entry / "entry.json").stat().st_mtime_ns
    cub.load("test", copy)
    assert (entry / "entry.json").stat().st_mtime_ns == stamp, "used by both splits"
    with open(entry / "pixels.npy", "r+b") as file:
        file.truncate(1000)
    assert torch.equal(cub.load("train", copy).modalities["image"][3], fourth)
    (entry / "entry.json").write_text("{")
    assert torch.equal(cub.load("train", copy).modalities["image"][3], fourth)
    path = copy / "CUB_200_2011" / "images" / first
    Image.fromarray(np.full((50, 40, 3), 200, np.uint8)).save(path)
    after = cub.load("train", copy)
    assert (after.modalities["image"][0].float() - 200).abs().max() < 3, "a changed file is read again"


def test_what_is_written_to_cached_arrays_stays_in_the_process(copy):
    data = cub.load("train", copy)
    data.modalities["image"].values[:] = 7
    assert (cub.load("train", copy).modalities["image"][0] != 7).any()


def test_a_folder_without_write_access_is_cached_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(cub_cache.os, "access", lambda path, mode: False)
    (tmp_path / "root").mkdir()
    arrays, facts = cub_cache.cached(tmp_path / "root", "x", "key", lambda: ({"a": np.arange(3)}, {"n": 1}))
    assert arrays["a"].tolist() == [0, 1, 2] and facts == {"n": 1}
    assert list((tmp_path / "runs" / "cache").glob("*/x/a.npy"))


# rows that share an image

def test_repeated_rows_behave_like_a_tensor(train):
    values = torch.arange(12).view(3, 4)
    rows = cub.Repeated(values, torch.tensor([0, 0, 2, 1]))
    assert rows.shape == (4, 4) and len(rows) == 4 and rows.numel() == 12 and rows.element_size() == 8
    assert torch.equal(rows.index_select(0, torch.tensor([2, 3])), values[[2, 1]])
    assert torch.equal(rows[1], values[0]) and torch.equal(rows[1:3], values[[0, 2]])
    assert torch.equal(rows.to("cpu")[:], values[[0, 0, 2, 1]])
    part = train.subset(torch.tensor([0, 11]))
    assert isinstance(part.modalities["image"], torch.Tensor) and part.vocabulary is train.vocabulary


# the command line

def test_the_command_paints_and_checks(painted, copy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cub, "simulate", lambda root: cub_standin.simulate(root, 16, 8))
    root = str(tmp_path / "new")
    assert main(["data", "cub", "--root", root, "--simulate", "--check"]) == 0
    said = capsys.readouterr().out
    assert f"written to {root}" in said and "16 images of 8 classes" in said and "4,992 attribute rows" in said
    assert main(["data", "cub"]) == 0 and "Files, as the archives unpack" in capsys.readouterr().out
    shutil.rmtree(copy / "text_c10")
    assert main(["data", "cub", "--root", str(copy), "--check"]) == 2
    assert "holds no text_c10, the folder of captions: copy it there from cvpr2016" in capsys.readouterr().err


@pytest.mark.parametrize("name, line, message", [
    ("images.txt", "\u00b2 a/b.jpg", "is not 'number value'"), ("images.txt", "9" * 5_000 + " a", "is not 'number"),
    ("classes.txt", "999999999 x", "names class 999999999, at most 1000 were expected")])
def test_a_number_that_is_none_is_named(copy, name, line, message):
    with open(copy / "CUB_200_2011" / name, "a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message):
        cub.load("train", copy)
