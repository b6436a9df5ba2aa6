# SPDX-License-Identifier: MIT
"""A Debian of its own as a guest, on a disk made by tools/mkdebian.py, with a second disk to work on: fio that verifies what it
wrote, and git that clones and checks, round after round until it is told to stop."""
import os
import re
import subprocess

from node import BUILD, TOP, VMLINUZ, Linux

IMAGE = os.path.join(BUILD, "debian.img")
FILES = {"tasuki/images/vmlinuz": VMLINUZ, "tasuki/images/debian-initrd": os.path.join(BUILD, "debian-initrd")}
GUEST = ("\n[vm demo]\nmemory = 320M\nkernel = \\tasuki\\images\\vmlinuz\ninitrd = \\tasuki\\images\\debian-initrd\n"
         "cmdline = console=ttyS0 root=/dev/vda quiet\ndisk = {root}\ndisk = {work}\nstart = auto\n")

# How much of it: Bochs is slow.
FIO_SIZE = {"amd": "2M", "intel": "512k"}
WORK = """cd /run
fio_round() {{ fio --name=load --directory=/mnt --size={size} --bs=4k --rw=randwrite --verify=crc32c --verify_fatal=1 \
--fsync=16 --direct=1 --randrepeat=0 --ioengine=psync --output=/run/fio.out; }}
git_round() {{ rm -rf /mnt/clone; git clone -q --no-local /srv/git/history.git /mnt/clone && sync &&
echo 1 > /proc/sys/vm/drop_caches && git -C /mnt/clone fsck --full --strict && [ -z "$(git -C /mnt/clone status --short)" ]; }}
again() {{ n=0; while [ ! -e stop ]; do $1_round > $1.log 2>&1 || {{ cp $1.log $1.bad; break; }}; n=$((n + 1)); echo $n > $1.n; done
touch $1.end; }}
again fio & again git &
wait
"""


def build():
    """The disk is no part of what every system test needs, and takes a minute the first time."""
    if not os.environ.get("TASUKI_PREBUILT"):
        subprocess.run(["make", "--no-print-directory", f"BUILD={BUILD}", IMAGE], cwd=TOP, check=True, timeout=900)


class Debian(Linux):
    """The guest's shell; nothing is written before start()."""

    def __init__(self, node):
        super().__init__(node, "demo")
        node.attach("demo")
        node.expect(r"root@demo:~# ", timeout=180)
        self.run("stty cols 300; bind 'set enable-bracketed-paste off'")

    def start(self):
        assert self.run("mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt && echo ready", timeout=120).split()[-1] == "ready"
        script = WORK.format(size=FIO_SIZE[self.node.cpu])
        for line in ["cat > /run/work << 'END'", *script.splitlines(), "END"]:
            self.node.machine.send(line + "\r")
            self.node.expect(r"[#>] ", timeout=30)
        self.run("(setsid sh /run/work > /dev/null 2>&1 &)")

    def wait_answered(self, more, timeout=120):
        """Until the disk to work on has answered so many more requests to write, or something is wrong. The guest counts: a line of the
        node's log may come between what it prints."""
        self.run(f"set -- $(cat /sys/block/vdb/stat); goal=$(($5 + {more})); until set -- $(cat /sys/block/vdb/stat) && "
                 "[ $5 -ge $goal ] || [ -e /run/fio.bad -o -e /run/git.bad ]; do sleep 0.3; done", timeout=timeout)
        self.check()

    def check(self):
        bad = self.run("cat /run/fio.bad /run/fio.out /run/git.bad 2>/dev/null") if self.bad() else ""
        assert not self.bad(), bad

    def bad(self):
        return re.search(r"^/run/\w+\.bad", self.run("ls /run/*.bad 2>/dev/null"), re.M)

    def stop(self):
        """The rounds of fio and of git that were done."""
        self.run("touch /run/stop; until [ -e /run/fio.end -a -e /run/git.end ]; do sleep 0.2; done", timeout=180)
        self.check()
        return tuple(int(word) for word in self.run("cat /run/fio.n /run/git.n").split())

    def believes(self, *disks):
        """The md5 of each of these, read anew from the disk when nothing of it is written any more."""
        said = self.run("umount /mnt && mount -o remount,ro / && sync && echo 1 > /proc/sys/vm/drop_caches && echo quiet")
        assert said.split()[-1] == "quiet", said
        return [re.search(rf"^([0-9a-f]{{32}})  {disk}", self.run(f"md5sum {disk}", timeout=600), re.M).group(1) for disk in disks]
