# SPDX-License-Identifier: MIT
"""Runs tests/system in several pytest processes, and says what became of each test.

    tests = SystemTests(top, build, logs)
    tests.collect()                     # what one pytest process would run; the units of work, longest first
    for unit in tests.run():            # each when it is done
        unit.passed, unit.failed, unit.skipped      # lists of names; together they are unit.names
    tests.end()                         # from a signal handler: ends what runs

A unit is what one pytest process runs: a module's tests of one part (tests/system/conftest.py has the parts). Bochs
keeps one CPU busy and counts time in instructions, and so does QEMU in the part `counted`; tests of the part `none` boot
nothing: of these parts as many units run at once as there are CPUs, up to LANES. Their nodes have nothing in common:
directories, names and sockets are the process's own, and tools/machine.py connects to no Bochs but its own. QEMU by the
world's clock has two busy threads or more, so no two tests of the part `amd` run at once: it is one unit, begun first, with
units of the other parts beside it.

What a test became is read from pytest's JUnit report. A test that was collected and is not in the report has failed:
its process died, took too long, or collected less. One line is printed for each test as it ends; a unit in which
something failed prints what pytest has to say of it when it is done. Everything is in LOGS/system/UNIT, and all reports
in one in LOGS/system.xml.
"""
import collections
import ctypes
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

LANES = 4
UNIT_SECONDS = 1800
PR_SET_PDEATHSIG = 1
# Modules that take longest, in this order, are begun first, so that the lanes end together. The others follow.
LONGEST = ["test_intx", "test_guests", "test_linux", "test_deadline", "test_wrong", "test_power", "test_console", "test_state"]
LINE = re.compile(r"^tests/system/(\S+?::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)(?: \((.*)\))? +\[ *\d+%\]\s*$")
PYTEST = ["/usr/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", "--tb=short"]


def begin_process():
    """In the child before exec: it ends with this program however that ends, and Ctrl-C's signal is not ignored."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def reported(name):
    """A node ID as the report has it: (module and class with dots, function with parameters)."""
    before, bracket, parameters = name.partition("[")
    path, *classes, function = before.split("::")
    return ".".join([path.removesuffix(".py").replace("/", "."), *classes]), function + bracket + parameters


class Unit:
    """Tests that one process runs. names: node IDs; results: those of them that the report has."""

    def __init__(self, name, part, files, names, logs):
        self.name, self.part, self.files, self.names = name, part, files, names
        self.logs = os.path.join(logs, "system", name)
        self.report = os.path.join(self.logs, "report.xml")
        self.log = os.path.join(self.logs, "pytest.log")
        self.process = self.status = self.problem = None
        self.began = self.last = self.seconds = 0
        self.suites, self.results, self.reasons = [], {}, {}

    def having(self, *outcomes):
        return [name for name in self.names if self.results.get(name, "lost") in outcomes]

    @property
    def passed(self):
        return self.having("passed")

    @property
    def skipped(self):
        return self.having("skipped")

    @property
    def failed(self):
        return self.having("failed", "lost")

    def start(self, top, build):
        shutil.rmtree(self.logs, ignore_errors=True)
        os.makedirs(self.logs)
        self.began = self.last = time.monotonic()
        environment = {**os.environ, "TASUKI_BUILD": os.path.abspath(build), "TASUKI_PREBUILT": "1",
                       "TASUKI_LOGS": os.path.abspath(self.logs), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
        command = [*PYTEST, "-v", "-rs", f"--part={self.part}", f"--junitxml={self.report}", *self.files]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, cwd=top, env=environment, start_new_session=True,
                                        preexec_fn=begin_process)
        os.set_blocking(self.process.stdout.fileno(), False)

    def line(self, text):
        """A line of pytest's output. The lines that tell of a test's end are printed in a shorter form."""
        match = LINE.match(text)
        if match:
            now = time.monotonic()
            reason = f": {match[3]}" if match[3] else ""
            print(f"  {match[2].lower():7} {self.part:7} {match[1]}{reason}  ({now - self.last:.1f} s)", flush=True)
            self.last = now

    def finish(self):
        """After its process has ended."""
        self.status = self.process.wait()
        self.seconds = time.monotonic() - self.began
        try:
            suites = list(ElementTree.parse(self.report).getroot().iter("testsuite"))
        except (OSError, ElementTree.ParseError) as error:
            self.problem = f"pytest ended with status {self.status} and left no report ({error})"
            return
        self.suites = suites
        known = {reported(name): name for name in self.names}
        for case in (case for suite in suites for case in suite.iter("testcase")):
            name = known.get((case.get("classname"), case.get("name")))
            if name is None:
                self.problem = f"a test ran that was not collected: {case.get('classname')} {case.get('name')}"
                continue
            told = {child.tag: child for child in case}
            # A test that failed in its call and in its teardown is there twice.
            if "failure" in told or "error" in told:
                self.results[name] = "failed"
            elif "skipped" in told and self.results.get(name) != "failed":
                self.results[name], self.reasons[name] = "skipped", told["skipped"].get("message", "")
            else:
                self.results.setdefault(name, "passed")
        lost = self.having("lost")
        if lost:
            self.problem = f"{len(lost)} tests did not run, from {lost[0]} on"
        elif self.status and not self.failed and not self.problem:
            self.problem = f"pytest ended with status {self.status}, though no test failed"

    def explain(self):
        """What is to be shown of a unit in which something is wrong: pytest's own words from the failures on."""
        with open(self.log, errors="replace", encoding="utf-8") as file:
            text = file.read()
        start = re.search(r"^=+ (?:FAILURES|ERRORS) =+$", text, re.M)
        return text[start.start():] if start else "\n".join(text.splitlines()[-40:]) + "\n"


class SystemTests:
    def __init__(self, top, build, logs):
        self.top, self.build, self.logs = top, build, logs
        self.units, self.running = [], []

    def collect(self):
        """Makes the units. None, or why it cannot be told what there is to run."""
        shutil.rmtree(os.path.join(self.logs, "system"), ignore_errors=True)
        os.makedirs(os.path.join(self.logs, "system"))
        listing = os.path.join(self.logs, "system", "parts")
        command = [*PYTEST, "-q", "--collect-only", f"--list-parts={listing}", "tests/system"]
        done = subprocess.run(command, cwd=self.top, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            return f"pytest cannot collect the system tests:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        parts = collections.defaultdict(lambda: collections.defaultdict(list))
        with open(listing, encoding="utf-8") as file:
            for line in file:
                part, name = line.rstrip("\n").split("\t")
                parts[part][name.split("::")[0]].append(name)
        together = parts.pop("amd", {})
        for part, files in parts.items():
            for path, names in files.items():
                module = os.path.basename(path).removesuffix(".py")
                self.units.append(Unit(f"{part}-{module.removeprefix('test_')}", part, [path], names, self.logs))
        order = {f"tests/system/{module}.py": place for place, module in enumerate(LONGEST)}
        self.units.sort(key=lambda unit: order.get(unit.files[0], len(order)))
        if together:
            names = [name for names in together.values() for name in names]
            self.units.insert(0, Unit("amd", "amd", list(together), names, self.logs))
        return None

    def run(self):
        """Runs the units; gives each when it is done."""
        waiting = collections.deque(self.units)
        lanes = max(1, min(LANES, len(os.sched_getaffinity(0))))
        with selectors.DefaultSelector() as selector:
            while waiting or self.running:
                while waiting and len(self.running) < lanes:
                    unit = waiting.popleft()
                    unit.start(self.top, self.build)
                    self.running.append(unit)
                    selector.register(unit.process.stdout, selectors.EVENT_READ, (unit, [b""], open(unit.log, "wb")))
                for key, _ in selector.select(timeout=10):
                    unit, rest, log = key.data
                    data = key.fileobj.read(65536)
                    log.write(data or b"")
                    *lines, rest[0] = (rest[0] + (data or b"")).split(b"\n")
                    for line in lines:
                        unit.line(line.decode(errors="replace"))
                    if data == b"":
                        selector.unregister(key.fileobj)
                        key.fileobj.close()
                        log.close()
                        unit.finish()
                        self.running.remove(unit)
                        yield unit
                for unit in self.running:
                    if time.monotonic() > unit.began + UNIT_SECONDS:
                        unit.process.kill()

    def end(self):
        """Ends what runs. pytest, interrupted, ends its machines; a machine whose pytest is killed dies with it."""
        for unit in self.running:
            unit.process.send_signal(signal.SIGINT)
        for unit in self.running:
            try:
                unit.process.wait(20)
            except subprocess.TimeoutExpired:
                unit.process.kill()
                unit.process.wait()

    def merge(self, path):
        """All reports in one."""
        root = ElementTree.Element("testsuites")
        for unit in self.units:
            for suite in unit.suites:
                suite.set("name", unit.name)
                root.append(suite)
            if unit.problem:
                suite = ElementTree.SubElement(root, "testsuite", name=f"{unit.name} (process)", tests="1", errors="1",
                                               failures="0", skipped="0")
                case = ElementTree.SubElement(suite, "testcase", classname="tests.system", name=unit.name)
                ElementTree.SubElement(case, "error", message=unit.problem)
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
