#!/bin/sh
# SPDX-License-Identifier: MIT
# setup.sh LOG: makes sure that the Debian packages which building, running and testing need are installed, and writes
# their versions to LOG. Says what it installs, asks for nothing, and is quick when there is nothing to do.
set -eu

# mmdebstrap (as a user with fakeroot, and fakechroot where there are no user namespaces) and e2fsprogs make a guest's disk.
packages='
acpica-tools bochs bochs-term busybox-static clang cpio dpkg-dev e2fsprogs fakechroot fakeroot fuse3 gcc gdb gnu-efi istgt
libc6-dev libclang-rt-14-dev libcmocka-dev libfuse3-dev libiscsi-dev libunicorn-dev libzycore-dev lld make mmdebstrap mtools ovmf
python3 python3-pytest qemu-system-x86 qemu-utils seabios tgt vgabios
'
# Those of them that bring a service along. The tests start these programs themselves; nothing may go on listening here.
services='istgt tgt'
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
    # While one of them is installed, Debian's invoke-rc.d is told to start nothing (101: action forbidden by policy),
    # unless this machine has a policy of its own; a service that was not here before is not started at boot either.
    new_services=
    for service in $services; do
        case " $missing " in *" $service "*) new_services="$new_services $service" ;; esac
    done
    policy=/usr/sbin/policy-rc.d
    if [ -n "$new_services" ] && [ ! -e $policy ]; then
        trap '$root rm -f $policy' EXIT
        trap 'exit 1' HUP INT TERM
        # shellcheck disable=SC2016
        $root sh -c 'printf "#!/bin/sh\nexit 101\n" >"$1" && chmod 755 "$1"' sh $policy
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
    for service in $new_services; do
        $root update-rc.d "$service" disable >/dev/null 2>&1 || true
    done
fi

mkdir -p "$(dirname "$log")"
# shellcheck disable=SC2086
dpkg-query -W -f '${Package} ${Version} ${Architecture}\n' $packages | sort >"$log"
