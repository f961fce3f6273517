# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3
BIN := .venv/bin
# kernels are compiled against the headers of the jaxlib they will run with
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_CONSTRAINT := constraints.txt
KERNELS := hatch_build.py $(wildcard src/poprnn/core/native/*.cc src/poprnn/core/native/*.h src/poprnn/core/native/build.py)
WORKERS ?= 2

.PHONY: demo test test-all lint format bench constraints clean

demo: .venv/base          ## Train a demo-sized recipe and write its page.
	$(BIN)/poprnn reproduce curriculum_timescales --scale demo --out runs/demo --progress

test: .venv/dev lint      ## Lint, types, layers and all tests but the slow ones.
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" --durations=25

test-all: .venv/dev lint  ## The slow tests too.
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: .venv/dev
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev
	$(BIN)/ruff check --fix src tests benchmarks docs

bench: .venv/bench        ## Side by side with PyTorch; needs a quiet machine and about 25 minutes.
	$(BIN)/python benchmarks/bench.py

constraints: .venv/dev    ## Write the versions of this environment to constraints.txt.
	$(BIN)/python -m pip freeze --exclude-editable --exclude torch > constraints.txt

clean:
	rm -rf .venv runs build dist

.venv/base: pyproject.toml constraints.txt $(KERNELS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/dev: pyproject.toml constraints.txt $(KERNELS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch .venv/base $@

.venv/bench: .venv/dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0" psutil
	touch $@
