# SPDX-License-Identifier: MIT
"""The dirty log is exact, with every engine that the machine has: a guest writes the pages that it is told, with all of
its CPUs, and a collect reports these and no others. The guest's program (its stacks and page tables included) lies
below the pages that are compared."""
import pytest

from node import Node, ShellError, guest

ENGINES = {"amd": ("wp", "ad"), "intel": ("wp", "ad", "pml")}
VCPUS = 2


class Writer:
    """The guest tests/guests/dirty on a node."""

    def __init__(self, node, vm):
        self.node, self.vm, self.count = node, vm, 0
        node.shell_json(f"vm start {vm}")
        match = node.console(vm, r"ready ([0-9a-f]+) ([0-9a-f]+)\r\n")
        self.first, self.end = int(match[1], 16), int(match[2], 16)

    def order(self, kind, first, count, stride):
        self.count += 1
        self.node.attach(self.vm)
        self.node.machine.send(f"{kind} {first:x} {count:x} {stride:x}\n")
        self.node.expect(rb"obeyed %d\r\n" % self.count, timeout=60)
        self.node.detach()

    def write(self, first, count=1, stride=1):
        """Page numbers that were written."""
        self.order("w", first, count, stride)
        return set(range(first, first + count * stride, stride))

    def read(self, first, count=1, stride=1):
        self.order("r", first, count, stride)
        return set()

    def collect(self):
        """Page numbers that the log has, of those that are compared. The list of ranges must be whole."""
        value = self.node.shell_json(f"vm dirty {self.vm} collect --pages")
        assert value["range_count"] == len(value["ranges"]), "more ranges than are listed"
        pages = set()
        for row in value["ranges"]:
            first = int(row["address"], 16) // 4096
            pages |= set(range(first, first + row["pages"]))
        assert len(pages) == value["pages"]
        return {page for page in pages if page >= self.first}


def steps(writer, ranges):
    """(what, pages written): few and many in a frame, in all frames, the last page of RAM, none. `ranges` is how many a
    list may have: a long one takes long over a serial port."""
    first, end = writer.first, writer.end
    total = end - first
    frame = (first + 511) // 512 * 512
    return [
        ("all are read", lambda: writer.read(first, total)),
        ("one in each frame", lambda: writer.write(first + 7, total // 513, 513)),
        ("a whole frame", lambda: writer.write(frame, 512)),
        ("the same frame again", lambda: writer.write(frame, 512)),
        ("every third of it", lambda: writer.write(frame, min(170, ranges), 3)),
        ("one page of it", lambda: writer.write(frame + 99)),
        ("nothing", set),
        ("the last page", lambda: writer.write(end - 1)),
        ("the first page", lambda: writer.write(first)),
        ("everything", lambda: writer.write(first, total)),
        ("nothing after everything", lambda: writer.read(first, total)),
        ("every third page of three frames", lambda: writer.write(frame + 512, ranges, 3)),
        ("few, twice", lambda: writer.write(frame + 5, 9, 50) | writer.write(frame + 6, 9, 50)),
    ]


@pytest.mark.parametrize("cpu,ranges,turns", [("amd", 500, 2), ("intel", 40, 1)])
def test_every_engine_is_exact(cpu, ranges, turns):
    vms = {"vm": {"kernel": guest("dirty"), "memory": "32M", "vcpus": VCPUS}}
    with Node(cpu, "dirty", vms=vms, memory=512) as node:
        writer = Writer(node, "vm")
        for engine in ENGINES[cpu]:
            assert node.shell_json(f"vm dirty vm start --engine {engine}")["engine"] == engine
            writer.collect()
            for turn in range(turns):
                for what, step in steps(writer, ranges):
                    want, have = step(), writer.collect()
                    assert have == want, (f"{engine}, turn {turn}, {what}: {len(want - have)} pages missing "
                                          f"({sorted(want - have)[:5]}), {len(have - want)} too many "
                                          f"({sorted(have - want)[:5]})")
            node.shell_json("vm dirty vm stop")
        # Off again: the guest runs as before, and the log is started anew without what came before.
        writer.write(writer.first, 100, 3)
        best = node.shell_json("vm dirty vm start")["engine"]
        assert best == ENGINES[cpu][-1]
        writer.collect()
        assert writer.collect() == set()
        assert writer.write(writer.first + 1, 40, 7) == writer.collect()


def refused(node, command, words):
    with pytest.raises(ShellError) as failure:
        node.shell_json(command)
    error = failure.value.error
    assert error["cure"] and words in error["cause"], error


def test_orders_out_of_turn_are_refused():
    with Node("amd", "dirty-orders", vms={"vm": {"kernel": guest("dirty"), "memory": "16M", "vcpus": 1}}, memory=512) as node:
        refused(node, "vm dirty vm start", "stopped")
        writer = Writer(node, "vm")
        refused(node, "vm dirty vm collect", "is off")
        refused(node, "vm dirty vm stop", "is off")
        refused(node, "vm dirty vm start --engine pml", "no dirty log by pml")
        node.shell_json("vm dirty vm start --engine wp")
        refused(node, "vm dirty vm start --engine ad", "on already, by wp")
        # It works on a paused VM, and ends with the VM.
        writer.collect()
        want = writer.write(writer.first, 3, 100)
        node.shell_json("vm pause vm")
        assert writer.collect() == want
        node.shell_json("vm resume vm")
        node.shell_json("vm save vm")
        node.shell_json("vm restore vm")
        refused(node, "vm dirty vm collect", "is off")
        writer.write(writer.first, 3, 100)
        node.shell_json("vm dirty vm start")
        node.shell_json("vm reset vm")
        node.shell_json("vm stop vm --hard")
        assert [owner["owner"] for owner in node.shell_json("memory show")["owners"]] == ["hypervisor"]
