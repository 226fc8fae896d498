# The manual: each verb below is one thing that you can do here.
#
#   make book       build the website into _build/html
#   make serve      build it, then serve it on http://localhost:8000
#   make pdf        print the website as one book, _build/bnlib-book.pdf
#   make test       everything: lint, library, notebooks, built site
#   make test-slow  what only repeats, elsewhere or for longer, what `make test` shows
#   make notebooks  execute the chapters whose text or library changed, in place
#   make explorables  bundle the widgets of explorables/ (the one verb that needs Node and npm)
#   make bench      time bnlib beside its peers; prints ratios
#   make links      ask whether the links that lead out of the book still work
#   make lighthouse  let Lighthouse judge each chapter of the built site (needs Node and npx)
#   make lint       ruff, format and rules
#   make format     let ruff rewrite
#   make lock       resolve the versions in pyproject.toml into requirements.lock
#   make clean      remove what was built; `make distclean` also removes the environment

PYTHON ?= python3
PORT   ?= 8000
WORKERS ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TORCH  := $(VENV)/.torch

NOTEBOOKS := $(shell find book -name '*.ipynb' -not -path '*/.*')
LIBRARY   := $(shell find bnlib -name '*.py')
SITE_FROM := _config.yml CHANGELOG.md $(shell find book vendor -type f -not -name '*.pyc' -not -path '*/.*') $(LIBRARY)

# TensorFlow logs to stderr unless told not to, and one BLAS thread is faster at these sizes.
export TF_CPP_MIN_LOG_LEVEL = 3
export TF_ENABLE_ONEDNN_OPTS = 0
export OPENBLAS_NUM_THREADS = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: bench chromium book explorables lighthouse links pdf serve test test-lib test-notebooks test-site test-slow notebooks lint format lock clean distclean

book: _build/html/index.html
	@echo "The book is ready. Open file://$(CURDIR)/_build/html/index.html"

pdf: _build/bnlib-book.pdf

_build/bnlib-book.pdf: _build/html/index.html tools/book_pdf.py | chromium
	$(BIN)/python -m tools.book_pdf

# Apart from `make test`: it takes long, and performance follows the load of the machine.
lighthouse: _build/html/index.html chromium
	@command -v npx >/dev/null || { echo "make lighthouse needs Node 20 or newer, with npx"; exit 1; }
	$(BIN)/python -m tools.lighthouse $(if $(RUNS),--runs $(RUNS))

links: $(READY)
	$(BIN)/python -m tools.links

serve: book
	@echo "http://localhost:$(PORT)  (Ctrl-C stops)"
	@$(BIN)/python -m http.server $(PORT) --directory _build/html

test: lint test-lib test-notebooks test-site

# The tests of a file stay in one worker, but for a few: see tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --durations=10

test-lib: $(READY) $(TORCH) chromium
	$(PYTEST) -m "not slow" bnlib tests --ignore tests/test_site.py

test-slow: $(READY) $(TORCH) chromium _build/html/index.html
	$(PYTEST) -m slow tests

test-notebooks: _build/.notebooks-tested

test-site: _build/html/index.html chromium
	$(BIN)/python -m pytest tests/test_site.py

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
	$(BIN)/python benchmarks/models.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The tests look at what they draw, and the PDF is printed, so they need a browser.
chromium:
	@for name in "$$CHROMIUM" chromium chromium-browser google-chrome; do \
		command -v "$$name" >/dev/null && exit 0; done; \
		echo "this needs Chromium: apt-get install chromium, or set CHROMIUM to its path"; exit 1

# PyTorch is a peer for the tests. pip, not uv: it takes a CPU build where one is offered.
$(TORCH): requirements-torch.lock $(READY)
	$(BIN)/pip install --quiet --no-input -r requirements-torch.lock
	@touch $@

# The environment: every version from the lock, then bnlib itself, editable.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--upgrade --no-annotate --no-header --quiet -o requirements.lock

_build/html/index.html: $(READY) $(SITE_FROM)
	rm -rf _build/html _build/.doctrees
	$(BIN)/jupyter-book build book --config _config.yml --path-output . -n -W --keep-going
	@touch $@

# nbval runs the notebooks that changed since it last passed; all of them when the library did.
NBVAL_ALSO := $(READY) $(TORCH) $(LIBRARY) book/conftest.py tools/tolerance.py tests/nbval_sanitize.cfg
_build/.notebooks-tested: $(NOTEBOOKS) $(NBVAL_ALSO)
	$(PYTEST) --nbval --nbval-current-env --nbval-cell-timeout=300 \
		--nbval-sanitize-with tests/nbval_sanitize.cfg \
		$(if $(filter $(NBVAL_ALSO),$?),$(NOTEBOOKS),$(filter %.ipynb,$?))
	@mkdir -p $(@D) && touch $@

clean:
	rm -rf _build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
