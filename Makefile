# Everything runs in .venv, made from the pins of constraints.txt. The interpreter is the first of the names below that
# runs and has a supported version; `make PYTHON=/path/to/python venv` chooses another.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c '$(SUPPORTED)' 2>/dev/null && echo $$name && break; done)
RUN := .venv/bin/python
# Two test processes share two cores best if TensorFlow starts one thread in each.
THREADS := TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 OMP_NUM_THREADS=1
BUILDIFIER := @bazel/buildifier@8.2.1
# Floating-point sums and products must not be fused; docs/sqz-format.md says why.
C_STRICT := -std=c99 -g -ffp-contract=off -Wall -Wextra -Wpedantic -Werror
C_SANITIZED := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
# What fuzzing starts from: the golden files, and each delta followed by its base.
C_SEEDS := mkdir -p .build/c/seeds && cp tests/codec/golden/*.sqz .build/c/seeds && for delta in delta delta2_paper delta2_max; do \
	cat tests/codec/golden/$$delta.sqz tests/codec/golden/max.sqz > .build/c/seeds/$$delta.sqz; done
FUZZ_SECONDS ?= 600
PLATFORMS := Python 3.11 to 3.13; Linux x86_64 and aarch64 (glibc 2.28), macOS 14 arm64

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo screenshots docs test test-large c fuzz bazel lint lint-bazel format lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | awk -F '|' '{ printf "%-18s%s\n", $$1, $$2 }'

venv: .venv/installed ## make .venv with the package, editable, and pinned versions of everything it needs

.venv/bin/python:
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null || { \
		echo "sqz-keras needs Python 3.11, 3.12 or 3.13, got PYTHON='$(PYTHON)'." \
			"Install one, or name it: make PYTHON=/path/to/python3.12 venv" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear .venv

# setuptools goes first, since builds without isolation use the installed, pinned version.
.venv/commands: pyproject.toml constraints.txt | .venv/bin/python
	$(RUN) -m pip install --constraint constraints.txt setuptools
	$(RUN) -m pip install --constraint constraints.txt --no-build-isolation --editable '.[all]'
	@touch $@

.venv/installed: .venv/commands
	$(RUN) -m pip install --constraint constraints.txt --no-build-isolation --editable '.[all,test,docs]'
	@touch $@

demo: .venv/commands ## train, compress and serve a small SqueezeNet and classify a picture with it; no download is needed
	$(RUN) examples/demo.py

screenshots: demo ## make the pictures of the README again (needs Chromium)
	$(RUN) -m tools.screenshots

docs: venv ## build the documentation site; it opens from .build/site/html/index.html
	$(RUN) -m tools.build_site

test: venv ## run every test but the large ones; set SQZ_TEST_DATA for those on real weights and pictures
	$(THREADS) $(RUN) -m pytest -m "not large" --numprocesses=2 --dist=loadfile --durations=10

# In the order of the files: sorted by number of tests, the longest-running files, with one test each, would come last.
test-large: venv ## run the large tests
	$(RUN) -m pytest -m large --numprocesses=2 --dist=loadfile --no-loadscope-reorder --durations=25

c: ## build the decoder in C, c/sqz.h, and test it with a C compiler alone
	mkdir -p .build/c
	sed '/\*\//q' c/sqz.h | sed -n 's/^       //p' > .build/c/example.c
	$(CC) $(C_STRICT) -Ic -c -o .build/c/example.o .build/c/example.c
	$(CC) $(C_STRICT) -O2 -o .build/c/sqz c/sqz.c
	$(CC) $(C_STRICT) $(C_SANITIZED) -o .build/c/test c/test.c
	.build/c/test tests/codec/golden
	$(CC) $(C_STRICT) $(C_SANITIZED) -DSQZ_FUZZ_MAIN -o .build/c/fuzz c/fuzz.c
	$(C_SEEDS)
	.build/c/fuzz 5 .build/c/seeds/*

fuzz: ## fuzz the decoder in C with clang's libFuzzer, for FUZZ_SECONDS=600
	mkdir -p .build/c/corpus
	clang $(C_STRICT) $(C_SANITIZED) -fsanitize=fuzzer -o .build/c/libfuzzer c/fuzz.c
	$(C_SEEDS)
	.build/c/libfuzzer -max_total_time=$(FUZZ_SECONDS) -max_len=16384 .build/c/corpus .build/c/seeds

bazel: venv ## build and test by Bazel; BAZEL_FLAGS=--config=offline where it reaches no network
	bazel test $(BAZEL_FLAGS) //...
	$(RUN) -m pytest tests/bazel/check_docs.py

lint: venv ## check style and formatting
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

lint-bazel: ## check the form of Bazel's files (needs npm)
	npx --yes $(BUILDIFIER) -mode=check -lint=warn $$(git ls-files WORKSPACE '*/WORKSPACE' '*.bazel' '*.bzl')

format: venv ## correct style and formatting
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

lock: ## choose the pins of constraints.txt again (needs uv on the PATH)
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest --all-extras --no-config \
		--no-annotate --custom-compile-command "make lock  # $(PLATFORMS)" --output-file constraints.txt pyproject.toml

clean: ## remove everything that these targets made, .venv too
	[ ! -e bazel-bin ] || bazel clean --expunge
	rm -rf .venv .build dist *.egg-info .pytest_cache .ruff_cache .hypothesis demo-output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
