"""CUB's networks, multi-label scores, caption quality and whole runs, tiny ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SEED
from torch import nn

from mmvm import MMVM, Independent, Modality, MultimodalData, MultimodalVAE, Normal
from mmvm.errors import UserError
from mmvm.evaluation import multilabel
from mmvm.likelihoods import Categorical
from mmvm.objectives import METHODS
from mmvm.study import load, results, run
from studies.cub import caption_quality
from studies.cub.captions import EOS, PAD, tokenise
from studies.cub.networks import (
    ImageAttributeClassifier,
    ImageDecoder,
    ImageEncoder,
    TextAttributeClassifier,
    TextDecoder,
    TextEncoder,
)
from studies.cub.study import CUB

TINY = dict(n_images=40, captions_per_image=3, n_test=20, epochs=1, batch_size=16, latent_dim=4,
            network="conv:image_channels=2,text_channels=2,embedding_dim=32", n_probe=40, classifier_epochs=1,
            device="cpu")


def tiny(**changes) -> CUB:
    return CUB(**{**TINY, **changes})


@pytest.fixture(scope="module", autouse=True)
def _folders(tmp_path_factory):
    """The stand-in, its cache and the classifiers in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMVM_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setenv("MMVM_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.fixture(scope="module")
def train():
    return tiny().data("train")


@pytest.fixture(scope="module")
def test():
    return tiny().data("test")


# networks

def sizes(network: nn.Module, x: torch.Tensor) -> list[tuple]:
    """Shapes after every convolution."""
    found = []
    hooks = [layer.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape[1:])))
             for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]
    network(x)
    for hook in hooks:
        hook.remove()
    return found


def test_image_networks_are_the_papers():
    encoder, decoder = ImageEncoder(128), ImageDecoder(128)
    assert sizes(encoder, torch.rand(2, 3, 64, 64)) == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (128, 1, 1), (128, 1, 1)]
    assert sizes(decoder, torch.randn(2, 128)) == [
        (512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32), (3, 64, 64)]
    out = decoder(100 * torch.randn(3, 128))
    assert 0 <= out.min() and out.max() <= 1
    assert [part.shape for part in encoder(torch.rand(1, 3, 64, 64))] == [(1, 128)] * 2, "also a batch of one"


def test_text_networks_are_the_papers():
    encoder, decoder = TextEncoder(1868, 128), TextDecoder(1868, 128)
    tokens = torch.randint(1868, (2, 32))
    assert sizes(encoder, tokens) == [
        (32, 16, 64), (64, 8, 32), (128, 4, 16), (128, 4, 8), (128, 4, 4), (128, 1, 1), (128, 1, 1)]
    assert sizes(decoder, torch.randn(2, 128)) == [
        (128, 4, 4), (128, 4, 8), (128, 4, 16), (64, 8, 32), (32, 16, 64), (1, 32, 128)]
    assert decoder(torch.randn(2, 128)).shape == (2, 1868, 32)
    assert encoder.embedding.padding_idx == PAD and decoder.words.in_features == 128


@pytest.mark.parametrize("width", [32, 64, 256])
def test_text_networks_of_other_widths(width):
    mean, logvar = TextEncoder(9, 5, 2, width)(torch.randint(9, (3, 32)))
    assert mean.shape == logvar.shape == (3, 5) and TextDecoder(9, 5, 2, width)(mean).shape == (3, 9, 32)


@pytest.mark.parametrize("width", [16, 48])
def test_text_networks_refuse_widths_that_cannot_be_halved(width):
    with pytest.raises(UserError, match=f"embedding_dim must be a power of two, 32 or more, got {width}"):
        TextEncoder(9, 5, 2, width)


@pytest.mark.parametrize("token", [9, -1, 4_000])
@pytest.mark.parametrize("network", [lambda: TextEncoder(9, 5, 2, 32), lambda: TextAttributeClassifier(9, 6, 4, 8)])
def test_a_token_that_is_no_word_is_named(token, network):
    network, x = network(), torch.full((3, 32), 8)
    network(x)
    x[1, 1] = token
    for mode in (True, False):
        with pytest.raises(UserError, match=f"token {token} is no word: the vocabulary has 9 words, 0 to 8; number"):
            network.train(mode)(x)


def test_tokens_as_floats_are_named():
    with pytest.raises(UserError, match=r"captions are stored as floats: .*x.long\(\)"):
        TextEncoder(9, 5, 2, 32)(torch.zeros(3, 32))


def test_padding_is_masked_in_the_likelihood_unless_asked_for(train):
    decoder = TextDecoder(len(train.vocabulary), 4, 2, 32).eval()
    text = train.modalities["text"][:5].long()
    logits = decoder(torch.randn(5, 4))
    masked = Categorical(PAD).log_prob(logits, text, 1)
    by_hand = logits.log_softmax(1).gather(1, text.unsqueeze(1)).squeeze(1)
    assert torch.allclose(masked, (by_hand * (text != PAD)).sum(1), atol=1e-4)
    assert torch.allclose(Categorical().log_prob(logits, text, 1), by_hand.sum(1), atol=1e-4)
    assert (masked > Categorical().log_prob(logits, text, 1)).all()


def test_the_text_classifier_does_not_see_padding():
    classifier = TextAttributeClassifier(20, 6, 4, 8).eval()
    short = torch.full((1, 32), PAD)
    short[0, :3] = torch.tensor([5, 6, EOS])
    with torch.no_grad():
        before = classifier(short)
        classifier.word.bias += 5      # what a padded position would say is now larger than any word
        classifier.word.weight.zero_()
        classifier.phrase.weight.zero_()
        classifier.phrase.bias.fill_(-1)
        only = classifier(torch.full((1, 32), PAD))
    assert before.shape == (1, 6) and torch.allclose(only, classifier.head.bias.expand(1, 6))


def test_the_text_classifier_stops_at_the_end():
    """A decoder writes something behind its <eos>; a real caption has padding there."""
    classifier = TextAttributeClassifier(20, 6, 4, 8).eval()
    real = torch.full((1, 32), PAD)
    real[0, :3] = torch.tensor([5, 6, EOS])
    imagined = real.clone()
    imagined[0, 3:] = torch.randint(0, 20, (29,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(classifier(real), classifier(imagined))
        assert not torch.equal(classifier(real), classifier(imagined.masked_fill(imagined == EOS, 7)))


def test_classifiers_learn_separate_answers_to_separate_questions():
    """Two labels that are present together, alone or not at all: a softmax over labels could not say so."""
    labels = torch.randint(2, (128, 2)).bool()
    images = torch.randint(0, 60, (128, 3, 64, 64), dtype=torch.uint8)
    images[:, 0, :32] += (150 * labels[:, 0, None, None]).to(torch.uint8)
    images[:, 1, 32:] += (150 * labels[:, 1, None, None]).to(torch.uint8)
    spec = Modality("image", (3, 64, 64), Normal(), scale=1 / 255)
    classifier = multilabel.train_classifier(lambda: ImageAttributeClassifier(2, 4), images, labels, spec, epochs=8,
                                             batch_size=16, seed=SEED)
    assert not classifier.training
    logits = multilabel.classify(classifier, images, spec)
    assert ((logits > 0) == labels.numpy()).mean() > 0.97


# scores

def test_scores_by_hand():
    logits = np.array([[2.0, -1], [1, -2], [-1, -3], [-2, -4]])
    labels = np.array([[1, 1], [0, 0], [1, 0], [0, 0]])
    found = multilabel.scores(logits, labels)
    assert found["auroc"].tolist() == [0.75, 1.0]              # three of four pairs in order; all of three
    assert found["auroc_hard"].tolist() == [0.5, 0.5]          # the second never crosses zero
    assert found["average_precision"] == pytest.approx([(1 + 2 / 3) / 2, 1.0])
    assert found["average_precision_hard"] == pytest.approx([0.5, 0.25])
    assert found["accuracy"].tolist() == [0.5, 0.75]


def test_hard_auroc_is_the_mean_of_sensitivity_and_specificity():
    rng = np.random.default_rng(0)
    labels = rng.random((300, 3)) < 0.3
    logits = labels + rng.normal(size=labels.shape) - 0.5
    found = multilabel.scores(logits, labels)
    for c in range(3):
        own = labels[:, c]
        balanced = ((logits[own, c] > 0).mean() + (logits[~own, c] <= 0).mean()) / 2
        assert found["auroc_hard"][c] == pytest.approx(balanced)
    assert (found["auroc_hard"] < found["auroc"]).all()


def test_a_label_that_all_have_has_no_ranking_score():
    found = multilabel.scores(np.zeros((4, 2)), np.array([[1, 0], [1, 1], [1, 0], [1, 1]]))
    assert np.isnan(found["auroc"][0]) and found["auroc"][1] == 0.5 and found["accuracy"].tolist() == [0, 0.5]
    with pytest.raises(UserError, match=r"logits \(4, 2\) and labels \(4, 3\)"):
        multilabel.scores(np.zeros((4, 2)), np.zeros((4, 3)))


def test_base_rates_are_what_a_constant_answer_reaches():
    labels = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    rates, constant = multilabel.base_rates(labels), multilabel.scores(np.zeros((4, 3)) - 1, labels)
    assert rates["accuracy"].tolist() == [0.75, 0.75, 0.75]
    assert constant["average_precision"] == pytest.approx(rates["average_precision"])
    assert constant["auroc"] == pytest.approx(rates["auroc"])


class Copies(nn.Module):
    """Encodes x as itself with almost no variance; decodes z as itself."""

    def __init__(self):
        super().__init__()
        self.logvar = nn.Parameter(torch.tensor(-30.0))

    def forward(self, x):
        return x, self.logvar.expand_as(x)


@pytest.fixture
def toy():
    """Two modalities, three numbers each, that are the logits of three labels; the second has two of them swapped."""
    torch.manual_seed(SEED + 1)
    x = torch.randn(200, 3)
    labels = x > 0
    swapped = x[:, [1, 0, 2]]
    specs = tuple(Modality(name, (3,), Normal()) for name in "ab")
    data = MultimodalData({"a": x, "b": swapped}, specs, labels)
    return MultimodalVAE(specs, [Copies(), Copies()], [nn.Identity(), nn.Identity()], MMVM()), data


def test_coherence_tells_source_from_target_and_labels_apart(toy):
    model, data = toy
    reads = [nn.Identity(), nn.Identity()]
    found = multilabel.coherence(model, data, reads)
    assert found["accuracy"].shape == (2, 2, 3)
    assert found["accuracy"][0] == pytest.approx(np.ones((2, 3))), "z of a holds the labels in order, whoever decodes"
    crossed = (data.labels[:, 0] == data.labels[:, 1]).double().mean().item()
    assert found["accuracy"][1] == pytest.approx(np.array([[crossed, crossed, 1]] * 2))
    assert found["auroc"][0] == pytest.approx(np.ones((2, 3)))


def test_the_probe_reads_labels_from_each_modality(toy):
    model, data = toy
    found = multilabel.linear_probe(model, data.subset(slice(0, 150)), data.subset(slice(150, 200)))
    assert found["auroc"].shape == (2, 3) and found["auroc"].min() > 0.98 and found["accuracy"].min() > 0.85
    broken = replace(data, labels=torch.cat([data.labels[:, :2], torch.ones(200, 1, dtype=torch.bool)], 1))
    found = multilabel.linear_probe(model, broken, broken)
    assert np.isnan(found["auroc"][:, 2]).all() and found["auroc"][:, :2].min() > 0.98


def test_scores_need_labels_of_zeros_and_ones(toy):
    model, data = toy
    with pytest.raises(UserError, match=r"need labels \(N, C\) of zeros and ones"):
        multilabel.coherence(model, replace(data, labels=torch.zeros(200).long(), n_classes=2), [])
    with pytest.raises(UserError, match="there is no modality 'c': use one of a, b"):
        multilabel.imagined(model, data, "a", "c")


def test_what_is_imagined_has_the_rows_of_the_data_in_networks_units(toy):
    model, data = toy
    seen = torch.ones(2, 200, dtype=torch.bool)
    seen[1, :7] = False
    some = replace(data, observed=seen)
    with pytest.raises(UserError, match=r"^7 of 200 samples lack 'b': give the others, data.subset\(data.observed\[1"):
        multilabel.imagined(model, some, "b", "a")
    having = some.subset(some.observed[1])
    torch.testing.assert_close(multilabel.imagined(model, having, "b", "a"), having.modalities["b"], atol=1e-2, rtol=0)
    specs = tuple(Modality(name, (3,), Normal(), standardise=True) for name in "ab")
    own = MultimodalData({name: 5 * x for name, x in data.modalities.items()}, specs)
    same = MultimodalVAE(own.specs, [Copies(), Copies()], [nn.Identity(), nn.Identity()], MMVM())
    torch.testing.assert_close(own.specs[1].restore(multilabel.imagined(same, own, "a", "b")),
                               same.impute({"a": own.modalities["a"]}, targets="b")["b"], atol=1e-2, rtol=0)


# captions

@pytest.mark.parametrize("text, groups", [
    ("a black and white bird", [4, 5]),
    ("the crown is bright red.", [0]),
    ("wings that are grey and brown", [2, 1]),
    ("a bird with a yellow, pointed bill", [3]),
    ("black has white with the of grey", []),
    ("red red red", []),
    ("this bird is with a olive", []),
    ("", []),
])
def test_colour_words_count_where_they_are_grammatical(text, groups):
    assert caption_quality.grammatical_colours(tokenise(text)) == groups


def test_caption_quality_by_hand():
    captions = [tokenise(text) for text in ("a red bird", "a red bird", "a black wing is white", "white the")]
    labels = np.zeros((4, 6), bool)
    labels[0, 0] = labels[2, 4] = labels[3, 5] = True
    found = caption_quality.quality(captions, labels)
    assert found["colour_accuracy"] == 2 / 4           # of red, red, black, white; "white the" is no English
    assert found["colour_words"] == 4 / 4 and found["grammatical"] == 4 / 5 and found["distinct"] == 3 / 4
    assert found["distinct_bigrams"] == 7 / 9
    assert np.isnan(caption_quality.quality([["bird"]], labels[:1])["colour_accuracy"])
    with pytest.raises(UserError, match="4 captions and 3 rows of labels"):
        caption_quality.quality(captions, labels[:3])


# runs

def test_data_is_painted_once_and_test_pairs_are_drawn(train, test):
    assert len(train) + 3 * 10 == 3 * 40 and len(test) == 20
    again, other = tiny().data("test"), tiny(data_seed=1)
    assert again.ids == test.ids and len(set(test.ids)) == 20
    assert other.run_hash() != tiny().run_hash()
    assert len(tiny(n_test=0).data("test")) == 30


@pytest.mark.slow
@pytest.mark.parametrize("objective", METHODS)
def test_every_method_trains_on_images_and_captions(train, objective):
    p = tiny(objective=objective)
    model = p.build_model(train)
    history = p.fit(model, train)
    assert np.isfinite(history["loss"]).all()
    assert {name for name in history.epochs[-1] if name.startswith("log_likelihood/")} == {
        "log_likelihood/image", "log_likelihood/text"}


def test_a_run_gives_rows_under_every_definition(tmp_path, train, test):
    p = tiny(out=str(tmp_path / "run"), n_test=30)
    result = run(p)
    table = results.read(tmp_path / "run" / "results.csv")
    assert len(table) == len(result.rows) and set(table["experiment"]) == {"cub"}
    assert set(table["n_train"]) == {len(train)}
    for suffix in ("", "_auroc_hard", "_average_precision", "_average_precision_hard", "_accuracy"):
        own = table[table["metric"] == f"coherence{suffix}"]
        assert set(zip(own["source"], own["target"])) == {
            ("image", "image"), ("image", "text"), ("text", "image"), ("text", "text"), ("", "mean"), ("", "cross"),
            ("", "self")}
        assert own["value"].between(0, 1).all()
    by_attribute = table[table["metric"] == "coherence_by_attribute"]
    pair = by_attribute[by_attribute["source"] == "image to text"]
    mean = table[(table["metric"] == "coherence") & (table["source"] == "image") & (table["target"] == "text")]
    assert pair["value"].mean() == pytest.approx(mean["value"].iloc[0], abs=1e-4)
    weighted, plain = (table[table["metric"] == name].set_index("target")["value"]
                       for name in ("reconstruction_weighted", "reconstruction"))
    assert weighted["mean"] == pytest.approx(plain["image"] + 128 * plain["text"], rel=1e-4)
    assert {"caption_distinct", "caption_colour_words", "classifier_accuracy", "classifier_auroc", "imputation",
            "constant_accuracy", "effective_beta", "probe_by_attribute"} <= set(table["metric"])
    loaded, model = load(p.out)
    assert loaded == replace(p, n_test=loaded.n_test, n_probe=loaded.n_probe, out=loaded.out, root=loaded.root,
                             classifier_epochs=loaded.classifier_epochs, profile=loaded.profile, device=loaded.device)
    x = list(test.batch(torch.arange(4)).x)
    assert torch.equal(model.encode(x).mean, result.model.encode(x).mean)


def test_text_weight_and_pads_reach_the_model(train):
    light = tiny(text_weight=1.0, pads_counted=True, likelihood_scale=0.5).data("train")
    assert light.specs[1].weight == 1 and light.specs[1].likelihood == Categorical()
    assert light.specs[0].likelihood.scale == 0.5
    torch.manual_seed(0)
    p = tiny(objective="independent")
    model = p.build_model(train)
    assert isinstance(model.objective, Independent)
    batch = train.batch(torch.arange(3))
    terms = model.eval()(batch.x, batch.observed)
    expected = -terms.log_likelihood[0] - 8 * terms.log_likelihood[1] + terms.regulariser
    assert torch.allclose(terms.loss, expected, rtol=1e-5)
