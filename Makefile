# Everything that is done with this tree. `make run` and `make test` set up what they need.

PREFIX ?= /usr/local
DESTDIR ?=
VIRTCONTAINERS_CACHE ?= /var/cache/virtcontainers
SETUP_PACKAGES ?= yes
SOAK_ROUNDS ?= 20

CARGO_DENY_VERSION := 0.20.2
CARGO_NEXTEST_VERSION := 0.9.143

TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
BUILT := target/$(TARGET)/release
# As it is installed and measured: small, and slow to build.
DIST := target/$(TARGET)/dist
# What boots of our own kernel are measured beside.
DISTRIBUTION_GUEST := $(VIRTCONTAINERS_CACHE)/guest-distribution
TOOLS := $(VIRTCONTAINERS_CACHE)/tools
# Features that tests need and that a plain build leaves out.
TEST_FEATURES := guest-image/build,virtc/fault-points,containerd-shim-virtc-v2/fault-points

export VIRTCONTAINERS_CACHE
export PATH := $(PATH):$(TOOLS)/cargo-deny-$(CARGO_DENY_VERSION)/bin:$(TOOLS)/cargo-nextest-$(CARGO_NEXTEST_VERSION)/bin

.PHONY: all setup build build-tests dist guest guest-kernel run test check soak bench conformance install clean

all: build

# What building and running need on a fresh machine; each step is skipped when it is done.
setup:
ifeq ($(SETUP_PACKAGES),yes)
	@scripts/setup-packages.sh
endif

build: setup
	@cargo build --release

dist: setup
	@cargo build --profile dist -p virtc -p containerd-shim-virtc-v2

# Our own kernel, from the distribution's source and the lists in guest/kernel; `guest` takes it from then
# on. Some minutes, once for each change of its inputs.
guest-kernel:
	@scripts/guest-kernel.sh

# The guest's kernel and initrd. KERNEL_PACKAGE=FILE, or KERNEL=FILE KERNEL_MODULES=DIR; OWN_KERNEL=no
# for the distribution's although our own is there.
guest: setup
	@scripts/guest.sh

# The main job: a command in a throw-away VM that says where it is and how long the start took.
run: build guest
	@$(BUILT)/virtc run --timeline -- sh -c 'echo "guest kernel: $$(uname -r)"; . /etc/os-release; \
		echo "root:         $$PRETTY_NAME"'
	@echo "host kernel:  $$(uname -r)"

# The tests themselves, which need no guest to be built.
build-tests: setup
	@scripts/setup-tool.sh cargo-nextest $(CARGO_NEXTEST_VERSION)
	@cargo nextest run --no-run --release --workspace --features $(TEST_FEATURES)

test: guest build-tests
	@cargo nextest run --release --workspace --features $(TEST_FEATURES)
	@cargo test --quiet --release --workspace --features $(TEST_FEATURES) --doc

# The programs a second time as `build` makes them: without what tests need of them.
check: setup
	@scripts/setup-tool.sh cargo-deny $(CARGO_DENY_VERSION)
	@cargo fmt --all -- --check
	@cargo clippy --release --workspace --features $(TEST_FEATURES) --all-targets -- -D warnings
	@cargo clippy --release -- -D warnings
	@cargo deny --log-level error check bans licenses sources
	@RUSTDOCFLAGS='-D warnings' cargo doc --quiet --release --workspace --no-deps \
		--features $(TEST_FEATURES)

# The tests on real VMs, again and again: what fails once in a hundred times fails here.
soak: guest
	@scripts/setup-tool.sh cargo-nextest $(CARGO_NEXTEST_VERSION)
	@VIRTC_TEST_CONTAINERS=$${VIRTC_TEST_CONTAINERS:-200} \
		VIRTC_TEST_CLONES=$${VIRTC_TEST_CLONES:-50} \
		VIRTC_TEST_PAUSED_S=$${VIRTC_TEST_PAUSED_S:-60} \
		VIRTC_TEST_NETWORK_CYCLES=$${VIRTC_TEST_NETWORK_CYCLES:-200} \
		VIRTC_TEST_EXECS=$${VIRTC_TEST_EXECS:-10000} \
		VIRTC_TEST_PODS=$${VIRTC_TEST_PODS:-50} \
		VIRTC_TEST_POD_CONTAINERS=$${VIRTC_TEST_POD_CONTAINERS:-5} \
		VIRTC_TEST_KILLS_STEP=1 \
		VIRTC_TEST_WAITING=1 \
		cargo nextest run --profile soak --release --workspace --features $(TEST_FEATURES) \
		--run-ignored all -E 'binary(real)' --stress-count $(SOAK_ROUNDS)

# A cold start beside its floors, starts from a template beside those of a bare clone, the commands, tasks of
# containerd, and the network. It fails where the ratios of starts are missed. BENCH_FLAGS='--gate --runs 3', see
# `xtask bench --help`;
# SPEED_FLAGS='--pictures docs/speed'; NETWORK_FLAGS, see `xtask network --help`.
bench: dist guest
	@VIRTC_GUEST_ASSETS=$${VIRTC_GUEST_ASSETS:-$(VIRTCONTAINERS_CACHE)/guest/current} \
		cargo run --quiet --release -p xtask -- bench --virtc $(DIST)/virtc $(BENCH_FLAGS)
	@VIRTC_GUEST_ASSETS=$${VIRTC_GUEST_ASSETS:-$(VIRTCONTAINERS_CACHE)/guest/current} \
		cargo run --quiet --release -p xtask -- commands --virtc $(DIST)/virtc
	@VIRTC_GUEST_ASSETS=$${VIRTC_GUEST_ASSETS:-$(VIRTCONTAINERS_CACHE)/guest/current} \
		cargo run --quiet --release -p xtask -- containerd --virtc $(DIST)/virtc
	@VIRTC_GUEST_ASSETS=$${VIRTC_GUEST_ASSETS:-$(VIRTCONTAINERS_CACHE)/guest/current} \
		cargo run --quiet --release -p xtask -- network --virtc $(DIST)/virtc $(NETWORK_FLAGS)
	@OWN_KERNEL=no GUEST_DIR=$(DISTRIBUTION_GUEST) scripts/guest.sh || \
		echo "warning: boots are not measured beside the distribution's kernel" >&2
	@VIRTC_GUEST_ASSETS=$${VIRTC_GUEST_ASSETS:-$(VIRTCONTAINERS_CACHE)/guest/current} \
		cargo run --quiet --release -p xtask -- speed --gate --virtc $(DIST)/virtc \
		$$(test ! -e $(DISTRIBUTION_GUEST)/current || \
		echo --distribution-guest $(DISTRIBUTION_GUEST)/current) $(SPEED_FLAGS)

# CONTEST=DIR names the programs of youki's contest.
conformance: dist guest
	@VIRTC=$(DIST)/virtc VIRTC_GUEST_ASSETS=$${VIRTC_GUEST_ASSETS:-$(VIRTCONTAINERS_CACHE)/guest/current} \
		sh scripts/conformance.sh

# Programs and guest.
install: build dist guest
	@install -d $(DESTDIR)$(PREFIX)/bin
	@install -m 755 $(DIST)/virtc $(DIST)/containerd-shim-virtc-v2 $(DESTDIR)$(PREFIX)/bin
	@scripts/install-guest.sh $(BUILT)/guest-image $(DESTDIR)$(PREFIX)/share/virtcontainers/guest

# What was built from this tree. What was fetched stays in VIRTCONTAINERS_CACHE.
clean:
	@cargo clean --quiet
