"""What a model takes is compared with what is free, before it is taken."""

import pytest
import torch
from torch import nn

from mmvm.errors import UserError
from mmvm.training import memory

CPU = torch.device("cpu")


def test_four_copies_of_the_weights_must_fit(monkeypatch):
    layer = nn.Linear(10, 5, device="meta")  # 55 weights of 4 bytes
    monkeypatch.setattr(memory, "available", lambda device: 4 * 220)
    memory.require(layer, CPU)
    monkeypatch.setattr(memory, "available", lambda device: 4 * 220 - 1)
    with pytest.raises(UserError, match=r"take 0.0 GB \(the largest is weight \(5, 10\)\), 0.0 GB are free on cpu"):
        memory.require(layer, CPU)
    memory.require(None, CPU)


@pytest.mark.parametrize("files, free", [
    ({"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8 kB\n"}, 8192),
    ({"/proc/meminfo": "MemAvailable: 8 kB\n", "/sys/fs/cgroup/memory.max": "5000\n",
      "/sys/fs/cgroup/memory.current": "1000\n"}, 4000),
    ({"/proc/meminfo": "MemAvailable: 8 kB\n", "/sys/fs/cgroup/memory.max": "max\n",
      "/sys/fs/cgroup/memory.current": "1000\n"}, 8192),
    ({}, float("inf")),
], ids=["machine", "container", "container without limit", "no word"])
def test_free_is_what_machine_and_container_leave(files, free, monkeypatch):
    def read(path):
        try:
            return files[str(path)]
        except KeyError:
            raise FileNotFoundError(path) from None

    monkeypatch.setattr(memory.Path, "read_text", read)
    assert memory.available(CPU) == free


def test_without_a_word_of_the_system_there_is_no_peak(monkeypatch):
    assert memory.peak(CPU)["peak_memory_gb"] > 0.01
    monkeypatch.setattr(memory, "resource", None)
    assert memory.peak(CPU) == {}
