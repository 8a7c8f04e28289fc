#!/bin/bash
# initramfs.sh KERNEL_RELEASE STAGE GUEST OUTPUT: a guest's root: busybox, dmsetup, the staged
# installation and the kernel modules that the cases use, with all that they depend on.
set -euo pipefail
krel=$1 stage=$2 guest=$3 output=$4
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,sbin,lib,lib64,usr/sbin,etc,proc,sys,dev,tmp,run}
cp -r "$stage"/. "$root"/
cp /bin/busybox "$root"/bin/
for applet in sh modprobe rmmod mount cat; do ln -s /bin/busybox "$root/bin/$applet"; done
cp "$guest" "$root"/init
cp "$(command -v dmsetup)" "$root"/bin/
ldd "$root"/init "$root"/bin/dmsetup | grep -o '/[^ ]*' | grep -v ':$' | sort -u |
	while read -r lib; do mkdir -p "$root$(dirname "$lib")"; cp -L "$lib" "$root$lib"; done
for module in dm-mod brd; do
	modprobe --show-depends -S "$krel" "$module" | awk '$1 == "insmod" { print $2 }'
done | sort -u | while read -r file; do
	mkdir -p "$root$(dirname "$file")"
	case $file in
	*.xz) xz -dc "$file" > "$root${file%.xz}" ;;
	*) cp "$file" "$root$file" ;;
	esac
done
cp "/lib/modules/$krel"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$krel/"
depmod -b "$root" "$krel"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) > "$output"
