# SPDX-License-Identifier: MIT
"""A volume on a LUN behind iscsi://, against real targets that the tests start and end: reservations, secrets, lost connections.
What may depend on the target is tried on all of them (EVERYWHERE), the rest on tgt."""
import json
import os
import re
import select
import signal
import socket
import subprocess
import threading

import pytest

from csv_volume import MIB, SECONDS, TOOL, Volume, fuse_problem, on_another_host, unmount, wait_for
from istgt import IstgtTarget
from lio import LioTarget
from target import OURS, THEIRS, Target

pytestmark = pytest.mark.vendor("none")
TARGET = f"iqn.2026-11.example:csv-{os.getpid()}"  # runs at the same time do not know each other
SECRET, OTHER_SECRET = OURS[1], THEIRS[1]
KINDS = {"tgt": Target, "istgt": IstgtTarget}
EVERYWHERE = pytest.mark.parametrize("target", ["tgt", "lio", "istgt"], indirect=True)
BOTH = pytest.mark.parametrize("target", ["tgt", "lio"], indirect=True)  # istgt takes a second for each logout


class Proxy:
    """Passes bytes to the target, and cuts its connections when it is told to."""

    def __init__(self, port):
        self.to = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.passed = 0
        self.cut_at = None  # bytes from the client, after which all connections are cut once
        self.cuts = 0
        self.ends = 0  # of connections, by one of the two sides
        self.ended = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        pairs = {}
        while not self.ended:
            for one in select.select([self.listener, *pairs], [], [], 0.1)[0]:
                if one is self.listener:
                    client = one.accept()[0]
                    try:
                        server = socket.create_connection(("127.0.0.1", self.to))
                    except OSError:
                        client.close()
                        continue
                    for side in (client, server):
                        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    pairs[client], pairs[server] = (server, True), (client, False)
                elif one in pairs and not self.forward(one, *pairs[one]):
                    self.ends += 1
                    other = pairs.pop(one)[0]
                    pairs.pop(other)
                    one.close()
                    other.close()
        for one in pairs:
            one.close()
        self.listener.close()

    def forward(self, one, other, from_client):
        try:
            data = one.recv(65536)
            other.sendall(data)
        except OSError:
            return False
        if from_client:
            self.passed += len(data)
            if self.cut_at is not None and self.passed >= self.cut_at:
                self.cut_at, self.cuts = None, self.cuts + 1
                return False
        return bool(data)

    def end(self):
        self.ended = True
        self.thread.join()


@pytest.fixture(scope="module")
def lio():
    """One machine for all tests, since it takes some seconds to boot; made when the first one asks for it."""
    made = []

    def get():
        if not made:
            made.append(LioTarget(size=256 * MIB, name=TARGET))
            made[0].start()
        elif made[0].chap or not made[0].machine:
            made[0].kill()
            made[0].chap = 0
            made[0].start()
        with open(made[0].disk, "r+b") as file:
            file.truncate(0)
            file.truncate(made[0].size)
        return made[0]
    yield get
    for one in made:
        one.close()


@pytest.fixture
def target(request, lio):
    """tgt, unless the test says which ones; each but LIO for this test alone."""
    kind = getattr(request, "param", "tgt")
    if kind == "lio":
        yield lio()
        return
    with KINDS[kind](size=256 * MIB, name=TARGET) as made:
        yield made


@pytest.fixture
def volume(target, tmp_path):
    made = Volume(tmp_path, target.url())
    made.run("mkfs", "--label=LUN")
    yield made
    made.end()


@pytest.fixture
def proxy(target):
    made = Proxy(target.port)
    yield made
    made.end()


@pytest.fixture
def elsewhere():
    words = on_another_host()
    if not words:
        pytest.skip("unshare --uts cannot be used here, so there is no other host")
    return words


def keys_of(volume, elsewhere):
    """The keys that a stranger is told."""
    volume.run("mkdir", "no", status=1, before=elsewhere)
    return re.findall(r"0x[0-9a-f]{16}", volume.errors)


def begin(volume):
    """A put that has the volume open, since it has taken most of what is more than a pipe holds, and waits for more."""
    put = volume.start("put", "-", "held", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    put.stdin.write(b"x" * 5 * MIB)
    put.stdin.flush()
    return put


def finish(put, status=0):
    put.stdin.close()
    assert put.wait(SECONDS) == status
    return put.stderr.read().decode()


@EVERYWHERE
def test_every_command_works_on_a_lun(target, volume):
    data = os.urandom(11 * MIB + 3)
    volume.run("mkdir", "d")
    volume.run("put", "-", "d/f", data=data)
    volume.run("cp", "d/f", "g")
    volume.run("mv", "g", "d/h")
    assert volume.names("d") == ["f", "h"]
    assert volume.run("get", "d/h", "-") == data
    volume.run("rm", "d/f")
    assert json.loads(volume.run("info", "--json"))["label"] == "LUN" and volume.free() > 200 * MIB
    volume.check()
    volume.fails("mkfs", '"LUN"', "--force")
    target.kill()
    on_file = Volume(volume.folder, target.disk)  # what the target has kept is a volume in a file
    on_file.check()
    assert on_file.run("get", "d/h", "-") == data


def test_an_image_is_imported_to_a_lun(target, volume):
    image = volume.folder / "disk.raw"
    with open(image, "wb") as file:
        file.truncate(2 << 30)
        file.seek(1 << 30)
        file.write(os.urandom(20 * MIB))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", image, volume.folder / "disk.qcow2"], check=True, timeout=SECONDS)
    volume.run("import", "disk.qcow2", "disk0.img")
    volume.run("get", "disk0.img", "back")
    subprocess.run(["qemu-img", "compare", "-s", "-f", "raw", "-F", "raw", image, volume.folder / "back"], check=True,
                   timeout=SECONDS)
    volume.check()


@BOTH
def test_a_lun_is_mounted(target, volume):
    reason = fuse_problem(volume.folder)
    if reason:
        pytest.skip(reason)
    directory = volume.folder / "mounted"
    directory.mkdir()
    volume.run("mount", directory)
    try:
        (directory / "f").write_bytes(b"data" * 99999)
        volume.fails("mkdir", "in use by process", arguments=("d",))
        volume.fails("ls", "in use by process")
    finally:
        unmount(directory)
    assert volume.run("get", "f", "-") == b"data" * 99999
    volume.check()


def test_an_idle_mount_answers_the_targets_pings(target, volume, proxy):
    reason = fuse_problem(volume.folder)
    if reason:
        pytest.skip(reason)
    for name, value in (("nop_interval", "1"), ("nop_count", "4")):
        target.admin("--op", "update", "--mode", "target", "--tid", "1", "-n", name, "-v", value)
    directory = volume.folder / "mounted"
    directory.mkdir()
    Volume(volume.folder, target.url(port=proxy.port)).run("mount", directory)
    try:
        before = proxy.passed
        wait_for(lambda: proxy.passed >= before + 6 * 48 or proxy.ends, "six answers")
        assert not proxy.ends, "the target has given up"
        (directory / "f").write_bytes(b"data")
    finally:
        unmount(directory)
    assert volume.run("get", "f", "-") == b"data"


# ---- Errors ----

def test_what_is_not_there_is_said(target, volume):
    for url, words in ((target.url(target=TARGET + "x"), ("Target not found", "spelled")),
                       (target.url(lun=7), ("no such LUN",)), (target.url(port=1), ("no login: connection refused; is the target running",)),
                       ("iscsi://127.0.0.1", ("iscsi://[USER%SECRET@]HOST[:PORT]/TARGET/LUN",)),
                       (target.url(lun=0), ("no disk",))):
        Volume(volume.folder, url).fails("ls", *words)


@BOTH
def test_secrets(target, volume):
    def restart(chap):
        target.kill()
        target.chap = chap
        target.start()

    restart(1)
    good = Volume(volume.folder, target.url(f"alpha%{SECRET}@"))
    good.run("mkdir", "d")
    assert good.names() == ["d"]
    said = good.run("fsck") + good.run("fsck", "--repair") + good.run("grow") + good.run("info")
    assert b"0 things mended" in said and b": sound" in said and b"already" in said and SECRET.encode() not in said
    for user in ("", "alpha%wrongwrongwrong@", f"beta%{SECRET}@"):
        bad = Volume(volume.folder, target.url(user))
        bad.fails("ls", "no login", "user and secret")
        assert SECRET not in bad.errors and "wrongwrong" not in bad.errors
    restart(2)
    both = f"?target_user={THEIRS[0]}&target_password={OTHER_SECRET}"
    if isinstance(target, LioTarget):  # of a short name libiscsi does not understand LIO's answer (docs/tasuki-csv.md)
        target.run("printf disk >$group/auth/userid_mutual")
        Volume(volume.folder, good.name + both.replace(THEIRS[0], "disk")).fails("ls", "no login", "6 characters or more")
        target.run(f"printf {THEIRS[0]} >$group/auth/userid_mutual")
    Volume(volume.folder, good.name + both).run("ls")
    wrong = Volume(volume.folder, good.name + both.replace(OTHER_SECRET, "wrongwrongwrong"))
    wrong.fails("ls", "no login")
    assert "wrongwrong" not in wrong.errors
    good.name = volume.name = good.name + both
    put = begin(volume)
    with open(f"/proc/{put.pid}/cmdline", "rb") as file:
        shown = file.read()
    assert b"alpha" in shown and SECRET.encode() not in shown and OTHER_SECRET.encode() not in shown, \
        "other users can read the secret"
    good.run("mkdir", "e", status=1)
    assert "in use by process" in good.errors and SECRET not in good.errors
    finish(put)


# ---- Reservations ----

@EVERYWHERE
def test_a_strangers_reservation_is_refused_by_its_key(volume, elsewhere):
    put = begin(volume)
    volume.fails("mkdir", f"in use by process {put.pid} on this host", arguments=("d",))
    for command, arguments in (("mkdir", ("d",)), ("mkfs", ("--force",)), ("ls", ())):
        volume.fails(command, "reserved by another host with key 0x", "Write Exclusive", arguments=arguments,
                     before=elsewhere)
    finish(put)
    volume.run("mkdir", "d", before=elsewhere)
    volume.run("mkdir", "e")
    assert volume.names() == ["d", "e", "held"]
    volume.check()


@EVERYWHERE
def test_a_killed_run_is_cleaned_up_by_its_own_host_alone(volume, elsewhere):
    put = begin(volume)
    put.kill()
    put.wait()
    left = keys_of(volume, elsewhere)
    assert len(left) == 2 and left[0] == left[1], volume.errors
    volume.fails("mkdir", "reserved by another host", left[0], "--take-over", arguments=("d",), before=elsewhere)
    volume.run("mkdir", "mine")
    volume.run("mkdir", "theirs", before=elsewhere)
    assert set(volume.names()) >= {"mine", "theirs"}
    volume.check()


@BOTH
def test_take_over_preempts_who_is_gone(volume, elsewhere):
    put = begin(volume)
    put.kill()
    put.wait()
    left, _ = keys_of(volume, elsewhere)
    volume.run("mkdir", "--take-over", "d", before=elsewhere)
    volume.run("mkdir", "e")
    assert left not in volume.run("info").decode() and set(volume.names()) >= {"d", "e"}
    volume.check()


@pytest.mark.parametrize("gone", [False, True], ids=["while the other writes", "after the other has gone"])
def test_who_was_preempted_by_mistake_writes_nothing_more(volume, elsewhere, gone):
    put = begin(volume)
    other = Volume(volume.folder, volume.name)
    taker = subprocess.Popen([*elsewhere, TOOL, "put", "--take-over", volume.name, "-", "theirs"], stdin=subprocess.PIPE)
    other.started.append(taker)
    taker.stdin.write(b"t" * 5 * MIB)
    taker.stdin.flush()
    if gone:
        taker.stdin.close()
        assert taker.wait(SECONDS) == 0
    with pytest.raises(BrokenPipeError):
        put.stdin.write(b"y" * 100 * MIB)
    assert put.wait(SECONDS) == 1
    said = put.stderr.read().decode()
    assert ("has lost the reservation" if gone else "the reservation was taken by key") in said, said
    if not gone:
        taker.stdin.close()
        assert taker.wait(SECONDS) == 0
    other.end()
    assert volume.run("get", "theirs", "-") == b"t" * 5 * MIB
    volume.check()


# ---- Connections ----

@pytest.mark.parametrize("cut_at", [100_000, 1_000_000, 7_654_321, 20_000_000])
def test_a_cut_connection_costs_nothing(target, volume, proxy, cut_at):
    cut_while_it_writes(target, volume, proxy, cut_at)


@pytest.mark.parametrize("target", ["lio", "istgt"], indirect=True)
def test_a_cut_connection_costs_nothing_elsewhere(target, volume, proxy):
    cut_while_it_writes(target, volume, proxy, 7_654_321)


def cut_while_it_writes(target, volume, proxy, cut_at):
    data = os.urandom(24 * MIB)
    proxy.cut_at = cut_at
    through = Volume(volume.folder, target.url(port=proxy.port))
    through.run("put", "-", "f", data=data, quiet=False)
    assert proxy.cuts == 1 and "the connection is lost" in through.errors and "is back" in through.errors
    assert volume.run("get", "f", "-") == data
    volume.check()
    other = on_another_host()
    if other:
        volume.run("mkdir", "released", before=other)


@pytest.mark.parametrize("target", ["lio"], indirect=True)
def test_a_restarted_target_that_has_kept_the_reservation_costs_nothing(target, volume, elsewhere):
    """LIO writes it down where it is asked to (APTPL); a stranger is refused from its first moment on."""
    put = begin(volume)
    target.kill()
    target.start()
    volume.fails("mkdir", "reserved by another host with key 0x", arguments=("d",), before=elsewhere)
    put.stdin.write(b"y" * 20 * MIB)
    said = finish(put)
    assert "is back" in said and "lost" not in said.replace("the connection is lost", "")
    assert volume.run("get", "held", "-") == b"x" * 5 * MIB + b"y" * 20 * MIB
    volume.check()
    volume.run("mkdir", "theirs", before=elsewhere)


@pytest.mark.parametrize("target", ["tgt", "istgt"], indirect=True)
def test_a_restarted_target_has_lost_the_reservation_and_nothing_more_is_written(target, volume):
    """tgt and istgt keep reservations in their memory. Who had one cannot know who wrote meanwhile."""
    put = begin(volume)
    target.kill()
    target.start()
    with pytest.raises(BrokenPipeError):
        put.stdin.write(b"y" * 100 * MIB)
    assert put.wait(SECONDS) == 1
    said = put.stderr.read().decode()
    assert "lost the reservation" in said, said
    volume.check()
    assert not [name for name in volume.names() if not name.startswith(".tasuki-csv-")]
    volume.run("mkdir", "d")
    volume.check()


def test_a_target_that_is_gone_does_not_hold_who_interrupts(target, volume):
    put = begin(volume)
    target.kill()
    put.send_signal(signal.SIGINT)
    try:
        put.stdin.close()
    except BrokenPipeError:
        pass
    assert put.wait(SECONDS) == 1 and "connection" in put.stderr.read().decode()
    target.start()
    volume.check()
