# make demo: from nothing to answers about a picture and a photograph. make demo-serve: the same by OpenAI's API.
# make demo-triton: the same from Triton. make test: everything CI runs. make test-all: with what takes longest.
# make lmms: a bundle in lmms-eval. make fuzz, kills, soak: short tests of CI, long. make site: the documentation, with the API reference.
PYTHON ?= $(or $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(if $(shell command -v $p),$p))),python3.11)
VENV := .venv
BIN := $(VENV)/bin
# The constraints pin every version.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The pocket VLM: small, trained, part of the source.
POCKET := tools/pocket/model
DEMO := demo
SEED := 0
PAGES := README.md docs/cpu.md docs/serving.md docs/speed.md tools/pocket/README.md

.PHONY: demo demo-serve demo-triton installed test test-all lmms fuzz kills soak docs site bench peers accuracy clean

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

$(VENV)/site: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[cpu,site]'
	touch $@

$(VENV)/triton: $(VENV)/demo
	$(PIP) --editable '.[cpu,docs,triton]'
	touch $@

# A real tritonserver for the CPU, with a Python environment of its own for the models.
.triton/packages: tools/triton/install.sh tools/triton/requirements.txt
	PYTHON=$(PYTHON) bash tools/triton/install.sh .triton packages

.triton/ready: .triton/packages
	bash tools/triton/install.sh .triton project

demo: $(VENV)/demo
	$(BIN)/luvc-export --model $(POCKET) --ratio 2x --text-tokens 24 --output $(DEMO)/bundle
	$(BIN)/python -m luvc.tools.demo.ask $(DEMO)/bundle
	$(BIN)/luvc-run $(DEMO)/bundle --image $(DEMO)/picture.png "What does the green text say?" --show-tokens $(DEMO)/tokens.png --verbose

demo-triton: demo $(VENV)/triton .triton/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" bash tools/triton/demo.sh $(DEMO)/bundle $(DEMO)/photo.png

$(VENV)/serve: $(VENV)/demo
	$(PIP) --editable '.[cpu,docs,serve]' openai
	touch $@

demo-serve: demo $(VENV)/serve
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/10_openai/example.sh $(DEMO)/bundle $(DEMO)/picture.png

# What tests need. Packages come at once; the project is installed once at a time, for pip builds it in its folder.
installed:
	$(MAKE) --jobs 2 $(VENV)/torchvision .triton/packages
	$(MAKE) .triton/ready

# With bytecode: processes that tests start would compile the project again.
PYTEST = PYTHONDONTWRITEBYTECODE= LUVC_TRITON=$(CURDIR)/.triton LUVC_TORCHVISION=$(CURDIR)/$(VENV)/torchvision OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

test: installed
	$(PYTEST) -m "not slow"

# Ray Serve brings much that nothing else needs.
$(VENV)/replicas: $(VENV)/test
	$(PIP) --editable '.[replicas]'
	touch $@

# Every family in every precision, too: before a release, and after a change to the exporter.
test-all: installed $(VENV)/replicas
	$(PYTEST)

# lmms-eval in an environment of its own; what writes its tables wants an older python-dateutil than we pin.
.lmms/ready: pyproject.toml constraints.txt
	rm -rf .lmms
	$(PYTHON) -m venv .lmms
	grep -v '^python-dateutil==' constraints.txt > .lmms/constraints.txt
	.lmms/bin/pip install --quiet --disable-pip-version-check --constraint .lmms/constraints.txt --editable '.[cpu,eval,lmms]'
	touch $@

lmms: .lmms/ready $(VENV)/test
	LUVC_LMMS=$(CURDIR)/.lmms OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/tools/lmms

$(VENV)/fuzz: $(VENV)/test
	$(PIP) --editable '.[fuzz]'
	touch $@

# About an hour. It goes on where it was stopped; SEED=1 tries other inputs.
fuzz: $(VENV)/fuzz
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seed $(SEED)

# Every command that writes, killed at each of its file events.
kills: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.kill .fuzz/kills

# 32 threads on one scheduler for ten minutes.
soak: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.soak

docs: $(VENV)/demo demo
	$(BIN)/python -m luvc.tools.demo.doc_pictures docs
	$(BIN)/python -m luvc.tools.demo.architecture docs/architecture.svg
	cp $(DEMO)/tokens.png docs/tokens.png

# A broken link, or something public without a docstring, is an error.
site: $(VENV)/site
	$(BIN)/python -m sphinx -W --keep-going --quiet docs site
	@echo "open site/index.html"

bench: $(VENV)/demo
	$(BIN)/python -m benchmarks.cpu
	$(BIN)/python -m benchmarks.latency_ratio
	$(BIN)/python -m benchmarks.tables $(PAGES)

# Hours on a CPU, minutes on a GPU.
accuracy: $(VENV)/test
	$(BIN)/python -m benchmarks.accuracy $(POCKET) --workers 2
	$(BIN)/python -m benchmarks.accuracy.report

# Other products on the same weights, in an environment of their own below benchmarks/peers.
peers: $(VENV)/demo
	$(BIN)/python -m benchmarks.peers.run
	$(BIN)/python -m benchmarks.peers.run --family internvl
	$(BIN)/python -m benchmarks.tables $(PAGES)

clean:
	rm -rf $(VENV) .triton .lmms $(DEMO) site build
