#!/bin/sh
# SPDX-License-Identifier: MIT
# setup.sh LOG: makes sure that the Debian packages which building, running and testing need are installed, and writes
# their versions to LOG. Says what it installs, asks for nothing, and is quick when there is nothing to do.
set -eu

# mmdebstrap (as a user with fakeroot, and fakechroot where there are no user namespaces) and e2fsprogs make a guest's disk.
packages='
acpica-tools bochs bochs-term busybox-static clang cpio dpkg-dev e2fsprogs fakechroot fakeroot fuse3 gcc gdb gnu-efi libc6-dev
libclang-rt-14-dev libcmocka-dev libfuse3-dev libiscsi-dev libunicorn-dev libzycore-dev lld make mmdebstrap mtools ovmf python3
python3-pytest qemu-system-x86 qemu-utils seabios tgt vgabios
'
log=$1

is_installed() {
    dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

missing=
for package in $packages; do
    is_installed "$package" || missing="$missing $package"
done

if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || {
        echo "setup: this machine has no apt-get: install these packages by hand (their names are Debian 12's):$missing" >&2
        exit 1
    }
    root=env
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || {
            echo "setup: not root, and no sudo: run as root: apt-get install$missing" >&2
            exit 1
        }
        root='sudo env'
    fi
    echo "setup: installing Debian packages:$missing"
    apt='apt-get -qq -o Dpkg::Use-Pty=0 -o Acquire::Retries=3'
    # The lists may be missing or stale: fetch them when the first try fails.
    # shellcheck disable=SC2086
    $root DEBIAN_FRONTEND=noninteractive $apt install -y --no-install-recommends $missing >/dev/null 2>&1 || {
        $root $apt update
        $root DEBIAN_FRONTEND=noninteractive $apt install -y --no-install-recommends $missing
    } || {
        echo "setup: apt-get could not install:$missing. Its messages are above; check the network and the APT sources." >&2
        exit 1
    }
fi

mkdir -p "$(dirname "$log")"
# shellcheck disable=SC2086
dpkg-query -W -f '${Package} ${Version} ${Architecture}\n' $packages | sort >"$log"
