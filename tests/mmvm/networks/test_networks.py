"""Shapes, widths and the paper's layers of the encoders, decoders and the digit classifier."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation import constant_error, linear_probe, reconstruction_error
from mmvm.likelihoods import Bernoulli, NegativeBinomial, Normal, Poisson, ZeroInflatedNegativeBinomial
from mmvm.model import MultimodalVAE
from mmvm.networks import (
    ConvDecoder,
    ConvEncoder,
    MLPDecoder,
    MLPEncoder,
    ResidualBlock,
    ResNetDecoder,
    ResNetEncoder,
    default_networks,
)
from mmvm.networks.mlp import Log1p
from mmvm.training import fit
from studies.polymnist.networks import NETWORKS, DigitClassifier

ENCODERS = {"mlp": lambda: MLPEncoder((3, 28, 28), 4, (8,)), "conv": lambda: ConvEncoder(4, 2),
            "resnet": lambda: ResNetEncoder(4, 2)}
DECODERS = {"mlp": lambda: MLPDecoder((3, 28, 28), 4, (8,)), "conv": lambda: ConvDecoder(4, 2),
            "resnet": lambda: ResNetDecoder(4, 2)}


def n_parameters(make):
    with torch.device("meta"):  # counted without allocating 80 MB
        return sum(p.numel() for p in make().parameters())


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("encoder, decoder", NETWORKS.values(), ids=NETWORKS)
def test_image_networks_map_images_to_latents_and_back(encoder, decoder, batch):
    mean, logvar = encoder(5, channels=2)(torch.rand(batch, 3, 28, 28))
    assert mean.shape == logvar.shape == (batch, 5)
    assert decoder(5, channels=2)(mean).shape == (batch, 3, 28, 28)


@pytest.mark.parametrize("likelihood", [Poisson(), NegativeBinomial(), NegativeBinomial(library=1e4),
                                        ZeroInflatedNegativeBinomial()], ids=str)
def test_usual_networks_learn_counts_of_hundreds(likelihood):
    """Four kinds of samples, 30 counts of 100 in the mean: told apart, and drawn about as well as by a constant or
    better after 80 updates. Of encoders that see the counts themselves losses start at 38,000 to inf."""
    random = np.random.default_rng(0)
    kinds = random.integers(4, size=200)
    counts = random.poisson(100 * np.exp(random.normal(size=(4, 30)) * 0.5)[kinds])
    data = MultimodalData({"c": counts}, (Modality("c", (30,), likelihood),), labels=kinds)
    torch.manual_seed(0)
    model = MultimodalVAE.for_data(data, latent_dim=3, say=None)
    history = fit(model, data, epochs=20, batch_size=50, learning_rate=5e-3, precision="float32")
    assert history["loss"][0] < 100_000  # measured 28,100 of the Poisson, 1,500 at most of the others
    assert linear_probe(model, data, data)[0] > 0.8  # measured .91 to 1 over two starts
    assert reconstruction_error(model, data)[0] < 1.2 * constant_error(data, data)[0]  # measured .69 to 1.08 times


@pytest.mark.parametrize("shape", [(6,), (1, 9, 8)])
def test_usual_encoders_see_logarithms_of_counts_alone(shape):
    for likelihood, counts in ((Poisson(), True), (NegativeBinomial(), True), (Bernoulli(), False), (Normal(), False)):
        encoder, _, said = default_networks(Modality("c", shape, likelihood), 2)
        assert isinstance(encoder.trunk[0], Log1p) == counts == ("log(1 + x)" in said)


@pytest.mark.parametrize("learning_rate", [5e-4, 1e-2])
def test_usual_networks_of_a_poissons_thousands_do_not_overshoot(learning_rate):
    """From rates of 1 on the second of these trainings ends at update 3, and the first begins at 8 million nats."""
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (512,), generator=g)
    counts = torch.poisson(5_000 * (0.5 * torch.randn(4, 200, generator=g)).exp()[labels], generator=g)
    specs = (Modality("c", (200,), Poisson()), Modality("y", (8,), Normal()))
    data = MultimodalData({"c": counts, "y": torch.randn(512, 8, generator=g) + labels[:, None]}, specs)
    torch.manual_seed(0)
    model = MultimodalVAE.for_data(data, latent_dim=8, say=None)
    history = fit(model, data, epochs=7, batch_size=64, learning_rate=learning_rate, precision="float32", device="cpu")
    assert max(-ll for ll in history["log_likelihood/c"]) < 200_000  # measured 90,000 to 160,000 over three starts
    assert history["log_likelihood/c"][-1] > history["log_likelihood/c"][0]


def test_usual_decoders_of_a_poisson_begin_at_the_mean_counts():
    x = torch.tensor([[2.0, 0, 30], [4, 0, float("nan")], [600, 7, 9]]).repeat(300, 1)
    observed = torch.tensor([[True, True, False], [True] * 3]).repeat(1, 300)
    data = MultimodalData({"c": x, "d": torch.rand(900, 3)}, (
        Modality("c", (3,), Poisson(), missing="nan"), Modality("d", (3,), Normal())), observed=observed)
    rates = data.specs[0].log_rates(x, observed[0]).exp()
    torch.testing.assert_close(rates, torch.tensor([3.0, 1e-3, 30]).double(), rtol=0.01, atol=1e-6)
    model = MultimodalVAE.for_data(data, 2, say=None)
    torch.testing.assert_close(model.decoders[0].out.bias.exp().double(), rates, rtol=1e-5, atol=1e-6)
    assert data.specs[1].log_rates(data.modalities["d"], observed[1]) is None
    picture = Modality("p", (2, 8, 9), Poisson(), scale=2.0)
    pictures = torch.stack([torch.full((5, 8, 9), 3.0), torch.full((5, 8, 9), 50.0)], 1)
    _, decoder, _ = default_networks(picture, 2, log_rates=picture.log_rates(pictures, torch.ones(5, dtype=torch.bool)))
    torch.testing.assert_close(decoder.out.bias.exp(), torch.tensor([6.0, 100.0]))


@pytest.mark.parametrize("widths", [(), (7,), (8, 6)])
@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 4)])
def test_mlps_map_any_shape_to_latents_and_back(shape, widths):
    x = torch.rand(6, *shape)
    mean, logvar = MLPEncoder(shape, 3, widths)(x)
    assert mean.shape == logvar.shape == (6, 3)
    assert MLPDecoder(shape, 3, widths)(mean).shape == x.shape


# the paper's pair (latent 512), counted by hand from its layers

def conv(n_in, n_out, k=3):
    return n_in * n_out * k * k + n_out


def block(n_in, n_out):
    hidden = min(n_in, n_out)
    return conv(n_in, hidden) + conv(hidden, n_out) + (n_in * n_out if n_in != n_out else 0)


def test_resnet_encoder_has_the_papers_parameters():
    by_hand = conv(3, 64) + block(64, 64) + block(64, 128) + block(128, 256) + 2 * (12_544 * 512 + 512)
    assert by_hand == 13_516_224
    assert n_parameters(lambda: ResNetEncoder(512)) == by_hand


def test_resnet_decoder_has_the_papers_parameters():
    by_hand = 512 * 12_544 + 12_544 + block(256, 128) + block(128, 64) + block(64, 64) + conv(64, 3)
    assert by_hand == 7_104_963
    assert n_parameters(lambda: ResNetDecoder(512)) == by_hand


def test_classifier_has_the_papers_parameters():
    trunk = conv(3, 64) + block(64, 64) + block(64, 128) + block(128, 256)
    assert n_parameters(lambda: DigitClassifier("resnet")) == trunk + 12_544 * 10 + 10


def test_conv_pair_has_its_stated_widths():
    features = 4 * 24 * 16
    assert n_parameters(lambda: ConvEncoder(32, 24)) == (
        conv(3, 24) + conv(24, 48) + conv(48, 96) + 2 * (features * 32 + 32))
    assert n_parameters(lambda: ConvDecoder(32, 24)) == (
        32 * features + features + conv(96, 48) + conv(48, 24) + conv(24, 3))


@pytest.mark.parametrize("trunk, sizes", [
    (ConvEncoder(1, 2).trunk, [(2, 14, 14), (4, 7, 7), (8, 4, 4)]),
    (ResNetEncoder(1, 2).trunk, [(2, 28, 28), (2, 28, 28), (2, 14, 14), (4, 14, 14), (4, 7, 7), (8, 7, 7)])])
def test_trunks_pass_through_the_stated_sizes(trunk, sizes):
    h, found = torch.rand(1, 3, 28, 28), []
    for layer in trunk:
        h = layer(h)
        if not isinstance(layer, torch.nn.ReLU | torch.nn.Flatten):
            found.append(tuple(h.shape[1:]))
    assert found == sizes


@pytest.mark.parametrize("n_in, n_out", [(2, 2), (2, 4), (4, 2)])
def test_residual_block_is_the_papers_formula(n_in, n_out):
    block = ResidualBlock(n_in, n_out).double()
    x = torch.randn(2, n_in, 5, 5, dtype=torch.float64)
    h = F.conv2d(F.leaky_relu(x, 0.2), block.conv0.weight, block.conv0.bias, padding=1)
    h = F.conv2d(F.leaky_relu(h, 0.2), block.conv1.weight, block.conv1.bias, padding=1)
    shortcut = x if n_in == n_out else F.conv2d(x, block.shortcut.weight)
    torch.testing.assert_close(block(x), shortcut + 0.1 * h)
    assert block.conv0.out_channels == min(n_in, n_out)


# outputs

@pytest.mark.parametrize("make", DECODERS.values(), ids=DECODERS)
def test_decoder_output_is_linear_and_unbounded(make):
    """The last layer is followed by nothing: doubling its weights and bias doubles the output, far beyond [0, 1]."""
    decoder, z = make().double(), torch.randn(3, 4, dtype=torch.float64)
    before = decoder(z)
    last = [m for m in decoder.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d
                                                       | torch.nn.ConvTranspose2d)][-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(1000)
    torch.testing.assert_close(decoder(z), 1000 * before)
    assert decoder(z).min() < -1 and decoder(z).max() > 1


@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)
def test_encoder_heads_are_linear_and_separate(make):
    encoder, x = make().double(), torch.rand(3, 3, 28, 28, dtype=torch.float64)
    mean, logvar = encoder(x)
    with torch.no_grad():
        for parameter in encoder.mean.parameters():
            parameter.mul_(-1000)
    torch.testing.assert_close(encoder(x)[0], -1000 * mean)
    assert torch.equal(encoder(x)[1], logvar)


@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)
def test_every_parameter_of_an_encoder_learns_and_samples_do_not_mix(make):
    network = make()
    x = torch.rand(4, 3, 28, 28)
    mean, logvar = network(x)
    torch.testing.assert_close(network(x[:1])[0], mean[:1])
    (mean.sum() + logvar.sum()).backward()
    assert all((p.grad != 0).any() for p in network.parameters())


@pytest.mark.parametrize("make", DECODERS.values(), ids=DECODERS)
def test_every_parameter_of_a_decoder_learns_and_samples_do_not_mix(make):
    network = make()
    z = torch.randn(4, 4)
    x = network(z)
    torch.testing.assert_close(network(z[:1]), x[:1])
    x.square().sum().backward()
    assert all((p.grad != 0).any() for p in network.parameters())


# the digit classifier

@pytest.mark.parametrize("trunk", ["conv", "norm", "resnet"])
def test_classifier_gives_logits(trunk):
    logits = DigitClassifier(trunk, channels=2, n_classes=7)(torch.rand(5, 3, 28, 28))
    assert logits.shape == (5, 7) and (logits < 0).any()  # not probabilities


def test_classifier_refuses_an_unknown_trunk():
    with pytest.raises(UserError, match="unknown trunk 'rednet': use 'conv', 'norm' or 'resnet'"):
        DigitClassifier("rednet")


def test_the_normalised_classifier_does_not_mind_where_a_digit_is():
    torch.manual_seed(0)
    network, x = DigitClassifier("norm").eval(), torch.zeros(2, 3, 60, 60)  # so large that no border is near
    x[0, :, 20:26, 20:26] = torch.rand(3, 6, 6)
    x[1, :, 24:30, 28:34] = x[0, :, 20:26, 20:26]  # moved by multiples of the two poolings' 4 pixels
    features = network.features(x)
    assert features.shape == (2, 128)
    torch.testing.assert_close(features[0], features[1])


def test_classifier_learns_to_tell_two_images_apart():
    torch.manual_seed(0)
    x, labels = torch.rand(2, 3, 28, 28), torch.tensor([3, 8])
    network = DigitClassifier(channels=8)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(network(x), labels).backward()
        optimizer.step()
    assert network.eval()(x).argmax(1).tolist() == [3, 8]
