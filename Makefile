# Everything happens in an environment of its own, .venv, made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One thread for each test worker; tests that need more ask for them.
JOBS ?= 2

CXX_SOURCES := $(shell find kernels csrc tests bench -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.PHONY: help install demo bench bench-verl learn gpu wheel test test-triton test-integrations sanitize docs links lint format clean

help:
	@echo "make demo     train on the paper's toy problem, compare with the optimum, measure groups per second"
	@echo "make test     the whole test suite"
	@echo "make test-integrations  TRL and verl, in an environment of their own"
	@echo "make learn    a small model learns in TRL's trainer, for k = 1 and k = 8; writes bench/results/trl_learning.md and .png"
	@echo "make bench-verl  verl's own estimators beside this package's; writes bench/results/verl.md"
	@echo "make sanitize random calls of the compiled libraries under AddressSanitizer and UndefinedBehaviorSanitizer, and the CUDA"
	@echo "              kernels, on the CPU, watched for data races"
	@echo "make bench    the CPU kernel beside its peers, as ratios; writes bench/results/cpu.json and .png"
	@echo "make wheel    a wheel with CUDA kernels for PKPO_CUDA_ARCHS, in dist/; needs nvcc, but no GPU"
	@echo "make gpu      on a machine with an NVIDIA GPU: builds for it, tests, checks and measures"
	@echo "make docs     the documents and the API reference as a site, in build/docs; make links follows the links that leave it"
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

# The trainers people use, in an environment of their own: the newest versions supported, and the oldest TRL before it.
INTEGRATIONS := build/venv-integrations
OLDEST_TRL := build/trl-1.0
# The package's source and libraries, as the environment of `make install` built them.
WITH_PACKAGE := PYTHONPATH="$(abspath .)"

$(INTEGRATIONS)/.installed: requirements-integrations.txt
	$(PYTHON) -m venv $(INTEGRATIONS)
	$(INTEGRATIONS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-integrations.txt
	touch $@

$(OLDEST_TRL)/.installed: $(INTEGRATIONS)/.installed
	$(INTEGRATIONS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(OLDEST_TRL) trl==1.0.0
	touch $@

test-integrations: install $(INTEGRATIONS)/.installed $(OLDEST_TRL)/.installed
	$(WITH_PACKAGE) $(INTEGRATIONS)/bin/python -m pytest -n $(JOBS) tests/integrations
	PYTHONPATH="$(abspath .):$(abspath $(OLDEST_TRL))" $(INTEGRATIONS)/bin/python -m pytest -n $(JOBS) tests/integrations/test_trl.py

learn: install $(INTEGRATIONS)/.installed
	$(WITH_PACKAGE) $(INTEGRATIONS)/bin/python -m bench.trl_learning

bench-verl: install $(INTEGRATIONS)/.installed
	$(WITH_PACKAGE) $(INTEGRATIONS)/bin/python -W ignore -m bench.verl  # verl's warnings, of engines that are not there

# The CUDA kernels' sources compiled for the CPU, to be tested.
CUDA_ON_CPU := build/cuda_on_cpu
# Where there is nvcc, a wheel for two architectures, to be tested too.
TEST_WHEEL := build/test-wheel

# Of the hundreds of tests that take seconds each, in Triton's compiler or interpreter, each eleventh; SLOW_EVERY=1 runs all.
SLOW_EVERY ?= 11

test: install $(CUDA_ON_CPU)/_cuda_on_cpu.so $(TEST_WHEEL)/.built
	TRITON_CACHE_DIR=build/triton-cache $(BIN)/python -m pytest -n $(JOBS) --slow-every $(SLOW_EVERY)
	$(MAKE) test-triton

# Triton's kernels in its interpreter, which runs a kernel on the CPU a tensor operation at a time: the oracle's table but for
# its largest groups, and rows in odd places, which it reads like others. Then the oldest Triton that is supported: its
# interpreter, and its compiler for one architecture.
INTERPRETED := TRITON_INTERPRET=1 PKPO_TEST_BACKENDS="triton interpreted"
OLDEST_TRITON := build/oldest-triton

test-triton: install $(OLDEST_TRITON)/.installed
	$(INTERPRETED) $(BIN)/python -m pytest -n $(JOBS) --slow-every $(SLOW_EVERY) -k "not 65536 and not million and not rows_of_a_word" \
		tests/test_transform.py tests/test_grouped.py tests/test_gradients.py tests/test_promises.py tests/test_errors.py \
		tests/test_triton_rows.py tests/test_triton_large.py tests/test_triton_quotient.py tests/test_infinite.py
	PYTHONPATH=$(OLDEST_TRITON) $(INTERPRETED) $(BIN)/python -m pytest -n $(JOBS) --slow-every $(SLOW_EVERY) tests/test_gradients.py \
		tests/test_triton_rows.py tests/test_triton_large.py tests/test_triton_quotient.py -W ignore::DeprecationWarning
	PYTHONPATH=$(OLDEST_TRITON) TRITON_CACHE_DIR=build/triton-cache $(BIN)/python tests/triton_compile.py --every 31 90

# Of those that work with this Python. NumPy of its time too: its interpreter fails with newer ones.
$(OLDEST_TRITON)/.installed: $(VENV)/.requirements
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(OLDEST_TRITON) \
		"triton==3.4.0; python_version < '3.14'" "numpy<2.3; python_version < '3.14'" \
		"triton==3.6.0; python_version == '3.14'" "numpy<2.4; python_version == '3.14'" \
		"triton==3.9.0; python_version >= '3.15'"
	touch $@

$(CUDA_ON_CPU)/_cuda_on_cpu.so: $(VENV)/.requirements $(CXX_SOURCES) tests/cuda_on_cpu/build.py
	$(BIN)/python tests/cuda_on_cpu/build.py $(CUDA_ON_CPU)

$(TEST_WHEEL)/.built: $(VENV)/.requirements setup.py pyproject.toml $(CXX_SOURCES) $(wildcard pkpo_kernels/*.py kernels/triton/*.py)
	rm -rf $(TEST_WHEEL) build/ptxas
	mkdir -p $(TEST_WHEEL)
	if $(BIN)/python -c "import setup; print(setup.nvcc() or exit(1))"; then \
		PKPO_NVCC_FLAGS=-Werror=all-warnings $(MAKE) wheel PKPO_CUDA_ARCHS="8.0 9.0" DIST=$(TEST_WHEEL) && mv build/ptxas $(TEST_WHEEL)/; \
	fi
	touch $@

# For the GPUs of compute capability 8.0 and newer: A100, RTX 30, RTX 40 and L4, H100 and H200, B200, RTX 50.
PKPO_CUDA_ARCHS ?= 8.0 8.6 8.9 9.0 10.0 12.0
DIST ?= dist

# For Linux its name says which glibc it needs (manylinux); of libraries it leaves out torch's own, which the user has.
wheel: $(VENV)/.requirements
	rm -rf build/wheel
	PKPO_CUDA_ARCHS="$(PKPO_CUDA_ARCHS)" $(BIN)/python -m pip wheel --quiet --disable-pip-version-check \
		--no-build-isolation --no-deps --wheel-dir build/wheel .
	mkdir -p $(DIST)
	if [ -x $(BIN)/auditwheel ]; then \
		PATH="$(abspath $(BIN)):$$PATH" auditwheel repair --exclude libtorch_cpu.so --wheel-dir $(DIST) build/wheel/*.whl; \
	else mv build/wheel/*.whl $(DIST)/; fi
	@ls -l $(DIST)/*.whl

# Everything that needs a GPU, in one go, with the Python and the torch that are there: no network, no environment of its own.
gpu:
	$(PYTHON) -m bench.gpu_session

# The compiled libraries under AddressSanitizer and UndefinedBehaviorSanitizer: random calls, then the properties.
SANITIZED := build/sanitized
# What UndefinedBehaviorSanitizer says of null pointers and the sizes of objects AddressSanitizer finds too: without it the
# compiler takes half the time.
SANITIZE_FLAGS := -fsanitize=address,undefined -fno-sanitize=null,object-size -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g1
# Python and torch keep memory until the process ends, and torch is not built with the sanitizers: leaks are not looked for.
RUN_SANITIZED = PYTHONPATH=$(SANITIZED) PKPO_CUDA_ON_CPU=$(SANITIZED)/cuda_on_cpu ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)"
FUZZ_SECONDS ?= 40

$(SANITIZED)/.built: $(VENV)/.requirements setup.py $(CXX_SOURCES) $(wildcard pkpo_kernels/*.py)
	PKPO_CXXFLAGS="$(SANITIZE_FLAGS)" PKPO_LDFLAGS="$(SANITIZE_FLAGS)" $(BIN)/python setup.py --quiet build \
		--build-lib $(SANITIZED) --build-temp build/sanitized-objects
	touch $@

$(SANITIZED)/cuda_on_cpu/_cuda_on_cpu.so: $(VENV)/.requirements $(CXX_SOURCES) tests/cuda_on_cpu/build.py
	$(BIN)/python tests/cuda_on_cpu/build.py $(SANITIZED)/cuda_on_cpu $(SANITIZE_FLAGS)

# The CUDA kernels with a watch over data races (tests/cuda_on_cpu/races.h).
RACES := build/races
$(RACES)/_cuda_on_cpu.so: $(VENV)/.requirements $(CXX_SOURCES) tests/cuda_on_cpu/build.py
	$(BIN)/python tests/cuda_on_cpu/build.py $(RACES) --races

sanitize: install $(SANITIZED)/.built $(SANITIZED)/cuda_on_cpu/_cuda_on_cpu.so $(RACES)/_cuda_on_cpu.so
	$(RUN_SANITIZED) $(BIN)/python tests/fuzz.py --seconds $(FUZZ_SECONDS)
	$(RUN_SANITIZED) $(BIN)/python tests/fuzz.py --seconds $(FUZZ_SECONDS) --backend "cuda on cpu"
	$(RUN_SANITIZED) $(BIN)/pytest -q -n $(JOBS) -p no:cacheprovider tests/test_properties.py tests/test_errors.py
	$(RUN_SANITIZED) $(BIN)/pytest -q -n $(JOBS) -p no:cacheprovider tests/test_transform.py tests/test_grouped.py tests/test_gradients.py \
		tests/test_promises.py -k "cuda or ragged or same_bits"
	PKPO_CUDA_ON_CPU=$(RACES) $(BIN)/python tests/gpu_calls.py --on-cpu

# A reference that leads nowhere is an error.
docs: install
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -c docs . build/docs
	@echo "build/docs/docs/index.html"

# Needs the network.
links: install
	$(BIN)/python -m sphinx --quiet -b linkcheck -c docs . build/links

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
