# The commands of this repository. Each installs what it needs first; `make help` lists them.
# Plain make (GNU 3.81 and later) and sh; CARGO_TARGET_DIR is honoured.

CARGO ?= cargo
PROGRAMS = $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)/release

.PHONY: help demo example test chaos simulate bench fuzz docs lint deny deb build

help:
	@echo 'make demo    a whole flash sale in the terminal, with the proof that it adds up'
	@echo '             UNITS=20000 BUYERS=60000 RECORDS=sqlite:orders.db (or mongodb:// postgres:// mysql://)'
	@echo 'make example lists the scenarios of examples/; NAME=bank-transfer runs one, ARGS=--crash with a crash in it'
	@echo 'make test    all tests, on real servers that it installs, starts and stops; ARGS="-- NAME" picks some'
	@echo 'make chaos   kills, cuts off, fills up and lies to real servers while buyers buy, and judges: KILLS=300 SEED=1 MINUTES=30'
	@echo 'make bench   the figures of docs/performance.md, beside the floor of this machine; ARGS=--quick tries it'
	@echo 'make simulate whole worlds under a seeded clock (docs/simulation.md); SEEDS=10000, or CERTIFY=100000 for the model of Redis'
	@echo 'make docs    what docs/reference/ has from the code is written anew, and the book is built in target/book'
	@echo 'make fuzz    bytes of any kind into everything that reads; MINUTES=10 for each target, JOBS=2 at a time, TARGET=address for one, KEEP=1 to keep what was found'
	@echo 'make lint    formatting and clippy, as the tests of a change want them'
	@echo 'make deny    licences, sources and duplicates of what is built in, as deny.toml has them'
	@echo 'make deb     a Debian package in $(PROGRAMS)/../debian'
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

docs:
	@sh .ci/need cargo cc curl pip
	@sh tests/book/install.sh
	@RUSHLINE_WRITE_DOCS=1 $(CARGO) test --all-features --locked -q --test it -- the_reference_is_what_the_code_says
	@"$${RUSHLINE_TEST_BOOK:-target/test-book}/mdbook/bin/mdbook" build docs

fuzz:
	@sh .ci/need cargo cc pip
	@CARGO='$(CARGO)' KEEP='$(KEEP)' MINUTES='$(MINUTES)' TARGET='$(TARGET)' JOBS='$(JOBS)' sh fuzz/run.sh

lint:
	@sh .ci/need cargo cc
	$(CARGO) fmt --all --check
	@if $(CARGO) clippy --version >/dev/null 2>&1; then \
		echo '$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings'; \
		$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings; \
	else \
		echo 'clippy is not installed here (rustup component add clippy); left out'; \
	fi

deny:
	@sh .ci/need cargo pip
	@sh tests/deploy/install.sh >/dev/null
	@deny="$${RUSHLINE_TEST_DEPLOY:-target/test-deploy}/bin/cargo-deny"; \
		if [ ! -x "$$deny" ]; then command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny@0.20.2; deny=cargo-deny; fi; \
		"$$deny" --all-features check bans licenses sources

deb: build
	@command -v cargo-deb >/dev/null || $(CARGO) install --locked cargo-deb@3.8.0
	@sh deploy/debian/collect.sh '$(PROGRAMS)'
	@$(CARGO) deb --no-build --locked --package rushline

build:
	@sh .ci/need cargo cc
	$(CARGO) build --release --workspace --locked
