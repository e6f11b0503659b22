"""Settings of all tests: one thread (they are tiny, and the machine may have other work), the same random numbers in
every run, and property tests that try the same examples in every run."""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("mmvm", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("mmvm")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
