# Everything happens in an environment of its own, .venv, made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One thread for each test worker; tests that need more ask for them.
JOBS ?= 2

CXX_SOURCES := $(shell find kernels csrc tests -name '*.h' -o -name '*.cpp')

.PHONY: help install demo test lint format clean

help:
	@echo "make demo     train on the paper's toy problem, compare with the optimum, measure groups per second"
	@echo "make test     the whole test suite"
	@echo "make lint     ruff and clang-format, checking only; make format mends"
	@echo "make install  the environment and the compiled libraries, needed by all of them"
	@echo "make clean    removes what the others made"

$(VENV)/.requirements: requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/.installed: $(VENV)/.requirements setup.py pyproject.toml $(CXX_SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/python -m bench.demo

test: install
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(VENV)/.requirements
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

format: $(VENV)/.requirements
	$(BIN)/clang-format -i $(CXX_SOURCES)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist demo *.egg-info pkpo_kernels/*.so
