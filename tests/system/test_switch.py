# SPDX-License-Identifier: MIT
"""Guests on the node's networks: a Debian guest gets an address by DHCP and reaches the router and the node; who is in
another VLAN hears nothing; a guest speaks with its own address alone; its link is the card's; it is announced when it
comes back; and it can be stopped at any time, whoever holds its frames. One guest with three cards serves for most of it."""
import http.server
import re
import threading
import time

import pytest
from node import INITRD, VMLINUZ, Linux, ShellError

OTHER = "02:00:00:00:00:0b"
CONF = f"""[node]
name = node
log = error

[network lan]
address = dhcp

[network blue]
vlan = 20
address = 10.9.0.1/24

[vm demo]
memory = 128M
vcpus = 1
kernel = \\tasuki\\images\\vmlinuz
initrd = \\tasuki\\images\\initrd.img
cmdline = console=ttyS0 ipv6.disable=1 quiet
network = lan
network = lan {OTHER}
network = blue
"""
SECOND = CONF[CONF.index("[vm demo]"):].replace("[vm demo]", "[vm second]").replace(f" {OTHER}", "").replace("vcpus = 1", "vcpus = 2")

# What the switch refuses and what is saved of a card depends on no vendor, and Bochs takes its time.
ONE_VENDOR = pytest.mark.parametrize("cpu", ["amd"], indirect=True)


def start(node, vm, linux=None):
    """Starts it and waits for its shell. The console shows earlier boots first; `linux` is the shell that the VM had then."""
    linux = linux or Linux(node, vm)
    linux.boots = getattr(linux, "boots", 0) + 1
    node.shell_json(f"vm start {vm}", timeout=60)
    node.attach(vm)
    node.expect(r"(?:Linux \S+ on \d+ CPU\(s\).*?){%d}[#$] " % linux.boots, timeout=240)
    return linux


def boot(booted, cpu, name, conf=CONF, **arguments):
    files = {"tasuki/images/vmlinuz": VMLINUZ, "tasuki/images/initrd.img": INITRD}
    return booted.get(cpu, name, conf=conf, cards=[{"model": "e1000"}], files=files, timeout=120, **arguments)


def prepare(linux, number=2):
    """An address for the card on the VLAN; that of the first card came by DHCP, and is returned."""
    linux.run("until ip address show eth0 | grep -q inet; do sleep 0.2; done")
    linux.run(f"ip link set eth1 up; ip link set eth2 up; ip address add 10.9.0.{number}/24 dev eth2; "
              f"ip address add 10.8.0.{number}/24 dev eth1")
    return re.search(r"inet (10\.0\.2\.\d+)/24", linux.run("ip address show eth0"))[1]


@pytest.fixture(scope="module")
def guest(booted, cpu):
    """The node, a shell of its guest, the guest's address on the lan."""
    node = boot(booted, cpu, "switch", **({"qmp": True} if cpu == "amd" else {}))
    if node.state("demo") != "running":
        node.linux = start(node, "demo")
        node.address = prepare(node.linux)
        node.detach()
    return node, node.linux, node.address


def show(node):
    return node.shell_json("net show --counters")


def port(shown, name, network):
    return next(p for p in shown["ports"] if p["port"] == name and p["network"] == network)


def dropped(shown, name, reason):
    return sum(d["frames"] for d in shown["drops"] if d["port"] == name and d["reason"] == reason)


def received(linux):
    return [int(n) for n in linux.run("cat /sys/class/net/eth[012]/statistics/rx_packets").split()]


def test_an_address_by_dhcp_and_echoes(guest):
    node, linux, address = guest
    node.attach("demo")
    answers = linux.run("for to in 10.0.2.2 10.0.2.15 10.9.0.1; do ping -c 2 -W 5 $to; done")
    node.detach()
    assert answers.count(" 2 packets received") == 3, answers
    assert address != "10.0.2.15"
    assert node.shell_json(f"net ping {address}")["answered"] == 3
    assert node.shell_json("net ping 10.9.0.2")["answered"] == 3
    shown = show(node)
    ports = {(p["port"], p["network"]): p for p in shown["ports"]}
    assert len(ports) == 6 and shown["ports"][0]["network"] is None
    assert shown["counters"][0]["no_memory"] == 0
    cards = {card["card"]: card for card in node.shell_json("vm show demo")["networks"]}
    for number, network in enumerate(("lan", "lan", "blue")):
        mine = ports[(f"demo: card {number}", network)]
        assert mine["link"] == "up" and mine["mac"] == cards[number]["mac"]
    assert cards[1]["mac"] == OTHER and int(cards[0]["mac"][:2], 16) & 3 == 2
    assert ports[("demo: card 0", "lan")]["in"] >= 4 and ports[("demo: card 0", "lan")]["out"] >= 4


def test_one_network_is_heard_and_no_other(guest):
    """Broadcasts of one card reach its network's other card, and not the one of another VLAN; and back."""
    node, linux, _ = guest
    node.attach("demo")
    before = received(linux)
    linux.run("arping -c 3 -I eth0 10.0.2.99")
    between = received(linux)
    linux.run("arping -c 3 -I eth2 10.9.0.99")
    after = received(linux)
    node.detach()
    assert between[1] - before[1] >= 3 and between[2] == before[2]
    assert after[0] - between[0] <= 1 and after[1] - between[1] <= 1  # the router may speak


@ONE_VENDOR
def test_a_foreign_address_is_dropped_and_counted(guest):
    node, linux, _ = guest
    before = show(node)
    node.attach("demo")
    linux.run("ip link set eth1 down; ip link set eth1 address 02:00:00:00:00:66; ip link set eth1 up")
    heard = received(linux)
    linux.run("arping -c 3 -I eth1 10.8.0.99")
    assert received(linux)[0] - heard[0] <= 1
    linux.run(f"ip link set eth1 down; ip link set eth1 address {OTHER}; ip link set eth1 up")
    node.detach()
    after = show(node)
    assert dropped(after, "demo: card 1", "source") - dropped(before, "demo: card 1", "source") >= 3
    assert dropped(after, "demo: card 0", "source") == 0


@ONE_VENDOR
def test_past_the_deadline_no_frame_passes(guest):
    node, linux, address = guest
    node.shell_json("vm deadline demo 0")
    assert port(show(node), "demo: card 0", "lan")["link"] == "past its deadline"
    with pytest.raises(ShellError):
        node.shell_json(f"net ping {address} --count 1", timeout=60)
    node.shell_json("vm deadline demo none")
    assert node.shell_json(f"net ping {address}", timeout=60)["answered"] >= 1


@ONE_VENDOR
def test_who_comes_back_is_announced(guest):
    node, linux, address = guest
    node.shell_json("vm save demo", timeout=120)
    assert [p["port"] for p in show(node)["ports"] if p["port"].startswith("demo")] == []
    before = port(show(node), "node: blue", "blue")["out"]
    node.shell_json("vm restore demo", timeout=120)
    deadline = time.monotonic() + 30 * node.patience
    while port(show(node), "node: blue", "blue")["out"] - before < 6:  # five of the switch's, and the guest's own
        assert time.monotonic() < deadline, show(node)
    assert node.shell_json(f"net ping {address}", timeout=60)["answered"] == 3
    assert node.shell_json("net ping 10.9.0.2")["answered"] == 3


@pytest.mark.vendor("amd")
class TestMore:
    """What one vendor is enough for: nothing of it depends on the CPU."""

    @pytest.fixture(scope="class")
    def pair(self, booted):
        node = boot(booted, "amd", "switch-pair", conf=CONF + SECOND, qmp=True)
        guests = {}
        for number, vm in enumerate(("demo", "second"), 2):
            linux = start(node, vm)
            guests[vm] = linux, prepare(linux, number)
            node.detach()
        return node, guests

    def test_two_guests_reach_each_other(self, pair):
        node, guests = pair
        linux, _ = guests["demo"]
        answers = linux.run(f"ping -c 2 -W 5 {guests['second'][1]}; ping -c 2 -W 5 10.9.0.3; ping -c 2 -s 20000 -W 5 10.9.0.3")
        assert answers.count(" 2 packets received") == 3, answers
        # In another VLAN the same address is nobody's.
        linux.run("ip address add 10.9.0.2/24 dev eth0; ip link set eth2 down")
        assert "100% packet loss" in linux.run("ping -c 1 -W 1 10.9.0.3")
        linux.run("ip address del 10.9.0.2/24 dev eth0; ip link set eth2 up")

    def test_tcp_between_guests_and_out_of_them(self, pair):
        """Large segments and checksums that nobody has made yet, to a guest that takes them and to a card that does not."""
        node, guests = pair
        linux, _ = guests["demo"]
        other, address = guests["second"]
        linux.run("dd if=/dev/urandom of=/tmp/data bs=65536 count=128 2>/dev/null")
        other.run("(sleep 60 | nc -l -p 5000 >/tmp/data 2>&1 &)")  # with an end of its input it would hang up
        linux.run(f"nc {address} 5000 </tmp/data", timeout=120)
        sums = [guest.run("md5sum </tmp/data").split()[0] for guest in (linux, other)]
        assert sums[0] == sums[1]
        taken = []

        class Server(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                taken.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", str(len(taken[0])))
                self.end_headers()
                self.wfile.write(taken[0])

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            linux.run("tr -dc a-z </tmp/data | head -c 300000 >/tmp/text")
            url = f"http://10.0.2.2:{server.server_address[1]}/"
            echoed = linux.run(f"wget -q -O - --post-file /tmp/text {url} | md5sum; md5sum </tmp/text", timeout=120).split()
            server.shutdown()
        assert len(taken) == 1 and len(taken[0]) == 300000 and echoed[0] == echoed[2]
        shown = show(node)
        assert dropped(shown, "demo: card 0", "source") == 0 and dropped(shown, "demo: card 0", "malformed") == 0

    def test_the_link_is_the_cards(self, pair):
        node, guests = pair
        linux, _ = guests["demo"]
        for up in (False, True):
            node.machine.qmp("set_link", name="card0", up=up)
            linux.run(f"until [ $(cat /sys/class/net/eth0/carrier) = {int(up)} ]; do sleep 0.1; done", timeout=60)
        linux.run("until ping -c 1 -W 1 10.0.2.2 >/dev/null; do :; done")

    def test_stopped_while_its_frames_are_under_way(self, pair):
        """Also while a card without a link holds them; and nothing of the memory is lost."""
        node, guests = pair

        def hypervisor():
            return next(o["held_bytes"] for o in node.shell_json("memory show")["owners"] if o["owner"] == "hypervisor")

        settled = None
        for i in range(4):
            linux, _ = guests["second"]
            _, other = guests["demo"]
            linux.run(f"for to in {other} 10.0.2.2 10.9.0.2; do ping -q -s 1400 -A $to >/dev/null & done")
            if i % 2:
                node.machine.qmp("set_link", name="card0", up=False)
            began = time.monotonic()
            node.shell_json("vm stop second --hard")
            assert time.monotonic() - began < 5
            node.machine.qmp("set_link", name="card0", up=True)
            time.sleep(0.5 if settled is None else 0)
            settled = settled or hypervisor()
            deadline = time.monotonic() + 20
            while hypervisor() > settled + 256 * 1024:  # a card has more than 1 MiB
                assert time.monotonic() < deadline
            linux = start(node, "second", linux)
            guests["second"] = linux, prepare(linux, 3)
            node.detach()
        assert node.shell_json("net ping 10.9.0.3")["answered"] == 3
