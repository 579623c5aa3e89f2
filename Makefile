# make demo   train on the built-in toy roads, reconstruct, ablate, draw: outputs/demo/report.html
# make test   format, lint, unit tests, every notebook, the report in a browser
# make test-slow   what takes 20 minutes: a kill before every change to a file of training, evaluation, publishing …
# make test-gpu   what only a GPU can show, minutes; make gpu-results DATA=FOLDER VAL=FOLDER   published results from one GPU
# make lab    JupyterLab, at a trained tokenizer      make lint   format, lint, types only         make bench   speed and memory
# make shipped   train the tokenizer in outputs/published again, an hour on two CPU cores
# make figures   draw every figure again: of all sweeps in outputs/, and the published ones
# Each sets up .venv first, with the pinned requirements.txt; needs Python 3.11 or newer.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
export PATH := $(abspath $(BIN)):$(PATH)
export MPLBACKEND := Agg
DEMO := -f params/demo.yaml

# what git leaves out of a notebook: outputs, and what JupyterLab and papermill note at each save
LANGUAGE := $(addprefix metadata.language_info.,codemirror_mode file_extension mimetype nbconvert_exporter pygments_lexer version)
STRIP := --extra-keys "metadata.papermill cell.metadata.papermill $(LANGUAGE)"

.PHONY: demo figures shipped test test-slow test-gpu gpu-results lab lint bench env filter clean
env: $(VENV)/installed filter

filter:  # notebooks/*.ipynb, by .gitattributes
	@! git rev-parse --git-dir >/dev/null 2>&1 || git config filter.notebooks.clean '"$(abspath $(BIN))/nbstripout" $(STRIP)'

$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tok1d needs Python 3.11 or newer: type make PYTHON=python3.12 …"; exit 1; }
	@echo "== setting up $(VENV): some 200 pinned packages, 6 GB; minutes, the first time"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "this Python cannot make environments: on Debian, apt-get install python3-venv"; exit 1; }
	@awk '{ print > ("$(VENV)/requirements." NR % 2 ".txt") }' requirements.txt
	@$(PIP) --no-compile -r $(VENV)/requirements.0.txt & first=$$!; \
		$(PIP) --no-compile -r $(VENV)/requirements.1.txt; second=$$?; wait $$first && test $$second = 0
	@$(PIP) -e .
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true  # pip would, with one processor
	@touch $@

demo: env
	@echo "== 1/6 training: linear tokens and a refining decoder, elastic from 1 to 64 tokens; then 16 tokens"
	@tok1d run notebooks/train.ipynb $(DEMO) -p run=elastic-64
	@tok1d run notebooks/train.ipynb $(DEMO) -p run=fixed-16 -p elastic=false -p num_latent_tokens=16
	@echo "== 2/6 reconstructing"
	@tok1d run notebooks/reconstruct.ipynb -p sweep=demo -p run=elastic-64
	@tok1d run notebooks/reconstruct.ipynb -p sweep=demo -p run=fixed-16
	@echo "== 3/6 quality against token count"
	@tok1d run notebooks/ablation.ipynb -p sweep=demo
	@echo "== 4/6 figures"
	@tok1d run notebooks/figures.ipynb -p sweep=demo
	@echo "== 5/6 generating: a prior over the first 16 tokens, asked by time of day and weather"
	@tok1d run notebooks/generate.ipynb -f params/generate/demo.yaml
	@echo "== 6/6 report"
	@tok1d report outputs/demo
	@echo "figures: outputs/demo/figures/    runs: outputs/demo/elastic-64/ outputs/demo/fixed-16/"
	@echo "open outputs/demo/report.html"

SHIPPED := outputs/published/toy-roads-64px
shipped: env
	@tok1d run notebooks/train.ipynb -f params/shipped.yaml
	@tok1d run notebooks/reconstruct.ipynb -p sweep=published -p run=toy-roads-64px -p show_images=8
	@mkdir -p $(SHIPPED)/figures && cd $(SHIPPED) && cp recon/grid.png recon/grid.json recon/rate-distortion.png recon/rate-distortion.json figures/

figures: env
	@tok1d figures outputs

test: lint
	@echo "== tests: units, notebooks through the runner, report and JupyterLab in Chromium if there is one"
	@OMP_NUM_THREADS=1 python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --durations=25
	@echo "all passed"

test-slow: env
	@OMP_NUM_THREADS=1 python -m pytest -n 2 -m slow --durations=0
	@echo "all passed"

test-gpu: env
	@python -m pytest -m gpu -rs tests/gpu

# In slices under ten minutes: type it again while it ends with status 75. WEIGHTS holds the pretrained files
WEIGHTS ?= .weights
gpu-results: env
	@test -n "$(DATA)" -a -n "$(VAL)" || { echo "type make gpu-results DATA=FOLDER VAL=FOLDER"; exit 1; }
	@python -m benchmarks.gpu_results $(STAGES) data=$(DATA) val_data=$(VAL) weights=$(WEIGHTS)

lint: env
	@echo "== format and lint, notebooks too"
	@ruff format --check .
	@ruff check .
	@lint-imports --no-cache >/dev/null || lint-imports --no-cache
	@mypy --no-error-summary
	@nbstripout --verify $(STRIP) notebooks/*.ipynb

lab: env
	@jupyter lab notebooks/explore.ipynb

bench: env
	@python -m benchmarks.step

clean:
	rm -rf $(VENV) outputs/demo outputs/.cache
