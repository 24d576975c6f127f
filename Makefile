# Each target sets up what it needs, from nothing: `git clone`, `make demo`. A second run only looks at file times.
#
#   make demo    the tour: a private network, a connect(), a lost SYN, the port range filling up
#   make test    the suite three times: compiled, uncompiled, and with checks in inet/, live/ and wire/; COVERAGE=1 measures it
#   make lint    ruff, mypy --strict, the direction of imports
#   make bench   the benchmarks
#   make docs    docs/*.md that are made from the code: connect.md, profiles.md; a test tells when they are stale
#   make format  let ruff lay out the code as `make lint` wants it
#   make setup   everything the others need
#   make clean   take away what was built; .venv stays

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore

# One at a time: a second make in the same tree waits here for the first, then finds its work done.
LOCK := $(if $(shell command -v flock),flock Makefile)

# What is compiled, and what of it has no .so yet.
TYPED := $(shell find src benchmarks -name '*.pxd' -o -name '*.pyx')
SOURCES := $(sort $(TYPED) $(wildcard $(TYPED:.pxd=.py)))
MODULES := $(basename $(filter %.py %.pyx,$(SOURCES)))
UNBUILT := $(strip $(foreach m,$(MODULES),$(if $(wildcard $(m).cpython-*.so),,$(m))))

.PHONY: setup demo test lint bench docs format clean FORCE
.DELETE_ON_ERROR:

setup: $(VENV)/dev.stamp build/compiled.stamp

demo: build/compiled.stamp
	$(BIN)/fourtuple demo

# Measuring coverage makes the uncompiled run three times slower: for whoever asks, with COVERAGE=1.
COVERAGE ?=

# The checked build is for the code that indexes memory by hand: bounds are checked, and a shift too far or a signed
# overflow is an illegal instruction (setup.py, SANITIZE).
CHECKED_TESTS = $(wildcard tests/test_build.py tests/inet tests/live tests/wire tests/fuzz)

test: setup
	$(BIN)/python -m pytest
	$(BIN)/python $(if $(COVERAGE),-m coverage run) -m pytest --pure
	$(if $(COVERAGE),$(BIN)/python -m coverage report)
	$(LOCK) env FOURTUPLE_BUILD=checked $(BIN)/python setup.py -q build_ext
	PYTHONPATH=build/checked $(BIN)/python -m pytest $(CHECKED_TESTS)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup
	$(BIN)/python -m benchmarks

docs: build/compiled.stamp
	for tool in $(wildcard tools/make_*_md.py tools/make_profiles.py); do $(BIN)/python $$tool || exit; done

clean:
	rm -rf build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
	find src benchmarks -name '*.so' -delete
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# The virtual environment with what it takes to build and run; the package itself is linked, not copied.
$(VENV)/run.stamp: pyproject.toml tools/system-packages.sh
	@echo "setting up $(VENV)" >&2
	@$(LOCK) tools/system-packages.sh $(PYTHON)
	@$(LOCK) sh -c '[ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear $(VENV)'
	@$(BIN)/python -c 'import tomllib; t = tomllib.load(open("pyproject.toml", "rb")); \
	    print(*t["build-system"]["requires"], sep="\n")' > $(VENV)/build-requires.txt
	@$(LOCK) $(PIP) -r $(VENV)/build-requires.txt
	@FOURTUPLE_BUILD=none $(LOCK) $(PIP) --no-build-isolation -e .
	@touch $@

# ... and what it takes to work on it.
$(VENV)/dev.stamp: $(VENV)/run.stamp
	@echo "setting up $(VENV): tools and extras" >&2
	@$(LOCK) tools/system-packages.sh $(PYTHON) dev
	@FOURTUPLE_BUILD=none $(LOCK) $(PIP) --no-build-isolation -e '.[top,exporter,plots,cluster,dev]'
	@touch $@

build/compiled.stamp: $(VENV)/run.stamp setup.py $(SOURCES) build/sources $(if $(UNBUILT),FORCE)
	@echo "compiling what changed of $(words $(MODULES)) modules" >&2
	@$(LOCK) $(BIN)/python setup.py -q build_ext --inplace
	@touch $@

# The list itself: a removed source is no newer file, yet its .so has to go.
build/sources: FORCE
	@mkdir -p build
	@echo $(SOURCES) | cmp -s - $@ || echo $(SOURCES) > $@
