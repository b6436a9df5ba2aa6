# SPDX-License-Identifier: MIT
"""Fixtures of the system tests. $TASUKI_BUILD is the build directory; with $TASUKI_PREBUILT it is taken as it is.

A node is booted once for a vendor and a module (`booted`), since Bochs takes 15 s to its firmware's end; a test that
needs a machine of its own makes a Node.

Each test belongs to one part of the tests, by the machine that it boots: that of its parameter `cpu` or `vendor`, or of
its mark `vendor("intel")`; where it has none of these, QEMU. What boots another one fails. `--part` runs
one part alone, for tools/systemtests.py, which knows what may run beside what:
    intel    on Bochs, which keeps one CPU busy and counts its time in instructions
    counted  on QEMU where it does so too (-icount), marked `counted`
    none     no machine at all, marked `vendor("none")`
    amd      the rest: QEMU by the world's clock, one test after the other

What the machines said is in $TASUKI_LOGS; where a test fails, the node's own log is fetched too and shown.
"""
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import node as nodes  # noqa: E402

CPUS = ["amd", "intel"]
PARTS = ["intel", "counted", "none", "amd"]


def vendor_of(item):
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    marker = item.get_closest_marker("vendor")
    return parameters.get("cpu") or parameters.get("vendor") or (marker.args[0] if marker else "amd")


def part_of(item):
    vendor = vendor_of(item)
    return "counted" if vendor == "amd" and item.get_closest_marker("counted") else vendor


def pytest_addoption(parser):
    parser.addoption("--part", choices=PARTS, help="run the tests of this part alone")
    parser.addoption("--list-parts", metavar="FILE", help="write each test's part and name, parted by a tab, to FILE")


def pytest_collection_modifyitems(config, items):
    if config.option.list_parts:
        with open(config.option.list_parts, "w", encoding="utf-8") as file:
            file.writelines(f"{part_of(item)}\t{item.nodeid}\n" for item in items)
    part = config.option.part
    if part:
        config.hook.pytest_deselected(items=[item for item in items if part_of(item) != part])
        items[:] = [item for item in items if part_of(item) == part]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    nodes.Node.part = part_of(item)


def pytest_configure(config):
    """Builds what the images hold. `make` decides what there is to do."""
    config.addinivalue_line("markers", "vendor(name): the machine that the test boots, where no parameter tells")
    config.addinivalue_line("markers", "counted: on QEMU, the test's machine counts time in instructions")
    if config.option.collectonly or os.environ.get("TASUKI_PREBUILT"):
        return
    build = nodes.BUILD
    result = subprocess.run(["make", "--no-print-directory", f"BUILD={build}", f"{build}/BOOTX64.EFI", "guests",
                             f"{build}/demo/vmlinuz", f"{build}/tasuki-csv"], cwd=nodes.TOP, capture_output=True, text=True)
    if result.returncode:
        pytest.exit(f"the system tests cannot be built:\n{result.stdout[-2000:]}{result.stderr[-4000:]}", 2)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for value in item.funcargs.values():
            if isinstance(value, nodes.Node):
                report.sections.append((f"log of {value.name} on {value.cpu}", value.last_log()))


class Nodes:
    """Keeps one node for each (vendor, name) of a module."""

    def __init__(self):
        self.made = {}

    def get(self, cpu, name, **arguments):
        """The node; booted where there is none, or where the one there was has died."""
        node = self.made.get((cpu, name))
        if node is None or not node.alive():
            if node:
                node.close()
            node = self.made[(cpu, name)] = nodes.Node(cpu, name, **arguments)
        return node

    def close(self):
        for node in self.made.values():
            node.close()


@pytest.fixture(scope="module")
def booted():
    keeper = Nodes()
    yield keeper
    keeper.close()


@pytest.fixture(params=CPUS, scope="module")
def cpu(request):
    return request.param
