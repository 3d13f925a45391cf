# make demo    the whole way on generated clips: install, run, say where the report is
# make test    the test suite (what CI runs);  make test-all adds the slow ones;  make parity the reference comparisons
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
CORES ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

# Containers often forbid Python to keep what it compiled; then every command compiles its libraries anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all parity lint format lock clean

# Everything hash-pinned; the stamp is touched last, so that an interrupted installation is repeated.
$(VENV)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "Python 3.11 or 3.12 is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -qq --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements.lock
	touch $@

demo: $(VENV)/.installed
	$(VENV)/bin/snakemake --workflow-profile workflows/profiles/local --configfile workflows/config/demo.yaml
	@echo
	@echo "report:   runs/demo/demo/report.html"
	@echo "features: runs/demo/demo/features     (Zarr; xarray.open_zarr(path, group=KEY))"
	@echo "release:  runs/demo/demo/release"

# A test process that dies ends the run with the name of its test; restarted ones can hang pytest-xdist for ever.
test test-all: export OMP_NUM_THREADS := 1
test: $(VENV)/.installed
	$(RUN) -m pytest -n $(CORES) --dist loadfile --max-worker-restart 0 -m "not slow and not parity and not gpu"

test-all: $(VENV)/.installed
	$(RUN) -m pytest -n $(CORES) --dist loadfile --max-worker-restart 0

parity: $(VENV)/.installed
	$(RUN) -m pytest -m parity -rs

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/snakefmt --check Snakefile workflows/rules

format: $(VENV)/.installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/snakefmt Snakefile workflows/rules

# No index lines: they would name one registry; hashes make the files the same wherever they come from.
lock:
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-package openvino-telemetry --no-header --quiet -o requirements.lock

# What `make demo` and the tools left.  Other runs, and what Snakemake knows of them (.snakemake), are not ours to remove.
clean:
	rm -rf runs/demo .pytest_cache .ruff_cache
