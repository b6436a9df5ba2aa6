# SPDX-License-Identifier: MIT
"""The node's own network: an address by DHCP and an echo from the router, on each card that an emulator has; and what is
said when there is no card, no link, nobody there. The emulators' user networking is the other end: DHCP gives 10.0.2.15,
and 10.0.2.2 is the router."""
import re
import time

import pytest
from node import Node, ShellError

DHCP = "[node]\nname = node\nlog = error\n\n[network lan]\naddress = dhcp\naddress6 = auto\n"
# Emulator, card, and the interrupt that it has there.
CARDS = [("amd", "e1000", "intx"), ("amd", "e1000e", "msix"), ("amd", "virtio-net-pci", "msix"), ("intel", "e1000", "intx")]
MODELS = {"e1000": ("82540EM", 1000), "e1000e": ("82574L", 1000), "virtio-net-pci": ("virtio", 10000)}


def boot(booted, cpu, name, conf=DHCP, cards=({"model": "e1000"},), **arguments):
    return booted.get(cpu, name, conf=conf, cards=cards, **arguments)


def wait_for(node, what, wanted, timeout=60):
    """The first network's object once its field has that value."""
    deadline = time.monotonic() + timeout * node.patience
    while True:
        shown = node.shell_json("net show")
        network = shown["networks"][0]
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


def test_a_link_that_goes_and_comes(booted):
    node = boot(booted, "amd", "net-link", qmp=True)
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
    wait_for(node, "state", "up")
    shown = node.shell_json("net show")
    one, two, three, four = shown["networks"]
    assert one["card"] != two["card"] and two["card"] == three["card"] and three["vlan"] == 100
    assert one["address"] == "10.0.2.77/24" and three["address"] == "10.10.0.1/24"
    assert four["state"] == "does not work" and four["card"] is None
    assert [problem["network"] for problem in shown["problems"]] == ["four"]
    assert "no such card" in shown["problems"][0]["problem"]
    assert node.shell_json("net ping 10.0.2.2")["answered"] == 3


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
    assert node.shell_json("net show") == {"networks": [], "ipv6": [], "problems": [], "cards": []}
    assert all(device["driver"] is None for device in node.shell_json("pci list")["devices"])
    assert "net" not in [thread["thread"] for thread in node.shell_json("thread list")["threads"]]
    with pytest.raises(ShellError) as caught:
        node.shell_json("net ping 10.0.2.2")
    assert "no network" in caught.value.error["cause"] and "[network" in caught.value.error["cure"]
