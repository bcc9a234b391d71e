# make demo: from nothing to an answer about a photograph. make demo-triton: the same from a server.
# make test: everything CI runs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# CPU wheels of PyTorch where the index has them; the constraints pin every version.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo demo-triton test docs bench clean

$(VENV)/demo: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[cpu,docs]'
	touch $@

$(VENV)/test: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[test,rtx]'
	touch $@

$(VENV)/triton: $(VENV)/demo
	$(PIP) --editable '.[cpu,docs,triton]'
	touch $@

# A real tritonserver for the CPU, with a Python environment of its own for the models.
.triton/ready: tools/triton/install.sh tools/triton/requirements.txt
	PYTHON=$(PYTHON) bash tools/triton/install.sh .triton

demo: $(VENV)/demo
	$(BIN)/python -m luvc.tools.demo_model demo/model
	$(BIN)/luvc-export --model demo/model --ratio 2x --output demo/bundle
	$(BIN)/luvc-run demo/bundle --image demo/photo.png "What is in the picture?" --max-new-tokens 24 --verbose

demo-triton: $(VENV)/triton .triton/ready
	$(BIN)/python -m luvc.tools.demo_model demo/model
	$(BIN)/luvc-export --model demo/model --ratio 2x --output demo/bundle
	PATH="$(CURDIR)/$(BIN):$$PATH" bash tools/triton/demo.sh demo/bundle demo/photo.png

test: $(VENV)/test .triton/ready
	LUVC_TRITON=$(CURDIR)/.triton OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

docs: $(VENV)/demo
	$(BIN)/python -m luvc.tools.pictures docs

bench: $(VENV)/demo
	$(BIN)/python benchmarks/prefill_cpu.py
	$(BIN)/python benchmarks/tables.py README.md

clean:
	rm -rf $(VENV) .triton demo
