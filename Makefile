# The chores of this repository. `make help` lists them.

SHELL := /bin/bash
CARGO ?= cargo
# More arguments for `plugmesh dev`: make run ARGS="--listen 127.0.0.1:9000"
ARGS ?=
# How many seeds: make sim SEEDS=100000
SEEDS ?= 10000
# One part of the benchmarks, or one fault: make bench ONLY=call, make chaos ONLY=agent-kill
ONLY ?=
# How often each fault of make chaos happens, and how long make soak lasts.
ROUNDS ?= 10
MINUTES ?= 30
# Of the data plane alone: from which seed on, or the one seed to replay; a planted bug to be found.
FIRST ?= 1
SEED ?=
PLANTED ?=

# The server's path reaches the programs in the environment; one that is set already is left alone.
NATS = PLUGMESH_NATS_SERVER="$${PLUGMESH_NATS_SERVER:-$$(scripts/fetch-nats-server.py)}" && export PLUGMESH_NATS_SERVER
NATS_OLDEST = PLUGMESH_TEST_NATS_OLDEST="$${PLUGMESH_TEST_NATS_OLDEST:-$$(scripts/fetch-nats-server.py --oldest)}" && export PLUGMESH_TEST_NATS_OLDEST

TEST_PYTHON = export PLUGMESH_TEST_PYTHON="$(CURDIR)/.tools/venv/bin/python"

.PHONY: help run build test sim bench chaos soak check fmt codegen tidy clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the mesh and the examples in release mode
	@$(CARGO) build --release --locked

# `exec`, so that Ctrl-C reaches plugmesh itself, once, and its exit code is what make sees.
run: ## start a whole mesh on this machine; Ctrl-C stops it
	@scripts/fetch-nats-server.py >/dev/null
	@$(CARGO) build --release --locked
	@$(NATS) && exec target/release/plugmesh dev $(ARGS)

test: ## set up what the tests need and run all of them
	@scripts/setup-tests.sh
	@$(CARGO) build --workspace --bins --locked
	@$(NATS) && $(NATS_OLDEST) && $(TEST_PYTHON) && exec $(CARGO) test --workspace --locked

sim: ## run the simulations by thousands of seeds; SEEDS=n, or SEED=n to replay one of the data plane
	@$(CARGO) build --release --locked -p mesh-tests --bin sim
	@target/release/sim $(if $(SEED),--seed $(SEED),--first $(FIRST) --seeds $(SEEDS)) $(if $(PLANTED),--planted $(PLANTED))
	$(if $(SEED)$(PLANTED),,@SEEDS=$(SEEDS) $(CARGO) test --release --locked --quiet -p mesh-engine --lib sim:: -- --ignored --nocapture)

bench: ## run the benchmarks, of what is deployed (profile dist); ONLY=call runs a part
	@$(CARGO) build --profile dist --workspace --bins --locked
	@$(NATS) && exec target/dist/bench $(if $(ONLY),--only $(ONLY))

chaos: ## harm a mesh under load, and account for every call; ONLY=fault, ROUNDS=n
	@$(CARGO) build --profile dist --workspace --bins --locked
	@$(NATS) && exec target/dist/chaos chaos --rounds $(ROUNDS) $(if $(ONLY),--only $(ONLY))

soak: ## a long run with faults: memory and descriptors must stay flat; MINUTES=n
	@$(CARGO) build --profile dist --workspace --bins --locked
	@$(NATS) && exec target/dist/chaos soak --minutes $(MINUTES)

check: ## everything that must pass before a commit
	@exec .ci/run

fmt: ## format the Rust sources
	@$(CARGO) fmt --all

codegen: ## generate the Rust bindings from proto/
	@$(CARGO) run --quiet --locked -p xtask -- codegen

tidy: ## check the rules of the house
	@$(CARGO) run --quiet --locked -p xtask -- tidy

clean: ## remove what was built and fetched
	@$(CARGO) clean
	@rm -rf .tools
