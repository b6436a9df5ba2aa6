#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Makes a guest out of Debian's packages: a kernel as it is, and an initramfs around a static busybox.

    mkdemo.py DIRECTORY PACKAGES [--init FILE] [--add PATH=FILE ...]

Puts vmlinuz and initrd.img into DIRECTORY; PACKAGES is where fetched packages are kept. The kernel's package (demo-kernel in
tools/sources.lock) is taken apart, not installed. The initramfs has busybox (with its applets as links), the virtio modules
of that kernel and /init: the demo's own, or FILE. --add puts further files in. The same inputs give the same bytes.
As a module, for tests: fetch_kernel(), write_initrd().
"""
import os
import stat
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import fetch  # noqa: E402

BUSYBOX = "/bin/busybox"
APPLETS = """acpid arping ash awk base64 basename blockdev cat chmod chroot cksum clear cmp cp cut date dd df dirname dmesg du echo env
expr false find free grep gunzip gzip head hexdump hostname hwclock id ifconfig insmod ip kill ln ls lsmod lspci md5sum
mkdir mkfs.ext2 mknod mount mv nc nproc od ping printf ps pwd rm rmmod sed seq setsid sh sha256sum sleep sort
stat stty sync tail taskset tee test time timeout top touch tr true udhcpc umount uname uniq uptime usleep vi wc wget which xargs yes
zcat""".split()
# In the order in which they can be loaded is worked out from the modules themselves; these are the ones wanted.
MODULES = ["virtio_pci", "virtio_blk", "virtio_console", "virtio-rng", "virtio_net", "button", "evdev"]
# What each init here does first: the file systems of the kernel, and the modules that write_initrd() has put in.
INIT_MODULES = """mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
    insmod /modules/$module.ko 2>/dev/null
done
"""
INIT_BEGIN = "#!/bin/sh\nexport PATH=/bin\n" + INIT_MODULES
INIT = "#!/bin/sh\nexport PATH=/bin HOME=/root TERM=vt100 ENV=/root/.shrc\n" + INIT_MODULES + """read up idle </proc/uptime
echo "Tasuki demo guest: user space after $up s"
echo "Linux $(uname -r) on $(nproc) CPU(s). This is a shell; poweroff ends the guest."
hostname demo
[ -e /sys/class/net/eth0 ] && udhcpc -q -n -t 20 -i eth0 >/dev/null 2>&1 &
acpid -l /dev/null
while :; do
    setsid -c sh </dev/console >/dev/console 2>&1
done
"""
# What udhcpc runs for each change of a lease.
DHCP = """#!/bin/sh
export PATH=/bin
case $1 in
deconfig)
    ip address flush dev $interface
    ip link set $interface up ;;
bound | renew)
    ip address flush dev $interface
    ip address add $ip/${mask:-24} dev $interface
    [ -n "$router" ] && ip route replace default via ${router%% *}
    for server in $dns; do echo nameserver $server; done >/etc/resolv.conf ;;
esac
"""


def fetch_kernel(packages):
    """The path of the kernel's package; its name and version go to standard output's log."""
    package, version, paths = fetch.fetch("demo-kernel", packages)
    return package, version, paths[0]


def unpack(package, *patterns):
    """{name: bytes} of the regular files of a .deb that match the patterns."""
    import io
    import tarfile
    import fnmatch
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            name = member.name.lstrip("./")
            if member.isfile() and any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                found[name] = archive.extractfile(member).read()
    return found


def module_depends(data):
    """The modules that one needs, from the `depends=` of its .modinfo section."""
    at = data.find(b"\0depends=")
    if at < 0:
        return []
    value = data[at + 9:data.index(b"\0", at + 9)].decode()
    return [name for name in value.split(",") if name]


def plain(name):
    return name.replace("-", "_")


def load_order(modules, wanted):
    """The wanted modules and what they need, each after what it needs. Names that the kernel has built in are left out."""
    order = []

    def visit(name):
        name = plain(name)
        if name in order or name not in modules:
            return
        for other in module_depends(modules[name]):
            visit(other)
        order.append(name)

    for name in wanted:
        visit(name)
    return order


class Cpio:
    """A "newc" archive (Linux, Documentation/driver-api/early-userspace/buffer-format.rst) without times or owners."""

    def __init__(self):
        self.data = bytearray()
        self.count = 0

    def entry(self, name, mode, content=b"", device=(0, 0)):
        self.count += 1
        encoded = name.encode() + b"\0"
        fields = [self.count, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0]
        self.data += b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        self.pad()
        self.data += content
        self.pad()

    def pad(self):
        self.data += b"\0" * (-len(self.data) % 4)

    def finish(self):
        self.entry("TRAILER!!!", 0)
        self.data += b"\0" * (-len(self.data) % 512)
        return bytes(self.data)


def write_initrd(path, kernel_package, init=INIT, add=None, modules=tuple(MODULES)):
    """Writes an initramfs: busybox, modules of the kernel in `kernel_package` (a .deb), `init` as /init, and
    add = {path inside: bytes}, executable."""
    known = {plain(os.path.basename(name)[:-3]): data
             for name, data in unpack(kernel_package, "lib/modules/*.ko").items()}
    order = load_order(known, modules)
    archive = Cpio()
    for directory in ("bin", "dev", "modules", "mnt", "proc", "root", "sys", "tmp"):
        archive.entry(directory, stat.S_IFDIR | 0o755)
    archive.entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    with open(BUSYBOX, "rb") as busybox:
        archive.entry("bin/busybox", stat.S_IFREG | 0o755, busybox.read())
    for applet in APPLETS:
        archive.entry(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox")
    # /init is no init that could be asked, so these do it at once; the shell would take its own applets otherwise.
    aliases = "".join(f"alias {command}='busybox {command} -f'\n" for command in ("halt", "poweroff", "reboot"))
    archive.entry("root/.shrc", stat.S_IFREG | 0o644, aliases.encode())
    for name in order:
        archive.entry(f"modules/{name}.ko", stat.S_IFREG | 0o644, known[name])
    archive.entry("modules/order", stat.S_IFREG | 0o644, "".join(f"{name}\n" for name in order).encode())
    archive.entry("init", stat.S_IFREG | 0o755, init.encode())
    # What acpid runs when the power button is pressed (`vm stop`).
    for directory in ("etc", "etc/acpi", "etc/acpi/PWRF"):
        archive.entry(directory, stat.S_IFDIR | 0o755)
    archive.entry("etc/acpi/PWRF/00000080", stat.S_IFREG | 0o755, b"#!/bin/sh\nexec /bin/busybox poweroff -f\n")
    made = {"etc", "bin", "dev", "modules", "mnt", "proc", "root", "sys", "tmp"}
    for name, content in sorted({"etc/udhcpc/default.script": DHCP.encode(), **(add or {})}.items()):
        parts = name.strip("/").split("/")
        for i in range(1, len(parts)):
            parent = "/".join(parts[:i])
            if parent not in made:
                made.add(parent)
                archive.entry(parent, stat.S_IFDIR | 0o755)
        archive.entry("/".join(parts), stat.S_IFREG | 0o755, content)
    with open(path, "wb") as file:
        file.write(archive.finish())


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    directory, packages, rest = arguments[0], arguments[1], arguments[2:]
    init, add = INIT, {}
    while rest:
        option = rest.pop(0)
        if option not in ("--init", "--add") or not rest:
            sys.exit(__doc__)
        value = rest.pop(0)
        with open(value.partition("=")[2] if option == "--add" else value, "rb") as file:
            if option == "--add":
                add[value.partition("=")[0]] = file.read()
            else:
                init = file.read().decode()
    try:
        if not os.path.exists(BUSYBOX):
            raise fetch.FetchError(f"{BUSYBOX} is missing: `make setup` installs busybox-static")
        os.makedirs(directory, exist_ok=True)
        package, version, path = fetch_kernel(packages)
        kernel = unpack(path, "boot/vmlinuz-*")
        with open(os.path.join(directory, "vmlinuz"), "wb") as file:
            file.write(next(iter(kernel.values())))
        write_initrd(os.path.join(directory, "initrd.img"), path, init, add)
        with open(os.path.join(directory, "versions"), "w", encoding="utf-8") as file:
            file.write(f"{package} {version}\n")
    except (fetch.FetchError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"mkdemo.py: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
