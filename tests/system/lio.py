# SPDX-License-Identifier: MIT
"""A second real iSCSI target for the system tests: LIO, the one in Linux, in a small QEMU machine whose port 3260 is a port
of the loopback. Its kernel is that of the demo guest (tools/sources.lock), its user space a static busybox, its unit a virtio
disk whose file is on this machine.

    with LioTarget(size=64 << 20, chap=2) as target:
        target.configuration("san")
        target.kill(); target.start()                   # a power cut, and the machine comes back
        target.run("cat $unit/pr/res_holder")           # a command in the machine

A power cut takes what only the target's memory held: with cache=True the unit has a write cache in that memory, and what
was not flushed is lost; else what it has answered is on the disk. Persistent reservations that were taken with APTPL are kept on
a second small disk, and are in force again before the target takes its first connection: who had registered is given an ACL of
its own (LIO restores a registration only when its initiator's ACL is made, so one that is made at login would let others write
before).
"""
import fcntl
import os
import shlex
import subprocess
import sys
import uuid

from node import BUILD, TOP, VMLINUZ
from target import INITIATOR, NAME, OURS, THEIRS, Unit, free_port

sys.path.insert(0, os.path.join(TOP, "tools"))
import machine as machines  # noqa: E402
import mkdemo  # noqa: E402

MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "target_core_iblock", "target_core_file", "iscsi_target_mod"]
READY = "the target is ready"
# LIO gives up a connection that says nothing for so long (the least that it takes); else it may answer no PREEMPT AND ABORT and
# no reset where it has a part of a write.
SOON = {"nopin_timeout": 3, "nopin_response_timeout": 3}
# Variables come from /target.conf: name, serial, kind (iblock, fileio), luns, initiators, levels, chap, groups;
# functions from there set what a test has asked for (attributes of the unit, of a portal group or an initiator, parameters).
INIT = f"""#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
    insmod /modules/$module.ko
done
. /target.conf
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
mkdir -p /var/target
mount -t ext4 -o sync,dirsync /dev/vdb /var/target
mkdir -p /var/target/pr /var/target/alua
sync
mount -t configfs configfs /sys/kernel/config
top=/sys/kernel/config/target unit=/sys/kernel/config/target/core/${{kind}}_0/disk
mkdir -p $unit
case $kind in
iblock) echo udev_path=/dev/vda >$unit/control ;;
fileio) echo fd_dev_name=/dev/vda,fd_dev_size=$size,fd_buffered_io=1 >$unit/control ;;
esac
echo $serial >$unit/wwn/vpd_unit_serial
echo 1 >$unit/enable
set_unit
known=$initiators
kept=/var/target/pr/aptpl_$serial
if [ -s $kept ]; then
    tr -d '\\000' <$kept >/tmp/kept
    while read -r line; do
        case $line in
        PR_REG_START*) entry= ;;
        PR_REG_END*) echo "${{entry#,}}" >$unit/pr/res_aptpl_metadata ;;
        initiator_node=*) entry=$entry,$line known="$known ${{line#*=}}" ;;
        *) entry=$entry,$line ;;
        esac
    done </tmp/kept
fi
login() {{ # a line's end would belong to them
    [ -e $1/attrib/authentication ] && echo $(($2 > 0)) >$1/attrib/authentication
    [ $2 -ge 1 ] && printf %s "$user" >$1/auth/userid && printf %s "$secret" >$1/auth/password
    [ $2 -ge 2 ] && printf %s "$their_user" >$1/auth/userid_mutual && printf %s "$their_secret" >$1/auth/password_mutual
}}
level() {{
    for pair in $levels; do
        [ ${{1##*:}} = ${{pair%=*}} ] && echo ${{pair#*=}} && return
    done
    echo $chap
}}
mkdir -p $top/iscsi
i=1
while [ $i -le $groups ]; do
    group=$top/iscsi/$name/tpgt_$i
    for number in $luns; do
        mkdir -p $group/lun/lun_$number
        ln -s $unit $group/lun/lun_$number/unit
    done
    for one in generate_node_acls:1 cache_dynamic_acls:1 demo_mode_write_protect:0 authentication:$((chap > 0)); do
        echo ${{one#*:}} >$group/attrib/${{one%:*}}
    done
    set_group
    login $group $chap
    for one in $known; do
        [ -d $group/acls/$one ] && continue
        for number in $luns; do
            mkdir -p $group/acls/$one/lun_$number
            ln -s $group/lun/lun_$number $group/acls/$one/lun_$number/unit
        done
        login $group/acls/$one $(level $one)
        acl=$group/acls/$one
        set_acl
    done
    mkdir "$group/np/0.0.0.0:$((3259 + i))"
    echo 1 >$group/enable
    i=$((i + 1))
done
stty -echo
echo {READY}
while read -r line; do
    (eval "$line") 2>&1
    echo "<$?>"
done
"""


def base():
    """The initramfs that all such machines have in common; made where it is missing or older than what it is made of."""
    os.makedirs(os.path.join(BUILD, "system"), exist_ok=True)
    path = os.path.join(BUILD, "system", "lio-initrd.img")
    with open(path + ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sources = (__file__, mkdemo.__file__, os.path.join(TOP, "tools", "sources.lock"), VMLINUZ)
        if not os.path.exists(path) or os.path.getmtime(path) < max(map(os.path.getmtime, sources)):
            package = mkdemo.fetch_kernel(os.path.join(BUILD, "packages"))[2]
            mkdemo.write_initrd(path + ".new", package, init=INIT, modules=tuple(MODULES))
            os.replace(path + ".new", path)
    return path


class LioTarget(Unit):
    """chap, digests: as Target's. cache: whether the unit has a write cache. groups: portal groups, each with a port of its
    own (`ports`). unit, group, acl, parameters: what is written to attributes of the unit, of the portal groups, of the initiators
    with ACLs, and to the keys of their sessions. initiators: names that have ACLs from the beginning; others are given one when they log in. levels: {what
    comes after a name's colon: chap for that initiator}. luns: the unit's numbers. log: a file for what the machine says."""
    prefix = "tasuki-lio-"
    model = "LIO-ORG disk"

    def __init__(self, size=64 << 20, chap=0, digests=True, name=NAME, cache=False, groups=1, unit=None, group=None,
                 acl=None, parameters=None, initiators=(INITIATOR,), levels=None, luns=(1,), log=None):
        super().__init__(size, chap, digests, name)
        self.serial = str(uuid.uuid4())
        self.cache, self.initiators, self.levels, self.log_path = cache, initiators, levels or {}, log
        self.luns = luns
        self.ports = [self.port] + [free_port() for _ in range(groups - 1)]
        self.settings = {"set_unit": {f"$unit/attrib/{key}": value
                                      for key, value in {"emulate_tpu": 1, "emulate_tpws": 1, **(unit or {})}.items()},
                         "set_acl": {f"$acl/attrib/{key}": value for key, value in (acl or {}).items()},
                         "set_group": {f"$group/attrib/{key}": value for key, value in (group or {}).items()}}
        keys = dict(parameters or {})
        if not digests:
            keys.update(HeaderDigest="None", DataDigest="None")
        self.settings["set_group"].update({f"$group/param/{key}": value for key, value in keys.items()})
        self.machine = None
        with open(self.path("state.img"), "wb") as file:
            file.truncate(8 << 20)
        subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", file.name], check=True, capture_output=True)

    def script(self):
        """/target.conf"""
        values = {"name": self.name, "serial": self.serial, "kind": "fileio" if self.cache else "iblock", "size": self.size,
                  "initiators": " ".join(self.initiators), "chap": self.chap, "groups": len(self.ports),
                  "user": OURS[0], "secret": OURS[1], "their_user": THEIRS[0], "their_secret": THEIRS[1]}
        values["luns"] = " ".join(map(str, self.luns))
        values["levels"] = " ".join(f"{name}={level}" for name, level in self.levels.items())
        lines = [f"{key}={shlex.quote(str(value))}" for key, value in values.items()]
        for function, writes in self.settings.items():
            lines += [f"{function}() {{", ":"]
            lines += [f"echo {shlex.quote(str(value))} >{path}" for path, value in writes.items()] + ["}"]
        return "\n".join(lines) + "\n"

    def start(self):
        with open(base(), "rb") as file, open(self.path("initrd.img"), "wb") as whole:
            own = mkdemo.Cpio()
            own.entry("target.conf", 0o100644, self.script().encode())
            whole.write(file.read() + own.finish())
        forwards = ",".join(f"hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{3260 + i}" for i, port in enumerate(self.ports))
        extra = ["-kernel", os.path.abspath(VMLINUZ), "-initrd", self.path("initrd.img"), "-no-reboot",
                 "-append", "console=ttyS0 loglevel=1 panic=-1 mitigations=off",
                 "-netdev", f"user,id=lan,restrict=on,{forwards}", "-device", "virtio-net-pci,netdev=lan,romfile="]
        for name in ("disk.img", "state.img"):
            # A flush has nothing to do: what the machine has written is in this machine's memory, and outlives that one.
            extra += ["-drive", f"if=none,id={name[:4]},format=raw,cache=unsafe,discard=unmap,detect-zeroes=off,"
                      f"file={self.path(name)}", "-device", f"virtio-blk-pci,drive={name[:4]},write-cache=off"]
        self.machine = machines.Machine("amd", smp=1, memory=192, firmware=False, extra=extra, log=self.log_path)
        self.machine.start()
        self.machine.expect(READY, timeout=120)

    def run(self, command, timeout=30):
        """What a command prints in the machine; it must succeed. $top, $unit and $group are configfs' directories."""
        self.machine.send(f"{command}\n")
        said = self.machine.expect(r"(.*?)<(\d+)>\r\n", timeout=timeout)
        text = said[1].decode(errors="replace").replace("\r\n", "\n").lstrip("\n")
        assert said[2] == b"0", f"{command}: {text}"
        return text

    def log(self):
        return self.machine.tail() if self.machine else ""

    def kill(self):
        """The machine's power goes."""
        if self.machine:
            self.machine.kill()
            self.machine = None
