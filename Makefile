# The compendium's commands; `make` alone lists them. Needs bash, make and Python 3.11 or newer.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# where make builds its own environment; MMVM_ENV=current uses the active one instead
VENV ?= .venv
# chapters that `make notebooks` refreshes; all by default
CHAPTERS ?=

# Results must be the same when run again: two threads on every machine, no random hashes, and nobody's own
# IPython profile or kernels (the profile made here also keeps ipykernel's remark about TCP off the terminal).
export OMP_NUM_THREADS := 2
export MKL_NUM_THREADS := 2
# threads that wait sleep: when something else wants a core, spinning ones make small networks forty times slower
export OMP_WAIT_POLICY := PASSIVE
export PYTHONHASHSEED := 0
export IPYTHONDIR := $(CURDIR)/_build/ipython
export JUPYTER_PREFER_ENV_PATH := 1
KERNEL := _build/ipython/profile_default/ipython_kernel_config.json

ifeq ($(MMVM_ENV),current)
PYTHON ?= python
PY := $(PYTHON)
ENVIRONMENT := active-environment
else ifeq ($(MMVM_ENV),)
# the first of these that is new enough; PYTHON=... chooses another one
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
PY := $(VENV)/bin/python
ENVIRONMENT := $(VENV)/.installed
else
$(error MMVM_ENV=$(MMVM_ENV) is not known: use MMVM_ENV=current for the active environment, or leave it out)
endif

.PHONY: help install book html notebooks test test-all test-site test-extras attack lock address release pdf clean distclean active-environment

help:  ## this list
	@echo "Commands (times: 2 cores, environment installed; installing takes 2 to 10 minutes and about 6 GB on Linux)"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 18
	@echo "Settings: MMVM_ENV=current (use the active environment), PYTHON=python3.12, VENV=.venv, CHAPTERS=\"method\""

install: $(ENVIRONMENT)  ## build the environment in .venv from requirements.lock
	@echo "Environment ready: $(PY)"

book: $(ENVIRONMENT) $(KERNEL)  ## run every chapter live and render _build/html/index.html (10 to 18 minutes)
	@echo "Running every chapter and rendering the book; 10 to 18 minutes, most of it training in the chapter polymnist"
	@$(PY) tools/book.py --execute

html: $(ENVIRONMENT) $(KERNEL)  ## render the committed outputs only (under a minute)
	@echo "Rendering the committed outputs; under a minute"
	@$(PY) tools/book.py

notebooks: $(ENVIRONMENT) $(KERNEL)  ## remake book/*.ipynb from book/text/*.md, with outputs (10 to 18 minutes)
	@echo "Making the notebooks from their text twins; 10 to 18 minutes for all"
	@$(PY) tools/notebooks.py $(CHAPTERS)

PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile
NBVAL := $(PYTEST) --nbval --nbval-current-env --nbval-cell-timeout 1800 --nbval-sanitize-with tests/nbval.cfg
# chapters that train for minutes; the longest first, for a worker takes one after the other
LONG := $(addprefix book/,polymnist.ipynb mimic-cxr.ipynb cub.ipynb)

test: $(ENVIRONMENT) $(KERNEL)  ## style, imports, types, unit tests, the chapters but the three longest against their outputs (5 to 9 minutes)
	@echo "1/3 style, that imports go down only, types (seconds; types half a minute the first time)"
	@$(PY) -m ruff check .
	@$(PY) -c 'from importlinter.cli import lint_imports_command as lint; lint()' --no-logo --no-cache
	@$(PY) -m mypy --no-error-summary --cache-dir _build/mypy
	@echo "2/3 unit tests, the book's files (3 minutes)"
	@$(PYTEST) -m "not slow" --durations=5 $(COVERAGE)
	@echo "3/3 chapters run again and compared with their stored outputs (2 to 3 minutes; those that train longest: make test-all)"
	@$(NBVAL) $(filter-out $(LONG),$(wildcard book/*.ipynb))

# measured by the tests that CI runs; it makes them a quarter slower
test-all: COVERAGE := --cov=mmvm --cov-report= --cov-fail-under=92
test-all: test  ## and what takes longest: whole runs, the grid, commands of the README, the three longest chapters (15 to 27 minutes in all)
	@echo "1/2 whole runs, queue and grid, other processes, README snippets (6 to 11 minutes)"
	@$(PYTEST) -m slow --durations=5
	@echo "2/2 the three chapters that train longest (4 to 6 minutes)"
	@$(NBVAL) $(LONG)

test-site: html  ## every page in Chromium: console, network, links, widths, accessibility; pictures in _build/pages (5 minutes)
	@echo "Opening every page at three widths, light and dark; five minutes"
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist worksteal tests/browser

# anndata asks for an older pandas than the book's: a layer over .venv holds what the extras need and nothing else
EXTRAS := _build/extras
test-extras: $(ENVIRONMENT)  ## what mmvm.bring takes from anndata, mudata, xarray, pynapple, in a layer over the environment (2 minutes)
	@echo "Installing the extras cells, xarray and spikes into $(EXTRAS), over the environment's packages; then their tests"
	@$(PY) -m venv $(EXTRAS)
	@$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$($(EXTRAS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/under.pth"
	@$(PY) -c 'import tomllib; extra = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
		print(*extra["cells"], *extra["xarray"], *extra["spikes"], sep="\n")' > $(EXTRAS)/requirements.txt
	@$(EXTRAS)/bin/python -m pip install --no-color --disable-pip-version-check --quiet -r $(EXTRAS)/requirements.txt
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONPATH=. $(EXTRAS)/bin/python -m pytest -q -rs \
		tests/mmvm/test_bring.py tests/studies/hippocampus/test_recordings.py tests/book/test_api.py

attack: $(ENVIRONMENT)  ## damage every file that is read, kill every process that writes; appends to data/attacks.csv (2.5 hours on a busy machine)
	@echo "At least 2,000 damaged inputs a reader, 200 kills and what else disturbs a writer; counts go to data/attacks.csv"
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONPATH=tests:. $(PY) -m attacks

lock:  ## renew requirements.lock: the newest versions that pyproject.toml allows (needs uv: pip install uv)
	@echo "Resolving for Linux, macOS and Python 3.11 and newer; seconds. Then: make test, make notebooks"
	@uv pip compile pyproject.toml --extra book --extra test --extra site --extra grid --extra fid --universal \
		--python-version 3.11 --fork-strategy fewest --upgrade --no-emit-index-url --no-annotate --quiet \
		--custom-compile-command "make lock" --output-file requirements.lock

# needs no package: the line that it reads is in pyproject.toml, whose change would otherwise install all of them again
address:  ## write [tool.mmvm] repository of pyproject.toml wherever else the address stands (seconds)
	@"$(or $(wildcard $(PY)),$(PYTHON))" tools/address.py

release: $(ENVIRONMENT) $(KERNEL)  ## dist/: source, book, wheel, Zenodo's metadata, checksums; the tree must be clean (2 minutes)
	@echo "Rendering the book and packing the commit into dist/; a minute or two"
	@$(PY) tools/release.py

pdf: html  ## all pages as one PDF, _build/pdf/mmvm.pdf, printed by Chromium (2 minutes)
	@$(PY) tools/pdf.py

clean:  ## remove what was built; keeps the environment, runs/ and the data
	@echo "Removing _build, dist and caches; .venv, runs/ and data/ stay (make distclean removes .venv too)"
	@rm -rf _build dist .pytest_cache .ruff_cache .hypothesis .coverage mmvm.egg-info
	@find mmvm studies tests tools book workflow benchmarks -name __pycache__ -prune -exec rm -rf {} + -o \
		-name .ipynb_checkpoints -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove the environment
	@rm -rf "$(VENV)"

$(VENV)/.installed: pyproject.toml requirements.lock
	@[ -n "$(PYTHON)" ] || { echo "error: no Python 3.11 or newer was found: install one, or name it with make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is missing or older than Python 3.11: name another one, e.g. make PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing requirements.lock into $(VENV) with $(PYTHON); 2 to 10 minutes, about 6 GB on Linux (torch with CUDA)"
	@"$(PYTHON)" -m venv "$(VENV)"
	@"$(PY)" -m pip install --no-color --disable-pip-version-check --progress-bar off -r requirements.lock
	@"$(PY)" -m pip install --no-color --disable-pip-version-check --quiet --no-deps -e .
	@"$(PY)" tools/environment.py
	@touch $@

active-environment:
	@"$(PY)" tools/environment.py

$(KERNEL):
	@mkdir -p $(@D) && echo '{"IPKernelApp": {"log_level": 40}}' > $@
