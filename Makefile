# make demo: fresh machine to report. make test: fresh machine to green. make help lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# All here, or where the StreamFlow file ON= says.
RUN = $(if $(ON),$(at_sites) environments/hybrid/run,environments/local/run)
KEY := $(or $(XDG_CONFIG_HOME),$(HOME)/.config)/slicestream/pseudonym_key

.PHONY: help setup checkers peers bench bench-full demo real score segment images sites sites-down hybrid debian test lint docs clean
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

setup: .venv/ready ## install into .venv, from requirements.lock
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

# Checkers of others, that pin older libraries than ours: in an environment of their own.
checkers: .venv/checkers/ready ## what checks the crates in the tests, in .venv/checkers
.venv/checkers/ready: tests/provenance/requirements.lock | setup
	$(PYTHON) -m venv .venv/checkers
	.venv/checkers/bin/pip install --quiet --requirement $<
	touch $@

# Nothing of them is imported by a step.
peers: .venv/peers/ready ## what the benchmarks compare with, in .venv/peers
.venv/peers/ready: benchmarks/requirements.lock | setup
	$(PYTHON) -m venv .venv/peers
	.venv/peers/bin/pip install --quiet --requirement $<
	touch $@

bench: setup peers ## comparisons with peers, in about an hour, into docs/performance.md; the machine must be quiet. FLAGS="--only NAME --rounds N"
	$(BIN)/python benchmarks/bench.py --page docs/performance.md $(FLAGS)
bench-full: setup peers ## the same on whole scans and up to 1000 patients, for hours
	$(BIN)/python benchmarks/bench.py --page docs/performance.md --size full $(FLAGS)

# The site's secret of the pseudonyms: made once, kept.
$(KEY):
	mkdir -p -m 700 $(dir $@)
	umask 077; $(PYTHON) -c 'import secrets; print(secrets.token_hex(32))' > $@

NAME ?= $(firstword $(filter demo real score segment hybrid,$(MAKECMDGOALS)))
need = $(if $($(1)),,$(error $(1)= is missing; need $(2)))

runs/.phantom/cohort: | setup
	$(BIN)/slicestream phantom --patients 32 --out $@
	cp -p $@/pseudonym_key runs/.phantom/

demo: setup ## synthetic cohort to report, in runs/demo
	@[ ! -e runs/$(NAME) ] || [ "$(FORCE)" = 1 ] || { echo "make: runs/$(NAME) is there. Choose another NAME=, or replace it with FORCE=1." >&2; exit 2; }
	@$(MAKE) --no-print-directory runs/.phantom/cohort
	@$(RUN) $(NAME) main $(ON) --cohort runs/.phantom/cohort --pseudonym_key runs/.phantom/pseudonym_key --recipe phantom --negatives 0.2 --title "SliceStream on a synthetic cohort"

real: setup $(KEY) ## DATA=folder [BACKGROUNDS=folder] [EXCLUDE=list] [ANNOTATIONS=folder]: the whole workflow on a labelled folder, in runs/real
	$(call need,DATA,a labelled folder)
	@$(RUN) $(NAME) main $(ON) --cohort $(DATA) --pseudonym_key $(KEY) --recipe $(or $(RECIPE),laptop) --flips $(if $(BACKGROUNDS),--backgrounds $(BACKGROUNDS)) $(if $(EXCLUDE),--exclude $(EXCLUDE)) $(if $(ANNOTATIONS),--annotations $(ANNOTATIONS))

score: setup $(KEY) ## MODEL=folder DATA=folder [ANNOTATIONS=folder]: a trained model on a labelled folder, in runs/score
	$(call need,MODEL,a folder that holds model.onnx)
	$(call need,DATA,a labelled folder)
	@$(RUN) $(NAME) score $(ON) --cohort $(DATA) --pseudonym_key $(KEY) --model $(MODEL)/model.onnx --flips $(if $(ANNOTATIONS),--annotations $(ANNOTATIONS))

segment: setup $(KEY) ## MODEL=folder DATA=folder: a trained model on new studies, in runs/segment
	$(call need,MODEL,a folder that holds model.onnx)
	$(call need,DATA,a folder of DICOM studies)
	@$(RUN) $(NAME) segment $(ON) --cohort $(DATA) --pseudonym_key $(KEY) --model $(MODEL)/model.onnx --flips

images: setup debian ## the container images of train and infer, in containers/images
	@PATH=$(CURDIR)/$(BIN):$$PATH containers/build train infer

# The sites: a test bed on this machine, unless SITES=own says that your own ssh and kube configuration lead to them.
TESTBED ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/slicestream/testbed
export TESTBED
BED_WAS_UP := $(wildcard $(TESTBED)/hpc/run-hpc/unshare.pid)
at_sites = $(if $(filter own,$(SITES)),,HOME=$(TESTBED)/home KUBECONFIG=$(TESTBED)/home/.kube/config)
sites: $(if $(filter own,$(SITES)),,images) ## an HPC site and a Kubernetes on this machine, with our images
	@$(if $(filter own,$(SITES)),:,tests/testbed/up containers/images/train.tar containers/images/infer.tar)
sites-down: ## take both down
	@tests/testbed/down

hybrid: sites ## [DATA=folder] [ON=file] [SITES=own]: training on Slurm, inference on Kubernetes, in runs/hybrid
	@$(MAKE) --no-print-directory $(if $(DATA),real,demo) NAME=$(NAME) ON=$(or $(ON),streamflow.yml)

# NO_MKDOCS_2_WARNING: no advertisement for another builder in our output.
docs: setup ## the documentation as a site, in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo $(CURDIR)/site/index.html

lint: setup ## style, types, import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Debian tools that the tests ask for a second opinion; elsewhere they say what is missing. The tests start an Orthanc of
# their own: the package's service, which would listen to the whole network, is not to start.
debian: debian-packages.txt
	@missing=$$(dpkg-query -W -f '$${Package}\n' 2>/dev/null | sort | comm -13 - <(sort $<)); \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    case " $$missing " in *[[:space:]]orthanc[[:space:]]*) systemctl mask --quiet orthanc 2>/dev/null;; esac; \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

workflows/tests/cohort: | setup
	$(BIN)/slicestream phantom --patients 6 --matrix 128 --out $@

# These only compute: they take the core that the others, waiting for sites and servers, leave idle.
BESIDE := $(addprefix tests/,dicom inference learning synthesis volumes)

# The tests of the sites need the sites. Where this machine cannot host them they skip and say why; in CI that is a failure.
test: setup checkers debian lint workflows/tests/cohort ## all that must hold, with coverage
	-@$(if $(filter own,$(SITES)),:,$(MAKE) --no-print-directory sites)
	$(BIN)/coverage erase
	@mkdir -p build
	nice -n 5 $(BIN)/coverage run -m pytest $(BESIDE) > build/beside.log 2>&1 & beside=$$!; trap "kill $$beside 2>/dev/null" EXIT; \
	$(BIN)/coverage run -m pytest $(BESIDE:%=--ignore=%); status=$$?; wait $$beside || status=1; cat build/beside.log; \
	$(if $(BED_WAS_UP)$(filter own,$(SITES)),,tests/testbed/down;) exit $$status
	@# a test kills a process on purpose, which tears its coverage file: the report below counts what is whole
	-$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --skip-empty --include 'steps/*'

clean: ## remove the environment and caches, keep runs
	rm -rf .venv build site *.egg-info steps/*.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
