"""Where the time goes: every layer of one encoder and decoder on its own, against what the machine can do."""

import time

import torch
from torch import Tensor, nn

from benchmarks import timing
from benchmarks.training import CHANNELS, LATENT
from mmvm.training import plan as speed
from studies.polymnist.networks import NETWORKS

LAYERS = {nn.Conv2d: "convolution", nn.ConvTranspose2d: "transposed convolution", nn.Linear: "dense"}


def layers(network: str, batch: int, rounds: int) -> list[dict]:
    """Per layer with weights, in both precisions (bfloat16 with channels innermost): FLOP/s of its forward and backward
    pass, and its arithmetic intensity, FLOP per byte of inputs, outputs, weights and their gradients."""
    torch.manual_seed(0)
    encoder, decoder = (kind(LATENT, CHANNELS[network]) for kind in NETWORKS[network])
    found = []
    for precision in ("float32", "bfloat16"):
        for part, net, x in (("encoder", encoder, torch.rand(batch, 3, 28, 28)),
                             ("decoder", decoder, torch.randn(batch, LATENT))):
            if precision == "bfloat16":
                net.to(memory_format=torch.channels_last)
            seen = _inputs(net, x)
            arms = {name: _arm(layer, given, precision) for name, (layer, given) in seen.items()}
            seconds = timing.interleaved(arms, rounds)
            for name, (layer, given) in seen.items():
                out = layer(given[:1])
                flops = 3 * 2 * batch * layer.weight.numel() * _positions(layer, given, out)
                size = 4 if precision == "float32" else 2
                n_bytes = 2 * size * (given.numel() + batch * out.numel()) + 2 * size * layer.weight.numel()
                common = {"arm": f"{LAYERS[type(layer)]}: {part}.{name}", "network": network, "batch": batch,
                          "modalities": 1, "latent_dim": LATENT, "precision": precision}
                found += [{**common, "metric": "flops_per_second", "value": [flops / s for s in seconds[name]]},
                          {**common, "metric": "seconds", "value": seconds[name]},
                          {**common, "metric": "flops_per_byte", "value": flops / n_bytes}]
    peak = {precision: timing.peaks(precision) for precision in ("float32", "bfloat16")}
    found += [{"arm": "machine", "network": network, "precision": precision, "metric": f"peak_{kind}", "value": value}
              for precision, values in peak.items() for kind, value in values.items()]
    return [*found, {"arm": "machine", "network": network, "metric": "bytes_per_second", "value": bandwidth(rounds)}]


def _inputs(net: nn.Module, x: Tensor) -> dict[str, tuple[nn.Module, Tensor]]:
    """What each layer with weights is given when `net` sees x."""
    seen, hooks = {}, []
    for name, layer in net.named_modules():
        if type(layer) in LAYERS:
            hooks.append(layer.register_forward_pre_hook(
                lambda layer, given, name=name: seen.__setitem__(name, (layer, given[0].detach()))))
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return seen


def _arm(layer: nn.Module, given: Tensor, precision: str):
    x = given.clone().requires_grad_()

    def step() -> float:
        start = time.perf_counter()
        with speed.autocast(precision, torch.device("cpu")):
            layer(x).sum().backward()
        took = time.perf_counter() - start
        x.grad = None
        layer.zero_grad()
        return took
    return step


def _positions(layer: nn.Module, given: Tensor, out: Tensor) -> int:
    """How often a sample uses each weight."""
    if isinstance(layer, nn.Linear):
        return 1
    picture = given if isinstance(layer, nn.ConvTranspose2d) else out
    return picture.shape[-1] * picture.shape[-2]


def bandwidth(rounds: int) -> list[float]:
    """Bytes a second of a copy far larger than any cache, read and write counted."""
    a, b = torch.ones(2**26), torch.empty(2**26)
    seconds = timing.interleaved({"copy": lambda: timing.without(b.copy_(a))}, rounds)["copy"]
    return [2 * a.numel() * 4 / s for s in seconds]
