# SPDX-License-Identifier: MIT
"""Real iSCSI targets for the system tests, each on a port of its own at the loopback, with a file behind its logical unit 1:
Debian's tgt here, LIO in lio.py, istgt in istgt.py. They are ended by their process ids, and die with this program.

    with Target(size=64 << 20, chap=2) as target:
        target.configuration("san")   # a [storage san] section for a node on the emulators' user network
"""
import os
import shutil
import socket
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import tgt  # noqa: E402
from tgt import free_port  # noqa: E402

NAME = "iqn.2026-11.example:lun"
INITIATOR = "iqn.2026-11.example:alpha"
OURS = ("alpha", "a-secret-of-ours")
THEIRS = ("the-disk", "a-secret-of-theirs")
NETWORK = "[node]\nname = node\nlog = error\n\n[network lan]\naddress = dhcp\n\n"


class Requests:
    """What goes to a target on one connection, PDU by PDU (RFC 7143, section 11.2), of which a deaf relay passes some only."""
    HEARD = (0x00, 0x03, 0x06)  # NOP-Out, login, logout

    def __init__(self, relay):
        self.relay, self.head, self.left, self.passes = relay, b"", 0, True

    def heard(self, data):
        """What the target gets of it. The beginning of a header is kept until the rest is there."""
        out = b""
        while data:
            if self.left:
                piece, data = data[:self.left], data[self.left:]
                self.left -= len(piece)
                out += piece if self.passes else b""
                continue
            missing = 48 - len(self.head)
            self.head, data = self.head + data[:missing], data[missing:]
            if len(self.head) == 48:
                opcode, length = self.head[0] & 0x3f, int.from_bytes(self.head[5:8], "big")
                digest = 0 if opcode == 0x03 else 4
                self.left = 4 * self.head[4] + digest + (length + -length % 4 + digest if length else 0)
                self.passes = opcode in self.HEARD or self.relay.state != "deaf"
                out += self.head if self.passes else b""
                self.head = b""
        return out


class Relay:
    """A port of its own before another one: the way to a target, which can be cut (what is open ends, nothing new is taken),
    stall (nothing passes, nothing ends) or be late (each piece of data is held for `delay` seconds), and be mended; and which
    can flip a bit of what passes: `flips`, of the next pieces that way. It can also hold what goes to the target on a
    connection, from the next write with its data on, while new connections are as good as ever, and let it go later.

    With `pdus`, for sessions with both digests, it can be deaf: as a target whose disk hangs, which takes logins and pings, and
    answers nothing else."""

    def __init__(self, port, pdus=False):
        self.to, self.pdus = port, pdus
        self.open = []
        self.held = {}  # end towards the target: what it has not got yet
        self.to_hold = 0  # a piece of so many bytes is to be held ...
        self.to_pass = 0  # ... but for so many at its beginning
        self.state = "good"
        self.delay = 1
        self.flips = {"to the target": 0, "from the target": 0}
        self.changed = threading.Condition()
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(8)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            try:
                assert self.state != "cut"
                other = socket.create_connection(("127.0.0.1", self.to), timeout=5)
                other.settimeout(None)
            except (AssertionError, OSError):
                one.close()
                continue
            self.open += [one, other]
            for source, sink, way in ((one, other, "to the target"), (other, one, "from the target")):
                threading.Thread(target=self.pump, args=(source, sink, way), daemon=True).start()

    def pass_on(self, data, source, sink, way):
        """False where the sink takes nothing any more."""
        with self.changed:
            self.changed.wait_for(lambda: self.state != "stalled")
            if self.to_hold and len(data) >= self.to_hold and way == "to the target":
                self.to_hold = 0
                self.held[sink] = b""
                self.changed.notify_all()
                sink.sendall(data[:self.to_pass])
                data = data[self.to_pass:]
            if sink in self.held:
                self.held[sink] += data
                return True
        if self.state == "late":
            time.sleep(self.delay)
        if self.flips[way] and len(data) > 2000:  # not in a header alone
            self.flips[way] -= 1
            data = data[:1000] + bytes([data[1000] ^ 0x10]) + data[1001:]
        try:
            sink.sendall(data)
        except OSError:
            return source in self.held  # the node is gone; the target goes on
        return True

    def pump(self, source, sink, way):
        requests = Requests(self) if self.pdus and way == "to the target" else None
        try:
            while data := source.recv(65536):
                if requests:
                    data = requests.heard(data)
                if data and not self.pass_on(data, source, sink, way):
                    break
        except OSError:
            pass
        with self.changed:
            self.changed.wait_for(lambda: sink not in self.held)
        self.end(source, sink)

    @staticmethod
    def end(*ends):
        for end in ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def hold(self, least, passes=0, timeout=60):
        """Returns when a piece of at least so many bytes is held, but for the first ones of it, and all that follows it on its
        connection. The node's end of that is not told to the target either."""
        with self.changed:
            self.to_hold, self.to_pass = least, passes
            assert self.changed.wait_for(lambda: self.held, timeout), f"nothing of {least} bytes was sent"

    def release(self):
        """How many bytes were held, and how many of them went out on a connection that the target had not ended."""
        with self.changed:
            held, self.held, sent = self.held, {}, 0
            for sink, data in held.items():
                try:
                    sink.sendall(data)
                    sent += len(data)
                except OSError:
                    pass
            self.changed.notify_all()
        return sum(map(len, held.values())), sent

    def set(self, state):
        with self.changed:
            self.state = state
            self.changed.notify_all()
        if state == "cut":
            ends, self.open = self.open, []
            self.end(*ends)

    def close(self):
        self.set("cut")
        self.listener.close()


class Unit:
    """What real targets have in common: logical unit 1 of a target, on the loopback, with a file of this machine behind it.
    chap: 0 none, 1 the node proves itself, 2 the target too. digests: whether it can do CRC-32C. Not started before start()
    or `with`; kill() takes what only its own memory held, start() brings it back on the same port.
    """
    prefix = "tasuki-tgt-"
    lun = 1

    def __init__(self, size, chap, digests, name):
        self.size, self.chap, self.digests, self.name = size, chap, digests, name
        self.directory = tempfile.mkdtemp(prefix=self.prefix)
        self.port = free_port()
        with open(self.disk, "wb") as file:
            file.truncate(size)

    def path(self, name):
        return os.path.join(self.directory, name)

    @property
    def disk(self):
        return self.path("disk.img")

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, user="", port=None, target=None, lun=None):
        """For the admin's tool."""
        return f"iscsi://{user}127.0.0.1:{port or self.port}/{target or self.name}/{self.lun if lun is None else lun}"

    def configuration(self, name, host="10.0.2.2", **keys):
        keys = {"portal": f"{host}:{self.port}", "target": self.name, "lun": self.lun, "initiator": INITIATOR, **keys}
        if self.chap >= 1:
            keys.setdefault("chap", " ".join(OURS))
        if self.chap >= 2:
            keys.setdefault("chap-mutual", " ".join(THEIRS))
        lines = [f"[storage {name}]"]
        for key, value in keys.items():
            lines += [f"{key} = {one}" for one in (value if isinstance(value, list) else [value])]
        return "\n".join(lines) + "\n"


class Target(tgt.Tgt, Unit):
    """Debian's tgt, as `make run` has it too. It keeps no reservation when it ends."""

    def __init__(self, size=64 << 20, chap=0, digests=True, name=NAME):
        Unit.__init__(self, size, chap, digests, name)
        self.control, self.process = tgt.control_number(), None

    def prepare(self):
        for wanted, (user, secret), more in ((1, OURS, ()), (2, THEIRS, ("--outgoing",))):
            if self.chap >= wanted:
                self.admin("--op", "new", "--mode", "account", "--user", user, "--password", secret)
                self.admin("--op", "bind", "--mode", "account", "--tid", "1", "--user", user, *more)


def find(rows, key, value):
    return next(row for row in rows if row[key] == value)


def wait_for(node, command, rows, name, field, wanted, timeout=60):
    """The object of that storage, once its field has that value or fits it."""
    deadline = time.monotonic() + timeout * node.patience
    while True:
        shown = node.shell_json(command)
        row = find(shown[rows], next(iter(shown[rows][0])), name)
        if wanted(row[field]) if callable(wanted) else row[field] == wanted:
            return row
        assert time.monotonic() < deadline, shown
        time.sleep(0.3)


def wait_up(node, name="san", timeout=60):
    return wait_for(node, "iscsi list", "sessions", name, "state", "up", timeout)


def wait_paths(node, name="san", timeout=60):
    """The paths of a storage with two portals by their state, once one is in use and the other one stands by."""
    deadline = time.monotonic() + timeout * node.patience
    while True:
        rows = [row for row in node.shell_json("iscsi list")["paths"] if row["storage"] == name]
        if sorted(row["state"] for row in rows) == ["in use", "stands by"]:
            return {row["state"]: row for row in rows}
        assert time.monotonic() < deadline, rows
        time.sleep(0.3)
