"""The lock, the package and the conda environment name the same things, and nothing of one machine."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
NOT_LOCKED = {"bench", "cells", "xarray", "spikes"}  # others' libraries: nothing of the project imports them unasked
LOCKED = [lines for extra, lines in EXTRAS.items() if extra not in NOT_LOCKED]
REQUIREMENTS = [Requirement(line) for lines in [PROJECT["dependencies"], *LOCKED] for line in lines]


def lock() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def release(text: str) -> tuple[int, int]:
    version = Version(text)
    return version.major, version.minor


def belongs(torch: str, torchvision: str) -> bool:
    """torch 2.n and torchvision 0.(n + 15) are released together, and only such a pair imports."""
    major, minor = release(torch)
    return major == 2 and release(torchvision) == (0, minor + 15)


def test_belongs():
    assert belongs("2.11.0", "0.26.0") and belongs("2.14.1+cpu", "0.29.2")
    assert not belongs("2.15.0", "0.29.2")


def test_torch_and_torchvision_are_of_one_release():
    pins = {name: str(lock()[name].specifier).removeprefix("==") for name in ("torch", "torchvision")}
    assert belongs(**pins), pins
    installed = {name: importlib.metadata.version(name) for name in pins}
    assert belongs(**installed), f"{installed}: install requirements.lock"


def test_lock_is_exact_and_portable():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"--|://|file:|@|/(home|root|tmp|opt)/", text), "no index, address, option or path"
    for name, pin in lock().items():
        assert [clause.operator for clause in pin.specifier] == ["=="], f"{name} is not pinned"
    for name, pin in lock().items():
        if name.startswith("nvidia-") or name in ("triton", "cuda-toolkit"):
            assert pin.marker and not pin.marker.evaluate({"sys_platform": "darwin"}), f"{name} exists for Linux only"


def test_lock_satisfies_the_package():
    pins = lock()
    for requirement in REQUIREMENTS:
        pin = pins[canonicalize_name(requirement.name)]
        version = str(pin.specifier).removeprefix("==")
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} but {version} is locked"


def test_conda_installs_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "mmvm"
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}
    assert all(line.count("=") < 2 for line in conda), "no build hashes"


def test_binder_installs_what_the_package_needs():
    environment = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text())
    conda = {re.split(r"[=<>]", line)[0] for line in environment["dependencies"] if isinstance(line, str)}
    renamed = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}
    needed = {renamed.get(name, name) for name in (Requirement(line).name for line in PROJECT["dependencies"])}
    assert needed <= conda, needed - conda


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] == importlib.metadata.version("mmvm")
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()
    assert "2403.05300" in citation["preferred-citation"]["url"]
