"""Settings of all tests: one thread (they are tiny, and the machine may have other work), the same random numbers in
every run, and property tests that try the same examples in every run.

Two variables of the environment tell how wide a threshold must be, which must hold for all of them: MMVM_TEST_SEED
shifts the seed of every test, and of what the tests train; MMVM_TEST_THREADS sets the threads. On x86,
ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 computes as an older processor does.
"""

import os
import signal

import pytest
import torch
from hypothesis import settings

SEED = int(os.environ.get("MMVM_TEST_SEED", 0))

torch.set_num_threads(int(os.environ.get("MMVM_TEST_THREADS", 1)))

# a shell ignores Ctrl-C for what it starts in the background, and so would the processes that are stopped by it here
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("mmvm", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("mmvm")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(SEED)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """MMVM_RUNS, so that nothing is written into the repository and a module's classifiers are trained once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("runs")
        patch.setenv("MMVM_RUNS", str(folder))
        yield folder


def pytest_make_parametrize_id(config, val, argname):
    """Names of tests without addresses: two workers must find the same tests."""
    return argname if " at 0x" in repr(val) else None
