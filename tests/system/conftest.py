# SPDX-License-Identifier: MIT
"""Fixtures of the system tests. $TASUKI_BUILD is the build directory; with $TASUKI_PREBUILT it is taken as it is.

A node is booted once for a vendor and a module (`booted`), since Bochs takes 15 s to its firmware's end; a test that
needs a machine of its own makes a Node.

What the machines said is in $TASUKI_LOGS; where a test fails, the node's own log is fetched too and shown.
"""
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import node as nodes  # noqa: E402

CPUS = ["amd", "intel"]


def pytest_configure(config):
    """Builds what the images hold. `make` decides what there is to do."""
    if config.option.collectonly or os.environ.get("TASUKI_PREBUILT"):
        return
    build = nodes.BUILD
    result = subprocess.run(["make", "--no-print-directory", f"BUILD={build}", f"{build}/BOOTX64.EFI", "guests",
                             f"{build}/demo/vmlinuz"], cwd=nodes.TOP, capture_output=True, text=True)
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
