# Each target makes the virtual environment that it needs below this folder.
# Nothing but git, make and python3 (3.11 or newer) has to be there.

PYTHONS := $(shell .ci/pythons)
ifeq ($(PYTHONS)$(filter help clean,$(or $(MAKECMDGOALS),help)),)
$(error Python 3.11 to 3.15 with its venv is needed, and with the GIL (Debian: apt-get install python3-venv))
endif
OLDEST := $(firstword $(PYTHONS))
NEWEST := $(lastword $(PYTHONS))
VERSION = $(if $(1),$(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])'))
OLD := .venv-$(call VERSION,$(OLDEST))
NEW := .venv-$(call VERSION,$(NEWEST))
QUEUES = $(shell $(NEWEST) .ci/queues)
comma := ,

# More processes than cores, for some tests wait for a clock; a module stays in one of them.
PYTEST := -m pytest --numprocesses 4 --dist loadscope --no-loadscope-reorder

# Each of those processes, and of those that tests start, would compile all anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-fast test-browser test-queues test-consumers test-saq test-lowest test-queues-lowest reference table coverage lint format types bench clean
.DEFAULT_GOAL := help

help:  ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 28

$(sort $(OLD)/.ready $(NEW)/.ready): pyproject.toml
	@echo "preparing $(@D) (once)"
	@$(if $(filter $(OLD)/.ready,$@),$(OLDEST),$(NEWEST)) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --upgrade pip
	@$(@D)/bin/python -m pip install --quiet --editable '.[test,lint]'
	@touch $@

demo: $(OLD)/.ready  ## run the told story: three organizations, a thousand jobs
	@$(OLD)/bin/sigra demo

test: $(OLD)/.ready $(NEW)/.ready  ## run the tests on the oldest and the newest Python found
	@set -e; for venv in $(sort $(OLD) $(NEW)); do \
		echo "== $$venv"; $$venv/bin/python $(PYTEST); done

test-fast: $(NEW)/.ready  ## run what needs no server and starts no program, on one Python
	@# In forks, which load and collect nothing; more of them than cores, for some tests wait.
	@SIGRA_FEW=1 $(NEW)/bin/python -m pytest -p no:xdist --forks 16 -m "not servers and not programs"

test-browser: $(NEW)/.ready  ## look at the audit page in a real Chromium (Debian: apt-get install chromium)
	@SIGRA_BROWSER=1 $(NEW)/bin/python -m pytest tests/web/test_chromium.py

test-queues: test-consumers test-saq  ## run the tests in real consumers, on real servers

# In more processes, for they mostly wait.
test-consumers: .venv-queues/.ready
	@SIGRA_QUEUES=$(QUEUES) .venv-queues/bin/python $(PYTEST) --numprocesses 8 -rs tests/queues examples/mariadb tests/test_backends_table.py

test-saq: .venv-saq/.ready
	@SIGRA_QUEUES=saq .venv-saq/bin/python $(PYTEST) -rs tests/queues/test_saq.py tests/queues/test_examples.py tests/test_backends_table.py

test-lowest: .venv-lowest-test/.ready  ## run the tests with the lowest versions that pyproject.toml allows
	@.venv-lowest-test/bin/python $(PYTEST)

test-queues-lowest:  ## run the tests of each queue at its lowest version; of one: QUEUES=rq
	@set -e; for queue in $(subst $(comma), ,$(QUEUES)) $(if $(filter file,$(origin QUEUES)),saq); do \
		$(MAKE) --no-print-directory .venv-lowest-$$queue/.ready; echo "== $$queue"; \
		SIGRA_QUEUES=$$queue .venv-lowest-$$queue/bin/python $(PYTEST) -rs tests/queues/test_$$queue.py; done

# Each queue has its own, for the lowest versions of two need not go together.
.venv-lowest-%/.ready: pyproject.toml .ci/lowest
	@echo "preparing $(@D) (once)"
	@$(if $(filter test,$*),$(OLDEST),$(NEWEST)) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --upgrade pip
	@$(@D)/bin/python .ci/lowest $* > $(@D)/lowest.txt
	@$(@D)/bin/python -m pip install --quiet --constraint $(@D)/lowest.txt \
		--editable '.[$*,test$(if $(filter-out test,$*),$(comma)queue-tests)]'
	@touch $@

reference: $(NEW)/.ready  ## write docs/reference.md from the signatures and docstrings
	@$(NEW)/bin/python tests/reference.py

table: .venv-queues/.ready .venv-saq/.ready  ## write the table of docs/backends.md from the classes
	@for venv in .venv-queues .venv-saq; do $$venv/bin/python tests/capability_table.py; done

.venv-queues/.ready .venv-saq/.ready: pyproject.toml examples/mariadb/pyproject.toml
	@echo "preparing $(@D) (once)"
	@$(NEWEST) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --upgrade pip
	@$(@D)/bin/python -m pip install --quiet --editable \
		'.[test,queue-tests,$(if $(filter .venv-saq,$(@D)),saq,$(QUEUES))]'
	@$(@D)/bin/python -m pip install --quiet --editable examples/mariadb
	@touch $@

coverage: $(OLD)/.ready  ## run the tests with branch coverage of sigra/; at least 95 %
	@$(OLD)/bin/coverage erase
	@COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml COVERAGE_FILE=$(CURDIR)/.coverage \
		$(OLD)/bin/coverage run $(PYTEST)
	@$(OLD)/bin/coverage combine --quiet
	@$(OLD)/bin/coverage report

lint: $(OLD)/.ready  ## check style and format
	@$(OLD)/bin/ruff check .
	@$(OLD)/bin/ruff format --check .

format: $(OLD)/.ready  ## put the code into its format
	@$(OLD)/bin/ruff check --fix .
	@$(OLD)/bin/ruff format .

types: $(OLD)/.ready  ## check the types with mypy --strict and pyright
	@$(OLD)/bin/mypy
	@$(OLD)/bin/pyright --pythonpath $(OLD)/bin/python

bench: $(OLD)/.ready .venv-queues/.ready .venv-saq/.ready  ## measure the speed goals, as ratios
	@for venv in $(OLD) .venv-queues .venv-saq; do \
		$$venv/bin/python -m pip install --quiet --editable '.[bench]'; done
	@$(OLD)/bin/python -m benchmarks
	@.venv-queues/bin/python -m benchmarks.peers
	@.venv-queues/bin/python -m benchmarks.queues
	@.venv-saq/bin/python -m benchmarks.queues --only saq --results benchmarks/results/queues-saq

clean:  ## remove what was made
	@rm -rf .venv-* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
