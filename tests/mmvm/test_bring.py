"""What comes from other libraries is what they hold, and goes back in its place; a library that is absent is named.

anndata, mudata and xarray are optional: without them the tests that need one are skipped.
"""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mmvm import Laplace, Modality, MultimodalData, MultimodalVAE, NegativeBinomial, Normal, Poisson, bring
from mmvm.errors import UserError
from mmvm.evaluation import encode_means


@pytest.mark.parametrize("path, module, extra", [("a.h5ad", "anndata", "cells"), ("a.h5mu", "mudata", "cells")])
def test_an_absent_library_is_named_with_its_extra(path, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"needs the package {module}.*pip install 'mmvm\[{extra}\]'"):
        bring.from_cells(path)


def test_absent_xarray_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(UserError, match=r"needs the package xarray.*pip install 'mmvm\[xarray\]'"):
        bring.imputed(None, None)


# cells ---------------------------------------------------------------------------------------------------------------

@pytest.fixture
def cells():
    """30 cells; "rna" has all of them in another order, "atac" 20; counts of rna in a layer, sparse."""
    pytest.importorskip("anndata")
    mudata = pytest.importorskip("mudata")
    import anndata
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    names = np.array([f"cell{i}" for i in range(30)])
    counts = rng.negative_binomial(1, 0.1, (30, 5))
    rna = anndata.AnnData(np.log1p(counts).astype(np.float32), pd.DataFrame(index=names[::-1]),
                          pd.DataFrame(index=[f"gene{i}" for i in range(5)]), layers={"counts": csr_matrix(counts)})
    atac = anndata.AnnData(rng.poisson(2, (20, 4)).astype(np.float32), pd.DataFrame(index=names[5:25]))
    found = mudata.MuData({"rna": rna, "atac": atac})
    found.obs["type"] = pd.Categorical(np.where(np.arange(found.n_obs) % 3 == 0, "B", "A"))
    return found


@pytest.mark.filterwarnings("ignore")
def test_a_mudata_becomes_data_cell_by_cell(cells):
    said = []
    data = bring.from_cells(cells, layers={"rna": "counts"}, labels="type", say=said.append)
    assert data.names == ["rna", "atac"] and data.ids == list(cells.obs_names) and len(said) == 2
    assert isinstance(data.specs[0].likelihood, NegativeBinomial) and isinstance(data.specs[1].likelihood, Poisson)
    assert data.specs[0].features == tuple(f"gene{i}" for i in range(5))
    counts = cells["rna"].layers["counts"].toarray()
    for i, name in enumerate(data.ids):
        assert (data.modalities["rna"][i].numpy() == counts[list(cells["rna"].obs_names).index(name)]).all()
        there = name in cells["atac"].obs_names
        assert bool(data.observed[1, i]) == there
        if there:
            assert (data.modalities["atac"][i].numpy() == cells["atac"][name].X).all()
    assert [data.label_names[i] for i in data.labels] == list(cells.obs["type"])


@pytest.mark.filterwarnings("ignore")
def test_an_anndata_is_one_modality_and_choices_are_kept(cells):
    data = bring.from_cells(cells["rna"], say=None, cells=dict(likelihood=Normal(0.5), weight=2.0))
    assert data.names == ["cells"] and data.specs[0].weight == 2 and data.specs[0].likelihood == Normal(0.5)
    np.testing.assert_array_equal(data.modalities["cells"].numpy(), cells["rna"].X)


@pytest.mark.filterwarnings("ignore")
def test_files_are_read(cells, tmp_path):
    cells.write(tmp_path / "a.h5mu")
    cells["rna"].write(tmp_path / "a.h5ad")
    again = bring.from_cells(str(tmp_path / "a.h5mu"), layers={"rna": "counts"}, say=None)
    assert torch.equal(again.modalities["rna"], bring.from_cells(cells, {"rna": "counts"}, say=None).modalities["rna"])
    assert len(bring.from_cells(tmp_path / "a.h5ad", "counts", say=None)) == 30


@pytest.mark.filterwarnings("ignore")
def test_latents_go_back_to_their_cells(cells):
    data = bring.from_cells(cells, layers={"rna": "counts"}, say=None)
    model = MultimodalVAE.for_data(data, latent_dim=3, say=None)
    bring.latents_into(cells, model, data)
    np.testing.assert_array_equal(cells.obsm["X_mmvm"], model.shared(data).mean.numpy())
    own = encode_means(model, data).numpy()
    for i, name in enumerate(cells["atac"].obs_names):
        np.testing.assert_array_equal(cells["atac"].obsm["X_mmvm"][i], own[1, data.ids.index(name)])
    assert cells["atac"].obsm["X_mmvm"].shape == (20, 3) and not np.isnan(cells["rna"].obsm["X_mmvm"]).any()
    with pytest.raises(UserError, match="other cells, or in another order"):
        bring.latents_into(cells, model, data.subset(torch.arange(29, -1, -1)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options, message", [
    (dict(layers={"rna": "raw"}), "'rna' has no layer 'raw'; there are counts"),
    (dict(layers={"protein": "counts"}), "no modality protein: there are rna, atac"),
    (dict(protein={}), "no modality protein"), (dict(labels="celltype"), "every cell in 'celltype': choose from type")])
def test_mistakes_with_cells_are_one_clear_line(cells, options, message):
    with pytest.raises(UserError, match=message):
        bring.from_cells(cells, say=None, **options)


@pytest.mark.filterwarnings("ignore")
def test_names_of_cells_that_occur_twice_are_refused(cells):
    cells["atac"].obs_names = ["x", *cells["atac"].obs_names[:-2], "x"]
    with pytest.raises(UserError, match="obs_names_make_unique"):
        bring.from_cells(cells["atac"], say=None)


# pictures ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def roots(tmp_path):
    """Photographs of four samples of two classes; sketches of three, as grey files of another size and suffix."""
    for root, kind, size, skipped in (("photo", "RGB", (40, 20), ()), ("sketch", "L", (16, 16), ("owl/2",))):
        for n, sample in enumerate(("cat/1", "cat/2", "owl/1", "owl/2")):
            if sample not in skipped:
                path = (tmp_path / root / sample).with_suffix(".png" if kind == "RGB" else ".bmp")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new(kind, size, (10 * n, 0, 200) if kind == "RGB" else 50 * n).save(path)
    return {"photo": tmp_path / "photo", "sketch": str(tmp_path / "sketch")}


def test_folders_of_pictures_are_matched_by_class_and_name(roots):
    data = bring.from_folders(roots, size=8)
    assert data.ids == ["cat/1", "cat/2", "owl/1", "owl/2"] and data.label_names == ("cat", "owl")
    assert data.labels.tolist() == [0, 0, 1, 1] and data.observed.tolist() == [[True] * 4, [True] * 3 + [False]]
    assert data.modalities["photo"].shape == (4, 3, 8, 8) and data.modalities["photo"].dtype == torch.uint8
    for n in range(4):
        assert data.modalities["photo"][n, :, 4, 4].tolist() == [10 * n, 0, 200]
    assert data.modalities["sketch"][:, 0, 4, 4].tolist() == [0, 50, 100, 0]
    assert data.specs[0] == Modality("photo", (3, 8, 8), Laplace(), scale=1 / 255)


def test_pictures_are_cut_around_their_middle(tmp_path):
    (tmp_path / "a").mkdir()
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "a" / "1.png")
    data = bring.from_folders({"x": tmp_path}, size=(10, 10), colour=False, x=dict(likelihood=Normal(0.1)))
    assert data.modalities["x"].shape == (1, 1, 10, 10) and (data.modalities["x"] == 255).all()
    assert data.specs[0] == Modality("x", (1, 10, 10), Normal(0.1), scale=1 / 255)


def test_a_model_trains_on_folders(roots):
    data = bring.from_folders(roots, size=16)
    model = MultimodalVAE.for_data(data, latent_dim=2, say=None)
    batch = data.batch(torch.arange(4))
    assert model(batch.x, batch.observed).loss.isfinite().all()


def test_mistakes_with_folders_are_one_clear_line(roots, tmp_path):
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="0 pictures"):
        bring.from_folders({"x": tmp_path / "empty"})
    with pytest.raises(UserError, match="correct it"):
        bring.from_folders({"x": tmp_path / "nowhere"})
    (tmp_path / "deep" / "cat").mkdir(parents=True)
    Image.fromarray(np.full((9, 9), 3_000, np.uint16)).save(tmp_path / "deep" / "cat" / "1.png")
    with pytest.raises(UserError, match="1.png has more than 8 bits a pixel"):
        bring.from_folders({"x": tmp_path / "deep"})
    with pytest.raises(UserError, match="give each root a name"):
        bring.from_folders(roots, photos=dict(weight=2.0))
    (tmp_path / "photo" / "cat" / "1.jpg").write_bytes((tmp_path / "photo" / "cat" / "2.png").read_bytes())
    with pytest.raises(UserError, match="5 pictures, of 4 different names"):
        bring.from_folders(roots)
    (tmp_path / "photo" / "cat" / "1.jpg").unlink()
    (tmp_path / "photo" / "cat" / "2.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="2.png cannot be read as a picture"):
        bring.from_folders(roots)


# coordinates ---------------------------------------------------------------------------------------------------------

def mixed():
    torch.manual_seed(0)
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 3)), index=list("uvwxyz"), columns=["p", "q", "r"])
    observed = torch.ones(2, 6, dtype=torch.bool)
    observed[0, 2] = False
    return MultimodalData({"table": frame, "image": torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)},
                          (Modality("table", (3,), Normal(), standardise=True),
                           Modality("image", (3, 16, 16), Laplace(), scale=1 / 255)), list("AABBAB"), observed)


def test_imputations_know_their_coordinates():
    xarray = pytest.importorskip("xarray")
    data = mixed()
    model = MultimodalVAE.for_data(data, latent_dim=2, say=None).eval()
    before = torch.get_rng_state()
    found = bring.imputed(model, data, seed=3)
    assert torch.equal(before, torch.get_rng_state()) and isinstance(found, xarray.Dataset)
    assert found["image"].dims == ("sample", "image_channel", "image_row", "image_column")
    torch.manual_seed(3)
    batch = data.batch(torch.arange(6))
    expected = model.impute(batch.x, batch.observed)
    np.testing.assert_array_equal(found["image"].values, expected["image"].detach().numpy())
    np.testing.assert_array_equal(found["table"].sel(sample="w", table_feature="q").item(),
                                  expected["table"][2, 1].item())
    assert found["table_observed"].sel(sample="w").item() is False and found["image_observed"].all()
    assert list(found["label"].values) == list("AABBAB")
    assert float(found["table"].where(~found["table_observed"], drop=True).sizes["sample"]) == 1


def test_only_the_targets_are_imputed():
    pytest.importorskip("xarray")
    data = mixed()
    assert list(bring.imputed(MultimodalVAE.for_data(data, latent_dim=2, say=None), data, "table")) == ["table"]
