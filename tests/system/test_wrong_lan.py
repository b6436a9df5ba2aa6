# SPDX-License-Identifier: MIT
"""Another station on the LAN has the node's address: the test plays that station, on a wire of its own. The address is not
taken while it is there, it is taken when it has gone, and it is defended when it comes later; one that a DHCP server offers
is declined. Each time the node names the station."""
import re
import socket
import struct
import threading
import time

from node import Node, guest
from target import find
from test_net import free_ports

OURS, THEIRS = "52:54:00:00:00:01", "02:00:00:00:00:66"
LEASED = "52:54:00:00:00:03"
ADDRESS = "10.1.0.1"
SERVER, OFFERED, FREE = "10.2.0.1", "10.2.0.50", "10.2.0.51"
DISCOVER, OFFER, REQUEST, DECLINE, ACK = range(1, 6)  # RFC 2132, section 9.6


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


class Station:
    """At the other end of a card's wire, where frames are UDP datagrams. It has its address while `here`."""

    def __init__(self, ports, address=ADDRESS):
        self.here, self.seen, self.address = True, [], address
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", ports[1]))
        self.socket.connect(("127.0.0.1", ports[0]))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                frame = self.socket.recv(65536)
            except ConnectionRefusedError:
                continue  # QEMU is not there yet
            except OSError:
                return
            self.take(frame)

    def take(self, frame):
        if frame[12:14] != b"\x08\x06" or len(frame) < 42:
            return
        sender, target = socket.inet_ntoa(frame[28:32]), socket.inet_ntoa(frame[38:42])
        self.seen.append((sender, target))
        if self.here and target == self.address:
            self.say(frame[6:12])

    def say(self, to=b"\xff" * 6):
        """That it has the address."""
        mac, ip = mac_bytes(THEIRS), socket.inet_aton(self.address)
        arp = struct.pack(">HHBBH6s4s6s4s", 1, 0x800, 6, 4, 2, mac, ip, to, ip)
        self.socket.send((to + mac + b"\x08\x06" + arp).ljust(60, b"\0"))

    def close(self):
        self.socket.close()


def checksum(data):
    return ~(sum(struct.unpack(f">{len(data) // 2}H", data)) % 0xffff) & 0xffff


class Server(Station):
    """Has OFFERED, and is the wire's DHCP server, which offers just that until it is declined, and then FREE."""

    def __init__(self, ports):
        self.offers, self.declined = OFFERED, []
        super().__init__(ports, OFFERED)

    def take(self, frame):
        if frame[12:14] != b"\x08\x00" or frame[23] != 17 or frame[36:38] != b"\0\x43":
            super().take(frame)
            return
        message, options, at = frame[42:], {}, 240
        while message[at] != 255:
            options[message[at]] = message[at + 2:at + 2 + message[at + 1]]
            at += 2 + message[at + 1]
        kind = options[53][0]
        if kind == DECLINE:
            self.declined.append(socket.inet_ntoa(options[50]))
            self.offers = FREE
        elif kind == DISCOVER:
            self.answer(message, OFFER, self.offers)
        elif kind == REQUEST:
            self.answer(message, ACK, socket.inet_ntoa(options[50]))

    def answer(self, message, kind, offered):
        server = socket.inet_aton(SERVER)
        reply = struct.pack(">4s4s8x4s8x16s192x4s", b"\2\1\6\0", message[4:8], socket.inet_aton(offered), message[28:44],
                            b"\x63\x82\x53\x63")
        reply += bytes([53, 1, kind, 54, 4]) + server + b"\x33\4\0\0\x0e\x10\1\4\xff\xff\xff\0\xff"
        udp = struct.pack(">HHHH", 67, 68, 8 + len(reply), 0) + reply
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, server, b"\xff" * 4)
        ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
        self.socket.send(b"\xff" * 6 + mac_bytes(THEIRS) + b"\x08\0" + ip + udp)


def network(node, name):
    return find(node.shell_json("net show")["networks"], "network", name)


def wait_network(node, name, state, timeout=60):
    deadline = time.monotonic() + timeout
    while network(node, name)["state"] != state:
        assert time.monotonic() < deadline, node.shell("net show")
        time.sleep(0.3)
    return network(node, name)


def notice(node):
    return "".join(row["problem"] for row in node.shell_json("net show")["problems"] if row["network"] == "lan")


def test_a_station_with_the_nodes_address():
    conf = (f"[node]\nname = node\nlog = error\n[network lan]\naddress = {ADDRESS}/24\ncard = {OURS}\n"
            "[network other]\naddress = 10.0.2.15/24\ngateway = 10.0.2.2\ncard = 52:54:00:00:00:02\n"
            f"[network leased]\naddress = dhcp\ncard = {LEASED}\n"
            "[vm counter]\nmemory = 8M\nkernel = \\tasuki\\images\\counter.elf\nstart = auto\n")
    ports, wire = free_ports(), free_ports()
    station, server = Station(ports), Server(wire)
    with Node("amd", "wrong-lan", conf=conf, files={"tasuki/images/counter.elf": guest("counter")},
              cards=[{"model": "e1000", "to": ports, "mac": OURS}, {"model": "e1000", "mac": "52:54:00:00:00:02"},
                     {"model": "e1000", "to": wire, "mac": LEASED}]) as node:
        assert wait_network(node, "lan", "address in use")["address"] is None
        told = f"the station {THEIRS} uses {ADDRESS}, so this node does not; give one of them another address"
        assert notice(node) == told
        assert f"error network lan: {told}" in re.sub(r"\s+", " ", node.shell("log show"))
        assert ("0.0.0.0", ADDRESS) in station.seen, "a probe"
        assert not [seen for seen in station.seen if seen[0] == ADDRESS], "and not a word as if it had the address"
        wait_network(node, "other", "up")
        assert node.shell_json("net ping 10.0.2.2")["answered"] == 3

        station.here = False
        assert wait_network(node, "lan", "up")["address"] == f"{ADDRESS}/24"
        assert notice(node) == ""
        assert (ADDRESS, ADDRESS) in station.seen, "it was announced"

        station.seen.clear()
        station.say()
        deadline = time.monotonic() + 20
        while not notice(node):
            assert time.monotonic() < deadline
        assert notice(node) == f"the station {THEIRS} uses this node's address {ADDRESS} too; give one of them another address"
        assert network(node, "lan")["state"] == "up" and network(node, "lan")["address"] == f"{ADDRESS}/24"
        assert station.seen == [(ADDRESS, ADDRESS)], "it is defended, once"
        assert "uses this node's address" in re.sub(r"\s+", " ", node.shell("log show"))
        node.console("counter", r"count 2\r\n")

        assert wait_network(node, "leased", "up")["address"] == f"{FREE}/24"
        assert server.declined == [OFFERED]
        told = (f"error network leased: the station {THEIRS} uses {OFFERED}, which DHCP offered, so it was declined; "
                "give that station another address, or take this one from the server's range")
        assert told in re.sub(r"\s+", " ", node.shell("log show"))
        assert not [seen for seen in server.seen if seen[0] == OFFERED], "and not a word as if it had the address"
    station.close()
    server.close()
