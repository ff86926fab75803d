# Two commands do all the set-up on a fresh machine: `make demo` and `make test`. README.md gives the plain commands.
#   make demo ARGS='--prompt "a woman jumps" --seed 3'      make test ARGS='-k house'      make demo PYTHON=python3.12
#   make comfyui ARGS='--port 8200'      make test-comfyui COMFYUI_PATH=/path/to/ComfyUI

VENV ?= .venv
ARGS ?=
# Tests run in as many processes as there are cores, four at most: each may start ComfyUI servers of its own.
SIDE_BY_SIDE = -n auto --maxprocesses=4 --dist loadfile
PIP = $(VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt

# The interpreter that builds the environment: PYTHON when given, else python3 when it is 3.10 to 3.13, else the newest
# of those that runs. A python without venv (Debian's, before python3-venv) does not count.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 \
	&& echo $$p && break; done)

.PHONY: gpu-checks demo comfyui test test-training test-comfyui node-snapshot lint fuzz clean help

help:
	@echo "make demo           make a clip with the embedded model, in ./comovi_demo"
	@echo "make comfyui        start your ComfyUI (COMFYUI_PATH, or ~/comfy/ComfyUI) with this pack, open on a workflow"
	@echo "make test           run the tests, those on a real ComfyUI too when one is found"
	@echo "make test-training  run the tests of the trainer that take minutes: DeepSpeed, two processes, kill -9"
	@echo "make test-comfyui   run only the tests on a real ComfyUI"
	@echo "make node-snapshot  note new nodes and inputs in the schema snapshot, after which they may not change"
	@echo "make gpu-checks     on a machine with a GPU: prove the kernels there, time them and whole steps, print the roofline"
	@echo "make lint           ruff and mypy"
	@echo "make fuzz           read damaged and hostile motion files (COUNT=3000 SEED=0)"
	@echo "make clean          remove the environment $(VENV) and caches"

demo: $(VENV)/.ready-run
	$(VENV)/bin/comovi demo --out comovi_demo --overwrite $(ARGS)

test: $(VENV)/.ready-test
	$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

# DeepSpeed in two processes, runs that are killed, and the way from videos to weights: minutes on two cores.
test-training: $(VENV)/.ready-train
	COMOVI_TRAINING_TESTS=1 $(VENV)/bin/python -m pytest tests/training tests/comfyui/test_trained_lora.py $(ARGS)

# The servers of these tests run on ComfyUI's own Python; the tests themselves on ours.
test-comfyui: $(VENV)/.ready-test
	$(VENV)/bin/python -m pytest tests/comfyui $(SIDE_BY_SIDE) $(ARGS)

# Everything about speed that needs a GPU, in one command; results stay in $(GPU_RESULTS). On a CPU it proves the harness.
GPU_RESULTS ?= runs/gpu-checks
MODULE = $(VENV)/bin/python -m comfyui_comovi
gpu-checks: $(VENV)/.ready-test
	@mkdir -p $(GPU_RESULTS)
	$(VENV)/bin/python -m pytest tests/test_fused_kernels.py tests/test_fused_gradients.py tests/test_fused_fp8.py \
		tests/test_fused_compile.py tests/test_kernel_dispatch.py tests/test_rewrites.py tests/test_eight_bits.py
	$(MODULE).comovi_model.comovi.benchmark --json $(GPU_RESULTS)/nano_on_cpu.json
	$(MODULE).kernels.benchmark --csv $(GPU_RESULTS)/kernels.csv --model --keep
	$(MODULE).kernels.benchmark --csv $(GPU_RESULTS)/kernels.csv --report | tee $(GPU_RESULTS)/report.txt
	$(MODULE).comovi_model.comovi.memory_modes | tee $(GPU_RESULTS)/memory.txt
	$(MODULE).comovi_model.comovi.parallel_benchmark | tee $(GPU_RESULTS)/parallel.txt

node-snapshot: $(VENV)/.ready-test
	$(VENV)/bin/python -m pytest tests/comfyui/test_schema.py -k snapshot --write-snapshot $(ARGS)

comfyui:
	$(PYTHON) tools/start_comfyui.py $(ARGS)

# mypy wants a folder called like the package, and a checkout may have any name: it looks through a symbolic link.
lint: $(VENV)/.ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@mkdir -p $(VENV)/lint && ln -sfn "$(CURDIR)" $(VENV)/lint/comfyui_comovi
	MYPYPATH=$(VENV)/lint $(VENV)/bin/mypy -p comfyui_comovi

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.13 with the venv module was found; install one (on Debian" \
		"and Ubuntu: apt install python3-venv), or name it: make demo PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.ready-run: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/.ready-test: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) -e ".[test]"
	@touch $@ $(VENV)/.ready-run

$(VENV)/.ready-train: $(VENV)/.made pyproject.toml constraints.txt
	DS_BUILD_OPS=0 $(PIP) -e ".[test,train]"
	@touch $@ $(VENV)/.ready-run $(VENV)/.ready-test

$(VENV)/.ready-dev: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) -e ".[dev]"
	@touch $@ $(VENV)/.ready-run $(VENV)/.ready-test

# Damaged and hostile motion files over all importers: make fuzz COUNT=3000 SEED=1
COUNT ?= 3000
SEED ?= 0
fuzz: $(VENV)/.ready-test
	$(VENV)/bin/python tests/motion_fuzz.py --count $(COUNT) --seed $(SEED)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
