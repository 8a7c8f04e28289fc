# dm-remap: keeps a disk with bad sectors in service.
#
# `make test` is everything that CI runs; it installs what it needs itself.
# `make help` lists the targets.

SHELL = /bin/bash -o pipefail
PREFIX ?= /usr
KREL ?= $(shell uname -r)
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dm-remap
SUDO = $(if $(filter 0,$(shell id -u)),,sudo)
PACKAGES = gcc libc6-dev make xz-utils cpio kmod dmsetup busybox-static qemu-system-x86 sparse \
	linux-image-amd64 linux-headers-amd64 linux-source-6.12 nbdkit nbdkit-plugin-dev qemu-utils

# The stock kernels that guests boot: the newest 6.1 and 6.12 that are installed here.
KERNELS = $(foreach v,6.1. 6.12.,$(lastword $(sort $(notdir $(wildcard /lib/modules/$(v)*-amd64)))))

.PHONY: help deps build kmod install lint quick-test test-vm test clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

deps: ## install the Debian packages that are missing
	@dpkg -s $(PACKAGES) >/dev/null 2>&1 && ls -d /lib/modules/6.12.*/build >/dev/null 2>&1 || { \
		$(SUDO) apt-get -q update && \
		image=$$(apt-cache search '^linux-image-6\.12.*deb12-amd64$$' | cut -d' ' -f1 | sort -V | tail -1) && \
		[ -n "$$image" ] && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
			$(PACKAGES) $$image $${image/image/headers}; \
	}

build: ## the daemon and the guest's programs
	cargo build --release

kmod: ## KREL=<release>: build kmod/dm_remap_shim.ko for that kernel
	mkdir -p target/kmod/$(KREL)/protocol
	rm -rf target/kmod/$(KREL)/protocol/include
	cp -r protocol/include target/kmod/$(KREL)/protocol/
	cp -r --preserve=timestamps kmod target/kmod/$(KREL)/
	$(MAKE) -C /lib/modules/$(KREL)/build M=$(CURDIR)/target/kmod/$(KREL)/kmod $(KFLAGS) modules
	cp target/kmod/$(KREL)/kmod/dm_remap_shim.ko kmod/

install: ## the module of KREL; DESTDIR is honoured
	install -D -m 644 kmod/dm_remap_shim.ko \
		$(DESTDIR)/lib/modules/$(KREL)/updates/dm_remap_shim.ko
	$(if $(DESTDIR),,depmod $(KREL))

$(CACHE)/checkpatch.pl:
	mkdir -p $(CACHE)
	tar -C $(CACHE) --strip-components=2 -xf /usr/src/linux-source-6.12.tar.xz --wildcards \
		'*/scripts/checkpatch.pl' '*/scripts/spelling.txt' '*/scripts/const_structs.checkpatch'

lint: $(CACHE)/checkpatch.pl ## formatting, clippy, checkpatch
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	perl $(CACHE)/checkpatch.pl --no-tree --terse --max-line-length=100 \
		--ignore LINUX_VERSION_CODE,CONSTANT_COMPARISON -f kmod/*.c kmod/*.h

quick-test: ## what needs no guest
	cargo build --examples -p dmremap-disks
	cargo test

test-vm: build ## every case in a guest of each kernel
	@set -e; for krel in $(KERNELS); do \
		$(MAKE) --no-print-directory kmod KREL=$$krel >target/kmod-$$krel.log 2>&1 || \
			{ cat target/kmod-$$krel.log; exit 1; }; \
		rm -rf target/stage/$$krel; \
		$(MAKE) --no-print-directory install KREL=$$krel DESTDIR=$(CURDIR)/target/stage/$$krel; \
		tests/vm/initramfs.sh $$krel target/stage/$$krel target/release/guest target/$$krel.cpio.gz; \
		target/release/vm $$krel target/$$krel.cpio.gz target/vm-logs $$(target/release/guest list); \
	done
	@[ "$(words $(KERNELS))" = 2 ] || { echo "want a 6.1 and a 6.12 kernel, found: $(KERNELS)"; exit 1; }

test: ## all of it
	@for step in deps lint quick-test test-vm; do \
		begun=$$SECONDS; $(MAKE) --no-print-directory $$step || exit 1; \
		echo "$$step: $$((SECONDS - begun)) s"; \
	done

clean: ## remove what was built
	cargo clean
	rm -f kmod/*.ko
