# The commands of this repository. Each installs what it needs first; `make help` lists them.
# Plain make (GNU 3.81 and later) and sh; CARGO_TARGET_DIR is honoured.

CARGO ?= cargo
PROGRAMS = $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)/release

.PHONY: help demo example test chaos simulate bench fuzz lint build

help:
	@echo 'make demo    a whole flash sale in the terminal, with the proof that it adds up'
	@echo '             UNITS=20000 BUYERS=60000 RECORDS=sqlite:orders.db (or mongodb:// postgres:// mysql://)'
	@echo 'make example lists the scenarios of examples/; NAME=bank-transfer runs one, ARGS=--crash with a crash in it'
	@echo 'make test    all tests, on real servers that it installs, starts and stops; ARGS="-- NAME" picks some'
	@echo 'make chaos   kills, cuts off, fills up and lies to real servers while buyers buy, and judges: KILLS=300 SEED=1 MINUTES=30'
	@echo 'make bench   the figures of docs/performance.md, beside the floor of this machine; ARGS=--quick tries it'
	@echo 'make simulate whole worlds under a seeded clock (docs/simulation.md); SEEDS=10000, or CERTIFY=100000 for the model of Redis'
	@echo 'make fuzz    bytes of any kind into everything that reads; MINUTES=10 for each target, TARGET=address for one; needs nightly'
	@echo 'make lint    formatting and clippy, as the tests of a change want them'
	@echo 'make build   release programs, in $(PROGRAMS)'

demo: build
	@sh .ci/need redis-server
	@"$(PROGRAMS)/rushline-loadtest" demo \
		$(if $(UNITS),--units '$(UNITS)') $(if $(BUYERS),--buyers '$(BUYERS)') $(if $(RECORDS),--records '$(RECORDS)') $(ARGS)

example: build
	@$(if $(NAME),sh .ci/need curl pip && sh tests/servers/install.sh)
	@"$(PROGRAMS)/rushline-examples" $(if $(NAME),run '$(NAME)',list) $(ARGS)

test:
	@sh .ci/need cargo cc curl pip
	@sh tests/run.sh $(ARGS)

simulate:
	@sh .ci/need cargo cc $(if $(CERTIFY),curl pip)
	@$(if $(CERTIFY),sh tests/servers/install.sh && CERTIFY='$(CERTIFY)' $(CARGO) test --release --locked -p rushline-simulate \
		--test certify -- --nocapture,$(CARGO) run --release --locked -q -p rushline-simulate -- --seeds $(or $(SEEDS),10000) $(ARGS))

chaos: build
	@sh .ci/need redis-server curl pip
	@sh tests/servers/install.sh
	@"$(PROGRAMS)/rushline-loadtest" chaos \
		--redis-server-8 "$${RUSHLINE_TEST_SERVERS:-target/test-servers}/bin/redis-server-8" \
		$(if $(KILLS),--kills '$(KILLS)') $(if $(SEED),--seed '$(SEED)') $(if $(MINUTES),--minutes '$(MINUTES)') $(ARGS)

bench: build
	@sh .ci/need redis-server
	@"$(PROGRAMS)/rushline-loadtest" bench $(ARGS)

fuzz:
	@sh .ci/need cargo cc
	@CARGO='$(CARGO)' MINUTES='$(MINUTES)' TARGET='$(TARGET)' sh fuzz/run.sh

lint:
	@sh .ci/need cargo cc
	$(CARGO) fmt --all --check
	@if $(CARGO) clippy --version >/dev/null 2>&1; then \
		echo '$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings'; \
		$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings; \
	else \
		echo 'clippy is not installed here (rustup component add clippy); left out'; \
	fi

build:
	@sh .ci/need cargo cc
	$(CARGO) build --release --workspace --locked
