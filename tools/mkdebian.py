#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Makes a disk with a Debian of its own out of Debian's packages, for a guest.

    mkdebian.py DIRECTORY PACKAGES

Puts into DIRECTORY
    debian.img        the disk: one ext4 file system, without a partition table; sparse, SIZE_MIB long
    debian-initrd     loads the virtio modules of the demo's kernel (demo-kernel in tools/sources.lock), mounts root=
    debian.versions   name, version and architecture of every package in the disk, and of the kernel

PACKAGES is where fetched packages are kept: a second run fetches only what the archive has newer. The disk is what
mmdebstrap makes of the archives that this machine's APT knows (Debian 12, their signatures checked), and OVERLAY: systemd
with few units, a root shell on the console without a password, DHCP on eth0, fio and git, and a repository to clone at
/srv/git/history.git. Nothing is mounted and no loop device used; as a user it takes fakeroot and what mmdebstrap finds
(user namespaces, else fakechroot). Equal packages give equal files; the file system's layout may differ.
"""
import io
import os
import random
import shlex
import subprocess
import sys
import tarfile
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import fetch  # noqa: E402
import mkdemo  # noqa: E402

SIZE_MIB = 640
INCLUDE = ["systemd-sysv", "ifupdown", "udhcpc", "iproute2", "iputils-ping", "e2fsprogs", "fio", "git", "less", "procps"]
LEFT_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*"]
EPOCH = "1577836800"  # no file is younger
UUID = "7a5c1e00-0000-4000-8000-000000000001"

# The initramfs: modules, the disk, and over to the init of the disk.
INIT = mkdemo.INIT_BEGIN + """root=/dev/vda
for word in $(cat /proc/cmdline); do
    case $word in root=*) root=${word#root=} ;; esac
done
until [ -b $root ]; do
    sleep 0.1
done
if mount -t ext4 $root /mnt; then
    read up idle </proc/uptime
    echo "Tasuki demo: the disk is there after $up s"
    mount -o move /dev /mnt/dev
    umount /sys
    umount /proc
    exec busybox switch_root /mnt /sbin/init
fi
echo "initrd: $root cannot be mounted as ext4; this is a shell"
exec sh </dev/console >/dev/console 2>&1
"""

# Files over those of the packages: {path: content, or what a symbolic link points to}. There is no udev (the initramfs has
# loaded what is needed, devtmpfs has the devices), so what waits for its events is masked, and the shell is on /dev/console.
LINK = object()
MASKED = ["systemd-getty-generator", "systemd-gpt-auto-generator", "systemd-hibernate-resume-generator",
          "systemd-rc-local-generator", "systemd-run-generator", "systemd-system-update-generator", "systemd-sysv-generator",
          "systemd-veritysetup-generator", "systemd-integritysetup-generator", "systemd-cryptsetup-generator",
          "systemd-bless-boot-generator"]
MASKED_UNITS = ["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
                "e2scrub_reap.service", "fstrim.timer", "systemd-tmpfiles-clean.timer", "systemd-pstore.service",
                "systemd-remount-fs.service", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
                "sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "dev-mqueue.mount",
                "proc-sys-fs-binfmt_misc.automount", "kmod-static-nodes.service", "modprobe@.service",
                "systemd-random-seed.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
                "systemd-journal-flush.service", "systemd-sysusers.service", "systemd-tmpfiles-setup-dev.service",
                "getty@.service", "getty-static.service", "ifupdown-pre.service", "systemd-modules-load.service",
                "serial-getty@.service", "ldconfig.service", "systemd-ask-password-wall.path",
                "systemd-ask-password-console.path", "systemd-logind.service"]
OVERLAY = {
    "etc/hostname": "demo\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 demo\n::1 localhost\n",
    "etc/fstab": "",
    "etc/resolv.conf": "",
    "etc/motd": "",
    "etc/network/interfaces": "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n    udhcpc_opts -t 10 -A 5\n",
    "etc/issue": "Debian GNU/Linux 12 on Tasuki\n",
    "etc/systemd/system/console-getty.service.d/login.conf":
        "[Unit]\nAfter=basic.target\n[Service]\nExecStart=\n"
        "ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud - 115200,38400,9600 vt100\n",
    "etc/systemd/system/multi-user.target.wants/console-getty.service": (LINK, "/lib/systemd/system/console-getty.service"),
    "etc/systemd/system/default.target": (LINK, "/lib/systemd/system/multi-user.target"),
    "etc/systemd/journald.conf.d/demo.conf": "[Journal]\nStorage=volatile\n",
    "etc/systemd/system.conf.d/demo.conf": "[Manager]\nDefaultTimeoutStartSec=600s\nDefaultTimeoutStopSec=60s\n",
    **{f"etc/systemd/system-generators/{name}": (LINK, "/dev/null") for name in MASKED},
    **{f"etc/systemd/system/{name}": (LINK, "/dev/null") for name in MASKED_UNITS},
}
HISTORY = "srv/git/history.git"
# Inside the new system, after all packages.
FINISH = f"""set -e
passwd -d root >/dev/null
git init -q --bare -b main /{HISTORY}
git -C /{HISTORY} fast-import --quiet </srv/git/history
git -C /{HISTORY} repack -adq
git -C /{HISTORY} fsck --full
git config --system --add safe.directory '*'
rm -f /srv/git/history /etc/ssh/ssh_host_*
"""


def history(commits=200, files=120):
    """A stream for git fast-import: so many commits over so many files of text, the same each time."""
    chance = random.Random(1)
    words = ["".join(chance.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(chance.randint(2, 9))) for _ in range(3000)]
    texts = {}
    out = io.BytesIO()
    for number in range(commits):
        changed = range(files) if number == 0 else chance.sample(range(files), 5)
        out.write(b"commit refs/heads/main\ncommitter Demo <demo@example.org> %d +0000\ndata 6\nchange\n" %
                  (int(EPOCH) + 60 * number))
        for name in changed:
            lines = texts.setdefault(name, [])
            for _ in range(chance.randint(200, 400) if number == 0 else 10):
                line = " ".join(chance.choice(words) for _ in range(10))
                lines.insert(chance.randint(0, len(lines)), line)
            content = "\n".join(lines).encode() + b"\n"
            out.write(b"M 100644 inline part%d/file%03d.txt\ndata %d\n" % (name % 10, name, len(content)) + content + b"\n")
    return out.getvalue()


def write_overlay(path):
    """OVERLAY and the history as a tar archive."""
    with tarfile.open(path, "w") as archive:
        for name, content in sorted({**OVERLAY, "srv/git/history": history()}.items()):
            member = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                member.type, member.linkname = tarfile.SYMTYPE, content[1]
                archive.addfile(member)
            else:
                content = content.encode() if isinstance(content, str) else content
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def run(command, what, **more):
    """Runs a command that is silent where it succeeds."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              **more)
    except FileNotFoundError:
        raise fetch.FetchError(f"{command[0]} is not installed: `make setup` installs it") from None
    if done.returncode:
        raise fetch.FetchError(f"{what} failed ({command[0]}):\n{done.stdout[-3000:]}")
    return done.stdout


def can_mount():
    """As root: containers often must not."""
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def make_archive(path, overlay, work, cache):
    """The new system as a tar archive."""
    os.makedirs(os.path.join(cache, "partial"), exist_ok=True)
    sources = os.path.join(work, "sources.list")
    fetch.write_sources(sources, ["deb"])
    quoted = shlex.quote(cache)
    command = ["mmdebstrap", "--variant=apt", "--quiet", f"--include={','.join(INCLUDE)}",
               '--setup-hook=mkdir -p "$1"/var/cache/apt/archives',
               f"--setup-hook=sync-in {quoted} /var/cache/apt/archives", "--skip=download/empty", "--skip=essential/unlink",
               f"--customize-hook=sync-out /var/cache/apt/archives {quoted}",
               f"--customize-hook=tar-in {shlex.quote(overlay)} /", f'--customize-hook=chroot "$1" sh -c {shlex.quote(FINISH)}',
               *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT), "--dpkgopt=path-include=/usr/share/doc/*/copyright",
               '--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Retries "3"', "--format=tar"]
    if os.getuid() == 0:
        command += ["--mode=root"] + ([] if can_mount() else ["--skip=check/canmount"])
    run([*command, fetch.RELEASE, path, sources], "making a Debian system of packages",
        env={**os.environ, "TMPDIR": work, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "SOURCE_DATE_EPOCH": EPOCH})


def make_disk(path, archive, work):
    """An ext4 file system with what is in the archive, owners and devices included."""
    tree = os.path.join(work, "tree")
    with open(path, "wb") as file:
        file.truncate(SIZE_MIB << 20)
    script = (f"mkdir {shlex.quote(tree)} && tar -xf {shlex.quote(archive)} -C {shlex.quote(tree)} --numeric-owner && "
              f"mkfs.ext4 -q -F -b 4096 -m 0 -J size=16 -L demo -U {UUID} "
              f"-E lazy_itable_init=0,lazy_journal_init=0,assume_storage_prezeroed=1,root_owner=0:0,hash_seed={UUID} "
              f"-d {shlex.quote(tree)} {shlex.quote(path)}; status=$?; rm -rf {shlex.quote(tree)}; exit $status")
    run([*([] if os.getuid() == 0 else ["fakeroot"]), "sh", "-c", script], "making a file system of it",
        env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "E2FSPROGS_FAKE_TIME": EPOCH})


def versions(archive):
    """What dpkg knows there, a line for each package."""
    with tarfile.open(archive) as tar:
        status = tar.extractfile("./var/lib/dpkg/status").read().decode()
    lines = []
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            lines.append(f"{fields['Package']} {fields['Version']} {fields['Architecture']}")
    return sorted(lines)


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__)
    directory, packages = map(os.path.abspath, arguments)
    image, initrd, listing = (os.path.join(directory, name) for name in ("debian.img", "debian-initrd", "debian.versions"))
    try:
        os.makedirs(directory, exist_ok=True)
        kernel, version, path = mkdemo.fetch_kernel(packages)
        mkdemo.write_initrd(initrd, path, INIT, modules=[*mkdemo.MODULES, "autofs4"])  # systemd asks for the last
        # Beside the result, since /tmp may be memory; readable to the user that a user namespace has for root.
        with tempfile.TemporaryDirectory(prefix="debian-", dir=directory) as work:
            os.chmod(work, 0o755)
            archive, overlay = os.path.join(work, "system.tar"), os.path.join(work, "overlay.tar")
            write_overlay(overlay)
            make_archive(archive, overlay, work, os.path.join(packages, "debian"))
            make_disk(image + ".part", archive, work)
            with open(listing, "w", encoding="utf-8") as file:
                file.write("\n".join([*versions(archive), f"{kernel} {version} amd64"]) + "\n")
            os.replace(image + ".part", image)
    except (fetch.FetchError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"mkdebian.py: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
