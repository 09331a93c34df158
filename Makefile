# Everything happens in an environment of its own, .venv, made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One thread for each test worker; tests that need more ask for them.
JOBS ?= 2

CXX_SOURCES := $(shell find kernels csrc tests -name '*.h' -o -name '*.cpp')

.PHONY: help install demo bench test sanitize lint format clean

help:
	@echo "make demo     train on the paper's toy problem, compare with the optimum, measure groups per second"
	@echo "make test     the whole test suite"
	@echo "make sanitize random calls of the compiled libraries under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make bench    the CPU kernel beside its peers, as ratios; writes bench/results/cpu.json and .png"
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

bench: install
	$(BIN)/python -m bench.cpu

test: install
	$(BIN)/python -m pytest -n $(JOBS)

# The compiled libraries under AddressSanitizer and UndefinedBehaviorSanitizer: random calls, then the properties.
SANITIZED := build/sanitized
SANITIZE_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g
# Python and torch keep memory until the process ends, and torch is not built with the sanitizers: leaks are not looked for.
RUN_SANITIZED = PYTHONPATH=$(SANITIZED) ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)"
FUZZ_SECONDS ?= 40

$(SANITIZED)/.built: $(VENV)/.requirements setup.py $(CXX_SOURCES) $(wildcard pkpo_kernels/*.py)
	PKPO_CXXFLAGS="$(SANITIZE_FLAGS)" PKPO_LDFLAGS="$(SANITIZE_FLAGS)" $(BIN)/python setup.py --quiet build \
		--build-lib $(SANITIZED) --build-temp build/sanitized-objects
	touch $@

sanitize: $(SANITIZED)/.built
	$(RUN_SANITIZED) $(BIN)/python tests/fuzz.py --seconds $(FUZZ_SECONDS)
	$(RUN_SANITIZED) $(BIN)/pytest -q -p no:cacheprovider tests/test_properties.py tests/test_errors.py

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
