"""Fair clocks: arms in turn in one process, the machine's own peak beside them, rows that say where they come from."""

import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F

from mmvm.study.results import COMMIT
from mmvm.training.plan import wait

CPU = torch.device("cpu")
RESULTS = Path(__file__).parent / "results.csv"
KEY = ["benchmark", "arm", "network", "modalities", "latent_dim", "batch", "precision", "metric", "machine"]


def interleaved(arms: dict[str, Callable[[], object]], rounds: int, device=CPU) -> dict[str, list]:
    """Seconds of every arm, `rounds` times each, in turn: what slows the machine for a while slows all of them. The
    first round warms up and does not count. An arm that returns a number has timed itself."""
    seconds = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name, arm in arms.items():
            wait(device)
            start = time.perf_counter()
            own = arm()
            wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - start if own is None else own)
    return seconds


def peaks(precision: str, device=CPU, rounds: int = 7) -> dict[str, float]:
    """FLOP/s of a large matrix product and of a large convolution (3x3, 256 channels, channels innermost), the best of
    `rounds`: what this machine can do in this precision."""
    dtype = getattr(torch, precision)
    big = device.type == "cuda"
    n = 8192 if big else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    batch, side = (256, 28) if big else (64, 14)
    x = torch.randn(batch, 256, side, side, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    w = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        seconds = interleaved({"matmul": lambda: without(a @ b), "convolution": lambda: without(F.conv2d(
            x, w, padding=1))}, rounds, device)
    flops = {"matmul": 2 * n**3, "convolution": 2 * batch * side**2 * 256 * 256 * 9}
    return {name: flops[name] / min(seconds[name]) for name in flops}


def without(_) -> None:
    """An arm's result, thrown away."""


def machine(device=CPU) -> str:
    """The GPU's name, or the processor's with its threads and what it has for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    has = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in text]
    return ", ".join([names[0] if names else platform.processor() or platform.machine(),
                      f"{torch.get_num_threads()} threads", *has])


def rows(benchmark: str, found: list[dict], device=CPU) -> pd.DataFrame:
    """Measurements (arm, network, ..., metric, value or a list of repeats) with provenance; repeats become median,
    lowest and highest."""
    common = {"benchmark": benchmark, "machine": machine(device), "torch": torch.__version__.split("+")[0],
              "commit": COMMIT, "date": datetime.now(UTC).date().isoformat()}
    table = []
    for row in found:
        values = row["value"] if isinstance(row["value"], list) else [row["value"]]
        row = {**dict.fromkeys(KEY, ""), **row, "value": statistics.median(values), "low": min(values),
               "high": max(values), "repeats": len(values)}
        table.append({**row, **common})
    return pd.DataFrame(table)


def keep(table: pd.DataFrame, path: Path = RESULTS) -> None:
    """Adds rows to the committed results, in place of older ones of the same machine and setting."""
    old = pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else pd.DataFrame(columns=table.columns)
    new = table.map(lambda value: f"{value:.6g}" if isinstance(value, float) else str(value))
    both = pd.concat([old, new]).drop_duplicates(KEY, keep="last").sort_values(KEY, kind="stable")
    both.to_csv(path, index=False)
