# SPDX-License-Identifier: MIT
"""The node's own network: an address by DHCP and an echo from the router, on each card that an emulator has; and what is
said when there is no card, no link, nobody there. The emulators' user networking is the other end: DHCP gives 10.0.2.15,
and 10.0.2.2 is the router."""
import re
import socket
import time

import pytest
from node import Node, ShellError

DHCP = "[node]\nname = node\nlog = error\n\n[network lan]\naddress = dhcp\naddress6 = auto\n"
# Emulator, card, and the interrupt that it has there.
CARDS = [("amd", "e1000", "intx"), ("amd", "e1000e", "msix"), ("amd", "virtio-net-pci", "msix"), ("intel", "e1000", "intx")]
MODELS = {"e1000": ("82540EM", 1000), "e1000e": ("82574L", 1000), "virtio-net-pci": ("virtio", 10000)}


def boot(booted, cpu, name, conf=DHCP, cards=({"model": "e1000"},), **arguments):
    return booted.get(cpu, name, conf=conf, cards=cards, **arguments)


def wait_for(node, what, wanted, timeout=60, number=0):
    """The object of network `number` once its field has that value."""
    deadline = time.monotonic() + timeout * node.patience
    while True:
        shown = node.shell_json("net show")
        network = shown["networks"][number]
        if network[what] == wanted:
            return network
        assert time.monotonic() < deadline, shown
        time.sleep(0.5)


@pytest.fixture(params=[pytest.param(card, marks=pytest.mark.vendor(card[0]), id=f"{card[0]}-{card[1]}") for card in CARDS],
                scope="module")
def lan(request, booted):
    """A node that asks for its address, with one of the cards; the card's model; its interrupt."""
    cpu, card, interrupt = request.param
    node = boot(booted, cpu, f"net-{card}", cards=[{"model": card}])
    return node, MODELS[card], interrupt


def test_an_address_by_dhcp_and_an_echo(lan):
    node, (model, mbps), interrupt = lan
    network = wait_for(node, "state", "up")
    assert network["address"] == "10.0.2.15/24" and network["gateway"] == "10.0.2.2"
    assert node.shell_json("net ping 10.0.2.15 --size 8000")["answered"] == 3  # itself
    answer = node.shell_json("net ping 10.0.2.2")
    assert answer["sent"] == 3 and answer["answered"] == 3
    assert all(reply["time_ns"] > 0 for reply in answer["replies"])
    shown = node.shell_json("net show --counters")
    card, counters = shown["cards"][0], shown["counters"][0]
    assert card["model"] == model and card["link"] == "full duplex" and card["mbps"] == mbps
    assert card["mac"] == "52:54:00:12:34:56"
    assert card["interrupt"] == interrupt and counters["interrupts"] > 0
    assert counters["resets"] == 0 and counters["errors"] == 0 and counters["refused"] == 0
    traffic = shown["traffic"][0]
    assert traffic["network"] == "lan" and traffic["received"] >= 5 and traffic["sent"] >= 5 and traffic["dropped"] == 0
    assert not [pool for pool in shown["memory"] if pool["refused"]]


def test_a_router_is_heard(lan):
    """Routers advertise to a group that nobody joins: a card with a filter has to be told of it."""
    node, (model, _), _ = lan
    if node.machine.cpu == "intel":
        pytest.skip("the router in Bochs has no IPv6")
    deadline = time.monotonic() + 60 * node.patience
    while not [a for a in node.shell_json("net show")["ipv6"] if a["address"].startswith("fec0::")]:
        assert time.monotonic() < deadline, (model, node.shell_json("net show")["ipv6"])
        time.sleep(0.5)


def test_the_card_is_listed(lan):
    node, _, interrupt = lan
    devices = node.shell_json("pci list")["devices"]
    mine = [device for device in devices if device["driver"]]
    assert len(mine) == 1 and mine[0]["class"] == "Ethernet card" and mine[0]["interrupt"] == interrupt
    assert any(device["class"] == "host bridge" for device in devices)
    assert len({device["address"] for device in devices}) == len(devices)


def test_many_echoes(lan):
    """Enough to go round the rings."""
    node, _, _ = lan
    wait_for(node, "state", "up")
    before = node.shell_json("net show --counters")["counters"][0]["sent"]
    for _ in range(6):
        answer = node.shell_json("net ping 10.0.2.2 --count 50 --gap 1", timeout=60)
        assert answer["answered"] == 50, answer
    after = node.shell_json("net show --counters")["counters"][0]
    assert after["sent"] - before >= 300 and after["resets"] == 0


def test_a_station_that_is_not_there(lan):
    node, _, _ = lan
    wait_for(node, "state", "up")
    with pytest.raises(ShellError) as caught:
        node.shell_json("net ping 10.0.2.99 --count 1", timeout=60)
    error = caught.value.error
    assert error["object"] == "10.0.2.99" and "no reply" in error["cause"] and "cable" in error["cure"]


@pytest.mark.parametrize("command, words", [
    ("net ping router", ["router", "IP address"]),
    ("net ping 10.0.2.2/24", ["10.0.2.2/24"]),
    ("net ping 10.0.2.2 --count none", ["none", "number"]),
    ("net ping 10.0.2.2 --gap never", ["never", "number"]),
    ("net ping", ["ADDRESS"]),
])
def test_errors_name_the_object(lan, command, words):
    node, _, _ = lan
    with pytest.raises(ShellError) as caught:
        node.shell_json(command)
    error = caught.value.error
    for word in words:
        assert word in f"{error['object']} {error['cause']} {error['cure']}", error


@pytest.mark.parametrize("model", ["e1000", "e1000e", "virtio-net-pci"])
def test_a_link_that_goes_and_comes(booted, model):
    node = boot(booted, "amd", f"net-link-{model}", cards=[{"model": model}], qmp=True)
    wait_for(node, "state", "up")
    node.machine.qmp("set_link", name="card0", up=False)
    wait_for(node, "state", "no link")
    with pytest.raises(ShellError):
        node.shell_json("net ping 10.0.2.2 --count 1", timeout=60)
    node.machine.qmp("set_link", name="card0", up=True)
    network = wait_for(node, "state", "up")
    assert network["address"] == "10.0.2.15/24"
    assert node.shell_json("net ping 10.0.2.2")["answered"] == 3
    assert node.shell_json("net show --counters")["counters"][0]["link_changes"] >= 3


def test_static_addresses_on_two_cards(booted):
    conf = ("[node]\nname = node\nlog = error\n[network one]\ncard = 52:54:00:12:34:57\naddress = 10.0.2.77/24\n"
            "gateway = 10.0.2.2\n[network two]\naddress = 10.9.0.1/24\nmtu = 9000\n"
            "[network three]\nvlan = 100\naddress = 10.10.0.1/24\n[network four]\ncard = 00:1e.0\naddress = dhcp\n")
    node = boot(booted, "amd", "net-static", conf=conf, cards=[{"model": "e1000e"}, {"model": "e1000"}])
    for number in range(3):
        wait_for(node, "state", "up", number=number)
    shown = node.shell_json("net show")
    one, two, three, four = shown["networks"]
    assert one["card"] != two["card"] and two["card"] == three["card"] and three["vlan"] == 100
    assert one["address"] == "10.0.2.77/24" and three["address"] == "10.10.0.1/24"
    assert four["state"] == "does not work" and four["card"] is None
    assert [problem["network"] for problem in shown["problems"]] == ["four"]
    assert "no such card" in shown["problems"][0]["problem"]
    assert node.shell_json("net ping 10.0.2.2")["answered"] == 3
    configured = node.shell_json("config show")["networks"]
    assert [(n["name"], n["card"], n["address"], n["vlan"], n["mtu"]) for n in configured] == [
        ("one", "52:54:00:12:34:57", "10.0.2.77/24", None, 1500), ("two", "first", "10.9.0.1/24", None, 9000),
        ("three", "first", "10.10.0.1/24", 100, 1500), ("four", "00:1e.0", "dhcp", None, 1500)]


def free_ports():
    """Two UDP ports that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.fixture(scope="module")
def pair(booted):
    """Two nodes on one wire, untagged and on two VLANs; the second one's VLAN 30 is 31."""
    ports = free_ports()
    nodes = []
    for i, (card, to) in enumerate((("e1000", ports), ("e1000e", ports[::-1])), 1):
        conf = (f"[node]\nname = node{i}\nlog = error\n[network plain]\naddress = 10.1.0.{i}/24\naddress6 = fd01::{i}/64\n"
                f"[network jumbo]\nvlan = 20\naddress = 10.2.0.{i}/24\nmtu = 9000\n"
                f"[network apart]\nvlan = {29 + i}\naddress = 10.3.0.{i}/24\n")
        nodes.append(boot(booted, "amd", f"net-pair{i}", conf=conf, timeout=120,
                          cards=[{"model": card, "to": to, "mac": f"52:54:00:00:00:0{i}"}]))
    for node in nodes:
        for number in range(3):
            wait_for(node, "state", "up", number=number)
    return nodes


@pytest.mark.parametrize("command", ["10.1.0.2", "10.1.0.2 --size 1472", "10.1.0.2 --size 1473", "10.1.0.2 --size 16000",
                                     "10.2.0.2", "10.2.0.2 --size 8972", "10.2.0.2 --size 16000", "fd01::2 --size 1400"])
def test_two_nodes_reach_each_other(pair, command):
    """Whole frames, fragments, VLAN tags, frames of several buffers."""
    wait_for(pair[0], "state", "up")
    deadline = time.monotonic() + 20
    while True:  # an IPv6 address is looked for on the wire first
        try:
            answer = pair[0].shell_json(f"net ping {command}", timeout=60)
            break
        except ShellError:
            assert time.monotonic() < deadline
    if answer["answered"] != 3:  # while an address was still being looked for
        answer = pair[0].shell_json(f"net ping {command}", timeout=60)
    assert answer["answered"] == 3
    if command == "10.2.0.2 --size 8972":  # one frame of 9000 bytes, not fragments
        before = pair[1].shell_json("net show --counters")["traffic"][1]["received"]
        pair[0].shell_json(f"net ping {command} --count 1", timeout=60)
        assert pair[1].shell_json("net show --counters")["traffic"][1]["received"] - before <= 2


def test_vlans_are_apart(pair):
    with pytest.raises(ShellError) as caught:
        pair[0].shell_json("net ping 10.3.0.2 --count 1", timeout=60)
    assert "no reply" in caught.value.error["cause"]
    assert pair[1].shell_json("net show --counters")["traffic"][2]["received"] == 0


def test_without_a_card(booted, cpu):
    node = boot(booted, cpu, "net-none", cards=())
    shown = node.shell_json("net show")
    assert shown["cards"] == [] and shown["networks"][0]["state"] == "does not work"
    assert "no card" in shown["problems"][0]["problem"]
    assert re.search(r"error.*network lan: it does not work: this node has no card", node.shell("log show"), re.S)
    with pytest.raises(ShellError) as caught:
        node.shell_json("net ping 10.0.2.2 --count 1")
    assert "no way there" in caught.value.error["cause"]


def test_without_a_network(booted, cpu):
    """A card that nobody wants is not touched, and no memory is taken."""
    node = boot(booted, cpu, "net-unused", conf="[node]\nname = node\nlog = error\n")
    assert node.shell_json("net show") == {"networks": [], "ipv6": [], "problems": [], "cards": [], "ports": []}
    assert all(device["driver"] is None for device in node.shell_json("pci list")["devices"])
    assert "net" not in [thread["thread"] for thread in node.shell_json("thread list")["threads"]]
    with pytest.raises(ShellError) as caught:
        node.shell_json("net ping 10.0.2.2")
    assert "no network" in caught.value.error["cause"] and "[network" in caught.value.error["cure"]
