"""Says in one sentence what the active environment lacks; `make ... MMVM_ENV=current` runs it first.

It must start on any Python that a system may call `python`, so it uses nothing newer than Python 3.6.
"""
import importlib.util
import sys

MODULES = {
    "torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "pandas": "pandas",
    "matplotlib": "matplotlib", "sklearn": "scikit-learn", "tqdm": "tqdm", "safetensors": "safetensors",
    "pooch": "pooch", "PIL": "pillow", "yaml": "pyyaml",
    "jupyter_book": "jupyter-book", "jupytext": "jupytext", "papermill": "papermill", "nbclient": "nbclient",
    "nbstripout": "nbstripout", "ipykernel": "ipykernel", "sphinx-mathjax-offline": "sphinx-mathjax-offline",
    "pytest": "pytest", "nbval": "nbval", "hypothesis": "hypothesis", "ruff": "ruff", "importlinter": "import-linter",
    "snakemake": "snakemake", "snakemake_executor_plugin_slurm": "snakemake-executor-plugin-slurm",
    "torchmetrics": "torchmetrics", "torch_fidelity": "torch-fidelity",
}
CURE = "run `pip install -r requirements.lock && pip install --no-deps -e .` in it, or let make build its own " \
       "environment (leave out MMVM_ENV=current)"


def complaint():
    """The first thing that is wrong, or None."""
    if sys.version_info < (3, 11):  # noqa: UP036  (this file has to say so on an older one)
        return (f"Python {sys.version_info[0]}.{sys.version_info[1]} runs here ({sys.executable}), needed is 3.11 "
                "or newer: activate another environment")
    missing = [package for module, package in MODULES.items() if importlib.util.find_spec(module) is None]
    if missing:
        return f"the active environment ({sys.prefix}) lacks {', '.join(missing)}: {CURE}"
    if importlib.util.find_spec("mmvm") is None:
        return f"the active environment ({sys.prefix}) lacks the project itself: run `pip install --no-deps -e .`"
    from importlib.metadata import version
    if not version("jupyter-book").startswith("1."):
        return f"jupyter-book {version('jupyter-book')} is installed, which cannot read this book: {CURE}"
    return None


if __name__ == "__main__":
    problem = complaint()
    if problem:
        sys.exit("error: " + problem)
