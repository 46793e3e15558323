# The entry points. `make` alone lists them; each line that starts with a target and ends with `##` is one.
#
# A fresh Debian needs git, make and Rust (rustup); what else is missing is installed by dev/stack, as root or through sudo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

STACK := dev/stack
CARGO := cargo
# What all tests are built with: the places where a test can make the program die.
TEST := $(CARGO) test --locked --features fault-points
# Tests against servers wait more than they compute, so that two cores have room for a third. With more cores it is what cargo itself would take, but for the slots and connections that a test's server has.
export RUST_TEST_THREADS ?= $(shell cores=$$(nproc 2>/dev/null || echo 1); echo $$((cores < 3 ? 3 : cores > 8 ? 8 : cores)))
# How long `make fuzz` runs each target.
FUZZ_SECONDS ?= 60
# How much `make test-long` does; `make test` does 60 rounds and a million rows, and kills each of what has part in a copy 3 to 8 times.
KILL_ROUNDS ?= 600
REPLAY_EVENTS ?= 1000000
HUGE_ROWS ?= 10000000
SNAPSHOT_ROUNDS ?= 60

.PHONY: help
help: ## List the targets.
	@printf 'pgsluice: committed changes of PostgreSQL as keyed Avro records in Kafka, exactly once\n\n'
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '%-22s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: ## See it work on live traffic, against real servers; ends by itself.
	@examples/demo/run

.PHONY: demo-forever
demo-forever: ## The same until Ctrl-C.
	@examples/demo/run --forever

.PHONY: build
build: dependencies ## Build target/release/pgsluice.
	BUILT_FROM_REVISION="$$([ -z "$$(git rev-parse --show-prefix 2>&1)" ] && git describe --always --dirty --abbrev=12 --exclude '*' || true)" $(CARGO) build --locked --release --bin pgsluice

.PHONY: test
test: dependencies ## Prove it: unit, property and golden tests, and tests against PostgreSQL 18 and 14, Kafka and a registry.
	$(STACK) install --postgres 14 --browser
	$(TEST) --workspace --no-run
	$(STACK) run -- $(TEST) --workspace
	$(STACK) run --postgres 14 -- $(TEST) --test end_to_end -- changes termination publication idle_tables slot_guards sigkill fault_points parity round_trip ddl existing_rows_are_copied a_partitioned_table_is_copied

.PHONY: test-versions
test-versions: dependencies ## The tests of the whole stream on PostgreSQL 15, 16 and 17.
	$(STACK) install --browser
	$(TEST) --test end_to_end --no-run
	for version in 15 16 17; do \
		printf '\n== PostgreSQL %s\n' "$$version"; \
		$(STACK) run --postgres "$$version" -- $(TEST) --test end_to_end; \
	done

.PHONY: test-long
test-long: dependencies ## The fault suite at length: 600 rounds of kills, 60 of each while rows are copied, 10 million rows in one transaction; all of copies on 14.
	$(STACK) install --postgres 14 --browser
	$(STACK) run -- env PGSLUICE_TEST_KILL_ROUNDS=$(KILL_ROUNDS) PGSLUICE_TEST_HUGE_ROWS=$(HUGE_ROWS) PGSLUICE_TEST_REPLAY_EVENTS=$(REPLAY_EVENTS) \
		PGSLUICE_TEST_SNAPSHOT_KILLS=$(SNAPSHOT_ROUNDS) PGSLUICE_TEST_SNAPSHOT_CRASHES=$(SNAPSHOT_ROUNDS) $(TEST) --test end_to_end
	$(STACK) run --postgres 14 -- $(TEST) --test end_to_end -- snapshot::

.PHONY: bench
bench: dependencies ## Decode and encode per row, drain a million rows beside pg_recvlogical, copy five million beside COPY.
	$(STACK) install --bench-tools
	$(CARGO) bench --locked -p pgoutput -p encoder
	$(CARGO) build --locked --release --bin pgsluice
	$(STACK) run --bench -- $(CARGO) bench --locked --bench drain --bench snapshot

.PHONY: fuzz
fuzz: ## Fuzz the decoders and the parsers of values; needs a nightly toolchain and cargo-fuzz. FUZZ_SECONDS=60
	python3 fuzz/seed.py
	for target in message frame copy value decoded; do \
		$(CARGO) +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS); \
	done

.PHONY: lint
lint: dependencies ## Format, clippy, documentation, licences, shell scripts.
	@.ci/run lint

.PHONY: clean-stacks
clean-stacks: ## Take down every stack of servers that was left, and its data.
	@for folder in .dev/stacks/*/; do \
		if [[ -d $$folder ]]; then $(STACK) down --name "$$(basename "$$folder")"; fi; \
	done

# What building librdkafka takes. Without any server: those come when they are started.
.PHONY: dependencies
dependencies:
	@$(STACK) install --build-deps --no-postgres --no-kafka --no-registry
