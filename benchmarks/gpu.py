"""Everything about a GPU in one call: builds every variant of an update, checks that it computes what float32 does, and
times it.

    python -m benchmarks gpu

The whole data set lies on the device as bytes, a batch is an index there, and nothing waits for the host inside an
epoch. A variant that fails is left out, and those that compile come last: rows are there as each variant is done. Needs
a CUDA device and says so where there is none.
"""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.training import flops, images, model_of
from mmvm import MultimodalData, fit
from mmvm.errors import UserError
from mmvm.training import plan as speed
from mmvm.training.update import Update

CUDA = torch.device("cuda")
PLAIN = "float32"  # what all others are held to
VARIANTS = {  # precision, plan, torch.compile
    PLAIN: ("float32", "plain", False),
    "bfloat16": ("bfloat16", "plain", False),
    "bfloat16, channels last": ("bfloat16", "channels_last", False),
    "bfloat16, channels last, recorded": ("bfloat16", "channels_last+graph", False),
    "bfloat16, channels last, grouped, recorded": ("bfloat16", "channels_last+grouped+graph", False),
    "bfloat16, channels last, compiled": ("bfloat16", "channels_last", True),
    "bfloat16, channels last, compiled, recorded": ("bfloat16", "channels_last+graph", True),
}
Found = tuple[float, Tensor]  # loss and gradient of one batch


def check(name: str, network: str, batch: int, device: torch.device, plain: Found | None = None, say=print) -> Found:
    """Loss and gradient of a variant, on one batch and with the same draws for all; raises where they differ from
    `plain`, those of float32, by more than rounding explains."""
    precision, plan, compiled = VARIANTS[name]
    data = images(batch, 3).to(device)
    model = model_of(network, data).to(device)
    plan = speed.Plan.parse(plan)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0, fused=True)
    with plan.applied(model):
        update = Update(model, optimizer, data, precision, device, None, compiled, plan.graph, learning_rate=0.0)
        for _ in range(Update.WARM_UP + 2):
            torch.manual_seed(0)
            names, means = update.gradients(data.batch(torch.arange(batch, device=device)), 0)
            update.apply()
    loss = means[names.index("loss")].item()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()]).clone()
    reference, reference_gradient = plain or (loss, gradient)
    off = abs(loss / reference - 1), float((gradient - reference_gradient).norm() / reference_gradient.norm())
    say(f"{name}: loss {loss:.2f}, off by {off[0]:.1e}; gradient off by {off[1]:.1e}")
    # a recorded update draws its noise from another part of the generator's stream: its loss has another draw
    limits = (1e-5, 1e-4) if precision == "float32" else (1e-3, 0.1) if not plan.graph else (1e-2, 0.5)
    if not (off[0] <= limits[0] and off[1] <= limits[1]):  # NaN is not
        raise UserError(f"{name} does not compute what float32 computes: loss off by {off[0]:.1e}, gradient by "
                        f"{off[1]:.1e}")
    return loss, gradient


def times(network: str, batch: int, rounds: int, n: int = 60_000, modalities: int = 3, device: torch.device = CUDA,
          say=print) -> Iterator[list[dict]]:
    """Samples a second of whole epochs of the paper's PolyMNIST set: rows of the machine, then of one variant after the
    other as each is done."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("benchmark gpu needs a CUDA device, and torch sees none: run it where there is one")
    data = images(n, modalities).to(device)
    peak = {precision: max(timing.peaks(precision, device).values()) for precision in ("float32", "bfloat16")}
    yield [{"arm": "machine", "network": network, "precision": precision, "metric": "peak_flops", "value": value}
           for precision, value in peak.items()]
    plain = None
    for name, (precision, _, _) in VARIANTS.items():
        try:
            found = check(name, network, batch, device, plain, say)
            plain = plain or found
            rows = timed(name, network, batch, rounds, data, peak[precision])
        except Exception as error:  # whatever a compiler or a driver does
            if plain is None:
                raise
            say(f"{name} is left out, {type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}")
        else:
            say(f"{name}: {max(rows[0]['value']):.0f} samples/s, {time.strftime('%H:%M:%S')}")
            yield rows


def timed(name: str, network: str, batch: int, rounds: int, data: MultimodalData, peak: float) -> list[dict]:
    precision, plan, compiled = VARIANTS[name]
    torch.cuda.reset_peak_memory_stats(data.device)
    history = fit(model_of(network, data), data, epochs=rounds + 1, batch_size=batch, device=str(data.device),
                  precision=precision, plan=plan, compile=compiled)
    rates = history["samples_per_second"][1:]  # the first epoch compiles and records
    modalities = len(data.specs)
    common = {"arm": name, "network": network, "batch": batch, "modalities": modalities, "latent_dim": 512,
              "precision": precision}
    per_sample = flops(network, modalities)
    return [{**common, "metric": "epoch_samples_per_second", "value": rates},
            {**common, "metric": "peak_share", "value": [r * per_sample / peak for r in rates]},
            {**common, "metric": "memory_bytes", "value": float(torch.cuda.max_memory_allocated(data.device))},
            {**common, "metric": "paper_run_minutes", "value": [len(data) * 500 / r / 60 for r in rates]}]
