# dm-remap: keeps a disk with bad sectors in service.
#
# `make test` is everything that CI runs; it installs what it needs itself.
# `make help` lists the targets.

SHELL = /bin/bash -o pipefail
PREFIX ?= /usr
KREL ?= $(shell uname -r)
KERNEL ?= 6.12
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dm-remap
SUDO = $(if $(filter 0,$(shell id -u)),,sudo)
PACKAGES = binutils gcc libc6-dev make xz-utils zstd cpio kmod dmsetup e2fsprogs fio busybox-static qemu-system-x86 \
	sparse libdevmapper-dev libclang-dev linux-image-amd64 linux-headers-amd64 linux-source-6.12 nbdkit nbdkit-plugin-dev \
	xfsprogs btrfs-progs mdadm lvm2

# The stock kernels that guests boot: the newest 6.1 and 6.12 that are installed here with headers.
newest = $(shell ls -d /lib/modules/$(1).*-amd64/build 2>/dev/null | cut -d/ -f4 | grep -v -e -cloud- -e -rt- | \
	sort -V | tail -n 1)
KERNELS = $(call newest,6.1) $(call newest,6.12)

MODULE = dm_remap_shim.ko
DAEMON = target/release/dmremap-policyd
# Each kernel's objects are in a directory of their own, so that they do not mix.
KBUILD_DIR = target/kmod/$(KREL)
# What modules for it are built with.
KDIR = /lib/modules/$(KREL)/build

.PHONY: help deps build kmod install lint checkpatch sparse quick-test sim model fuzz mutants stage test-vm soak demo \
	vm-shell test debug-kernel test-debug clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

# qemu-utils must be of the emulator's version, or apt refuses both; a machine may have one from elsewhere.
deps: ## install the Debian packages that are missing
	@dpkg -s $(PACKAGES) qemu-utils >/dev/null 2>&1 && [ -n "$(call newest,6.12)" ] || { \
		$(SUDO) apt-get -q update && \
		image=$$(apt-cache search '^linux-image-6\.12.*deb12-amd64$$' | cut -d' ' -f1 | sort -V | tail -1) && \
		[ -n "$$image" ] && \
		qemu=$$(apt-cache policy qemu-system-x86 | sed -n 's/ *Candidate: //p') && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
			--allow-downgrades $(PACKAGES) qemu-utils=$$qemu $$image $${image/image/headers}; \
	}

# What the guests, the simulation and the host need of the workspace; built together, so that nothing is built twice.
TOOLS = --workspace --exclude dmremap-model --exclude dmremap-fuzz --exclude dmremap-kmod-host

build: ## the daemon and the tools
	cargo build --release $(TOOLS)

kmod: ## KREL=<release>: build kmod/dm_remap_shim.ko for that kernel
	@mkdir -p $(KBUILD_DIR)/protocol
	@cp -r -u --preserve=timestamps protocol/include $(KBUILD_DIR)/protocol/
	@rm -f kmod/$(MODULE)
	@cp -r -u --preserve=timestamps kmod $(KBUILD_DIR)/
	$(MAKE) -C $(KDIR) M=$(CURDIR)/$(KBUILD_DIR)/kmod $(KFLAGS) modules
	@cp $(KBUILD_DIR)/kmod/$(MODULE) kmod/

install: ## KREL=<release>: module, daemon, configuration (never overwritten) and unit; DESTDIR, PREFIX
	install -D -m 644 $(KBUILD_DIR)/kmod/$(MODULE) $(DESTDIR)/lib/modules/$(KREL)/updates/$(MODULE)
	$(if $(DESTDIR),,depmod $(KREL))
	install -D -m 755 $(DAEMON) $(DESTDIR)$(PREFIX)/sbin/dmremap-policyd
	[ -e $(DESTDIR)/etc/dmremap.toml ] || install -D -m 644 config/dmremap.toml $(DESTDIR)/etc/dmremap.toml
	sed 's,=/usr/sbin/dm,=$(PREFIX)/sbin/dm,' config/dmremap-policyd.service | \
		install -D -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/lib/systemd/system/dmremap-policyd.service

# The kernel's own checker, from its source package.
$(CACHE)/checkpatch.pl:
	mkdir -p $(CACHE)
	tar -C $(CACHE) --strip-components=2 -xf /usr/src/linux-source-6.12.tar.xz --wildcards \
		'*/scripts/checkpatch.pl' '*/scripts/spelling.txt' '*/scripts/const_structs.checkpatch'

# The differences between kernels are in one file.
CHECKPATCH = perl $(CACHE)/checkpatch.pl --no-tree --terse --max-line-length=100
checkpatch: $(CACHE)/checkpatch.pl
	$(CHECKPATCH) -f $(filter-out kmod/compat.h,$(wildcard kmod/*.[ch])) protocol/include/uapi/*.h
	$(CHECKPATCH) --ignore LINUX_VERSION_CODE,CONSTANT_COMPARISON -f kmod/compat.h

# sparse's findings are warnings, which the build does not fail for.
sparse:
	@mkdir -p target
	@for krel in $(KERNELS); do \
		$(MAKE) --no-print-directory kmod KREL=$$krel KBUILD_DIR=target/sparse KFLAGS="-B C=2" \
			>target/sparse.log 2>&1 || { cat target/sparse.log; exit 1; }; \
		! grep -E 'sparse/.*(warning|error):' target/sparse.log || exit 1; \
	done

lint: checkpatch sparse ## formatting, clippy, checkpatch, sparse
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

quick-test: ## what needs no guest
	cargo test

# So many seeds from BASE on, which is a fresh one unless it is given; SEED=n plays one with a trace.
SEEDS ?= 20000
sim: ## the daemon's own code over simulated disks, kernel and clock; SEEDS=n, SEED=n, BASE=n
	cargo build --release $(TOOLS) --bin sim
	target/release/sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) $(addprefix --base ,$(BASE)))

# NAME: one scenario; BUG: with a deliberate bug, and the way to what that breaks.
model: ## every order of the conversation's steps, explored to the end; NAME=scenario, BUG=name
	cargo run --release --bin model -- $(NAME) $(BUG)

# libFuzzer with coverage and without a sanitizer, which the stable compiler can do; needs a C++ compiler once. What it finds
# is written to target/fuzz/TARGET, a failing input to target/fuzz too: shrink it, and add it to tests/fuzz/corpus.
MINUTES ?= 10
fuzz: ## TARGET=wire, metadata, config or control; MINUTES=n
	@command -v c++ >/dev/null || $(SUDO) apt-get -q install -y --no-install-recommends g++
	cd tests/fuzz/libfuzzer && CARGO_TARGET_DIR=$(CURDIR)/target/fuzz RUSTFLAGS="$(COVERAGE)" \
		cargo build --release --target x86_64-unknown-linux-gnu --bin $(TARGET)
	@mkdir -p target/fuzz/$(TARGET)
	target/fuzz/x86_64-unknown-linux-gnu/release/$(TARGET) -max_total_time=$$(($(MINUTES) * 60)) -max_len=$(or $(MAX_LEN),8192) \
		-timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix=target/fuzz/ \
		target/fuzz/$(TARGET) tests/fuzz/corpus/$(TARGET)
COVERAGE = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares

mutants: stage $(FSX) ## deliberate bugs, one by one: what catches each, and how soon; MUTANTS, BASE, SEEDS
	tests/mutants/run

# A tool of the guests that Debian has not.
FSX = target/tools/bin/fsx
$(FSX):
	cargo install -q fsx --version 0.3.2 --locked --root target/tools --target-dir target/tools/build
	rm -r target/tools/build

# The disks' plugin as the tests build it, with the same features.
stage: build ## install for each tested kernel into target/stage, where guests take it from
	cargo build --examples
	@set -e; for krel in $(KERNELS); do \
		$(MAKE) --no-print-directory kmod KREL=$$krel >target/kmod-$$krel.log 2>&1 || \
			{ cat target/kmod-$$krel.log; exit 1; }; \
		rm -rf target/stage/$$krel; \
		$(MAKE) --no-print-directory -s install KREL=$$krel DESTDIR=$(CURDIR)/target/stage/$$krel PREFIX=/usr; \
	done

test-vm: stage $(FSX) ## every case in a guest of each kernel, or CASE=name
	target/release/vm run $(addprefix --case ,$(CASE))

# A failed one is repeated, in the order of what was done, with the SEED that it has printed.
soak: stage $(FSX) ## MINUTES=n, KERNEL=6.1 or 6.12: faults, kills, reloads, suspends and power cuts at random; SEED=n
	target/release/vm soak --kernel $(KERNEL) --minutes $(MINUTES) $(addprefix --seed ,$(SEED))

demo: deps stage ## the main job, for a person to watch: about half a minute after building
	target/release/vm run --kernel $(KERNEL) --case demo.the-main-job

vm-shell: stage $(FSX) ## a shell in the same guest; KERNEL=6.1 or 6.12
	target/release/vm shell --kernel $(KERNEL)

test: ## all of it; says where the time went
	@for step in deps lint quick-test sim test-vm; do \
		begun=$$SECONDS; $(MAKE) --no-print-directory $$step || exit 1; \
		times="$$times$$step $$((SECONDS - begun)) s, "; \
	done; echo "time: $${times%, }"

# Packages that only the debug kernel needs.
DEBUG_PACKAGES = flex bison bc libelf-dev
DEBUG_KREL = $(shell cat target/debug-kernel/build/include/config/kernel.release)

debug-kernel: deps ## build 6.12 with every checker, into $(CACHE)/debug-kernel; half an hour, once
	@dpkg -s $(DEBUG_PACKAGES) >/dev/null 2>&1 || { \
		$(SUDO) apt-get -q update && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $(DEBUG_PACKAGES); \
	}
	@tests/debug/build-kernel $(CACHE)/debug-kernel target/debug-kernel

# As `stage` does for stock kernels; and the modules that are for this kernel only.
stage-debug: debug-kernel build
	cargo build --examples
	@$(MAKE) --no-print-directory kmod KREL=$(DEBUG_KREL) KDIR=$(CURDIR)/target/debug-kernel/build \
		>target/kmod-debug.log 2>&1 || { cat target/kmod-debug.log; exit 1; }
	@cp -r -u --preserve=timestamps tests/debug target/kmod/$(DEBUG_KREL)/
	@$(MAKE) --no-print-directory -C target/debug-kernel/build M=$(CURDIR)/target/kmod/$(DEBUG_KREL)/debug modules \
		>target/kmod-debug.log 2>&1 || { cat target/kmod-debug.log; exit 1; }
	@rm -rf target/stage/$(DEBUG_KREL)
	@$(MAKE) --no-print-directory -s install KREL=$(DEBUG_KREL) DESTDIR=$(CURDIR)/target/stage/$(DEBUG_KREL) PREFIX=/usr
	@install -m 644 -t target/stage/$(DEBUG_KREL)/lib/modules/$(DEBUG_KREL)/updates target/kmod/$(DEBUG_KREL)/debug/*.ko

test-debug: stage-debug $(FSX) ## every case on the debug kernel, judged by its checkers too, or CASE=name; hours
	target/release/vm run --kernel debug $(addprefix --case ,$(CASE))

clean: ## remove what was built
	cargo clean
	rm -f kmod/*.ko
