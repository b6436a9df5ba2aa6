# SPDX-License-Identifier: MIT
"""A volume on a LUN behind iscsi://, against a tgtd that the tests start and end: reservations, secrets, lost connections."""
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import threading

import pytest

from csv_volume import MIB, SECONDS, TOOL, Volume, fuse_problem, on_another_host, unmount, wait_for

pytestmark = pytest.mark.vendor("none")
TARGET = f"iqn.2026-11.example:csv-{os.getpid()}"  # runs at the same time do not know each other
SECRET, OTHER_SECRET = "0123456789ab", "ba9876543210"


class Target:
    """A tgtd of its own with one target: LUN 1 is a file of 256 MiB."""

    def __init__(self, folder):
        self.folder = folder
        self.lun = folder / "lun.img"
        with open(self.lun, "wb") as file:
            file.truncate(256 * MIB)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = None
        self.accounts = []
        self.start()

    def url(self, user="", port=None, target=TARGET, lun=1):
        return f"iscsi://{user}127.0.0.1:{port or self.port}/{target}/{lun}"

    def admin(self, *words, check=True):
        result = subprocess.run(["tgtadm", "-C", "1", "--lld", "iscsi", *words], capture_output=True, text=True,
                                env=self.environment, timeout=SECONDS)
        assert not check or not result.returncode, result.stderr
        return result

    def start(self):
        self.environment = {**os.environ, "TGT_IPC_SOCKET": str(self.folder / "ipc")}
        with open(self.folder / "tgtd.log", "ab") as log:
            self.process = subprocess.Popen(["tgtd", "-f", "-C", "1", "--iscsi", f"portal=127.0.0.1:{self.port}"],
                                            stdout=log, stderr=log, env=self.environment)
        wait_for(lambda: self.process.poll() is not None or
                 not self.admin("--op", "show", "--mode", "system", check=False).returncode, "tgtd")
        assert self.process.poll() is None, (self.folder / "tgtd.log").read_text()
        self.admin("--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET)
        self.admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(self.lun))
        for user, secret in self.accounts:
            self.admin("--op", "new", "--mode", "account", "--user", user, "--password", secret)
            self.admin("--op", "bind", "--mode", "account", "--tid", "1", "--user", user)
        if self.accounts:
            self.admin("--op", "new", "--mode", "account", "--user", "disk", "--password", OTHER_SECRET)
            self.admin("--op", "bind", "--mode", "account", "--tid", "1", "--user", "disk", "--outgoing")
        self.admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")

    def stop(self):
        self.process.kill()
        self.process.wait()


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


@pytest.fixture
def target(tmp_path):
    if not shutil.which("tgtd"):
        pytest.fail("tgtd is not installed: tools/setup.sh installs it")
    made = Target(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def volume(target):
    made = Volume(target.folder, target.url())
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
    target.stop()
    on_file = Volume(target.folder, str(target.lun))  # what the target has kept is a volume in a file
    on_file.check()
    assert on_file.run("get", "d/h", "-") == data


def test_an_image_is_imported_to_a_lun(target, volume):
    image = target.folder / "disk.raw"
    with open(image, "wb") as file:
        file.truncate(2 << 30)
        file.seek(1 << 30)
        file.write(os.urandom(20 * MIB))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", image, target.folder / "disk.qcow2"], check=True, timeout=SECONDS)
    volume.run("import", "disk.qcow2", "disk0.img")
    volume.run("get", "disk0.img", "back")
    subprocess.run(["qemu-img", "compare", "-s", "-f", "raw", "-F", "raw", image, target.folder / "back"], check=True,
                   timeout=SECONDS)
    volume.check()


def test_a_lun_is_mounted(target, volume):
    reason = fuse_problem(target.folder)
    if reason:
        pytest.skip(reason)
    directory = target.folder / "mounted"
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
    reason = fuse_problem(target.folder)
    if reason:
        pytest.skip(reason)
    for name, value in (("nop_interval", "1"), ("nop_count", "4")):
        target.admin("--op", "update", "--mode", "target", "--tid", "1", "-n", name, "-v", value)
    directory = target.folder / "mounted"
    directory.mkdir()
    Volume(target.folder, target.url(port=proxy.port)).run("mount", directory)
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
                       (target.url(lun=7), ("no such LUN",)), (target.url(port=1), ("no connection", "target running")),
                       ("iscsi://127.0.0.1", ("iscsi://[USER%SECRET@]HOST[:PORT]/TARGET/LUN",)),
                       (target.url(lun=0), ("no disk",))):
        Volume(target.folder, url).fails("ls", *words)


def test_secrets(target, volume):
    target.accounts = [("alpha", SECRET)]
    target.stop()
    target.start()
    good = Volume(target.folder, target.url(f"alpha%{SECRET}@"))
    good.run("mkdir", "d")
    assert good.names() == ["d"]
    said = good.run("fsck") + good.run("fsck", "--repair") + good.run("grow") + good.run("info")
    assert b"0 things mended" in said and b": sound" in said and b"already" in said and SECRET.encode() not in said
    for user in ("", "alpha%wrongwrongwrong@", f"beta%{SECRET}@"):
        bad = Volume(target.folder, target.url(user))
        bad.fails("ls", "no login", "user and secret")
        assert SECRET not in bad.errors and "wrongwrong" not in bad.errors
    both = f"?target_user=disk&target_password={OTHER_SECRET}"
    Volume(target.folder, good.name + both).run("ls")
    wrong = Volume(target.folder, good.name + both.replace(OTHER_SECRET, "wrongwrongwrong"))
    wrong.fails("ls", "no login")
    assert "wrongwrong" not in wrong.errors
    volume.name = good.name + both
    put = begin(volume)
    with open(f"/proc/{put.pid}/cmdline", "rb") as file:
        shown = file.read()
    assert b"alpha" in shown and SECRET.encode() not in shown and OTHER_SECRET.encode() not in shown, \
        "other users can read the secret"
    good.run("mkdir", "e", status=1)
    assert "in use by process" in good.errors and SECRET not in good.errors
    finish(put)


# ---- Reservations ----

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
    data = os.urandom(24 * MIB)
    proxy.cut_at = cut_at
    through = Volume(target.folder, target.url(port=proxy.port))
    through.run("put", "-", "f", data=data, quiet=False)
    assert proxy.cuts == 1 and "the connection is lost" in through.errors and "is back" in through.errors
    assert volume.run("get", "f", "-") == data
    volume.check()
    other = on_another_host()
    if other:
        volume.run("mkdir", "released", before=other)


def test_a_restarted_target_has_lost_the_reservation_and_nothing_more_is_written(target, volume):
    """tgt keeps reservations in its memory. Who had one cannot know who wrote meanwhile."""
    put = begin(volume)
    target.stop()
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
    target.stop()
    put.send_signal(signal.SIGINT)
    try:
        put.stdin.close()
    except BrokenPipeError:
        pass
    assert put.wait(SECONDS) == 1 and "connection" in put.stderr.read().decode()
    target.start()
    volume.check()
