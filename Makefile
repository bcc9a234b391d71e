# make demo: from nothing to an answer about a photograph. make test: everything CI runs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# CPU wheels of PyTorch where the index has them; the constraints pin every version.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test docs bench clean

$(VENV)/demo: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[cpu,docs]'
	touch $@

$(VENV)/test: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[test,rtx]'
	touch $@

# LFM2-VL's image processor needs torchvision. It is no dependency: tests run it in a process of its own.
$(VENV)/torchvision: constraints.txt $(VENV)/test
	$(PIP) --no-deps --upgrade --target $@ torchvision
	touch $@

demo: $(VENV)/demo
	$(BIN)/python -m luvc.tools.demo_model demo/model
	$(BIN)/luvc-export --model demo/model --ratio 2x --output demo/bundle
	$(BIN)/luvc-run demo/bundle --image demo/photo.png "What is in the picture?" --max-new-tokens 24 --verbose

test: $(VENV)/test $(VENV)/torchvision
	OMP_NUM_THREADS=1 LUVC_TORCHVISION=$(CURDIR)/$(VENV)/torchvision $(BIN)/python -m pytest --numprocesses 2

docs: $(VENV)/demo
	$(BIN)/python -m luvc.tools.pictures docs

bench: $(VENV)/demo
	$(BIN)/python benchmarks/prefill_cpu.py
	$(BIN)/python benchmarks/tables.py README.md

clean:
	rm -rf $(VENV) demo
