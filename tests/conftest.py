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


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """MMVM_RUNS, so that nothing is written into the repository and a module's classifiers are trained once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("runs")
        patch.setenv("MMVM_RUNS", str(folder))
        yield folder
