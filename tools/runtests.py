#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs the tests and counts them.

    runtests.py [--build DIR] [--fuzz-seconds N] [STAGE ...]

Stages, all by default, in this order:
    build    gcc into DIR, clang into DIR/clang; gcc once more into DIR/again, which must give the same bytes
    unit     each program of tests/unit and tests/differential, two at a time
    fuzz     each fuzz target for some seconds over its corpus (tests/fuzz/corpus/NAME), two at a time
    system   pytest over tests/system, by systemtests.py: what may run side by side, then the rest

The last line is `N passed, N failed`; the exit status is 0 only if nothing failed. Tests that were skipped are named
above it, with the reason where one is known, and counted as neither. Logs are in DIR/logs. A stage that has nothing
to run counts as nothing. Ctrl-C and SIGTERM end it and all that it has started.
"""
import argparse
import concurrent.futures
import filecmp
import glob
import os
import re
import signal
import subprocess
import sys
import time

import systemtests

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STAGES = ["build", "unit", "fuzz", "system"]
UNIT_SECONDS = 600
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PASS, FAIL = "\033[32mpass\033[0m", "\033[31mFAIL\033[0m"
if not sys.stdout.isatty():
    PASS, FAIL = "pass", "FAIL"


class Runner:
    def __init__(self, build, fuzz_seconds):
        self.build = build
        self.logs = os.path.join(build, "logs")
        self.fuzz_seconds = fuzz_seconds
        self.passed = self.failed = 0
        self.failures, self.skipped = [], []
        self.children = set()  # processes that run
        self.system_tests = None
        self.interrupted = 0

    def interrupt(self, number, _):
        """Signal handler: ends what run() has started, and the stage."""
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        self.interrupted = number
        for child in list(self.children):
            child.kill()
        raise KeyboardInterrupt

    @staticmethod
    def two_at_a_time(function, names):
        """The results, in order. An interrupt waits for those that run, which it has ended, and begins no others."""
        pool = concurrent.futures.ThreadPoolExecutor(2)
        try:
            yield from pool.map(function, names)
        finally:
            pool.shutdown(cancel_futures=True)

    def count(self, passed, failed, name, seconds, log=None, skipped=()):
        passed, failed = int(passed), int(failed)
        self.passed += passed
        self.failed += failed
        self.skipped += [f"{name}: {what}" for what in skipped]
        detail = f"{passed} passed" + (f", {failed} failed" if failed else "") + \
            (f", {len(skipped)} skipped" if skipped else "")
        print(f"{FAIL if failed else PASS}  {name}  ({detail}, {seconds:.1f} s)", flush=True)
        if failed:
            self.failures.append(f"{name}{': see ' + log if log else ''}")

    def run(self, name, command, timeout, show_failure=True, environment=None):
        """(status, output, seconds, log). The output also goes to a log file."""
        log = os.path.join(self.logs, name.replace("/", "-") + ".log")
        began = time.monotonic()
        with open(log, "wb") as file:
            child = None
            try:
                child = subprocess.Popen(command, cwd=TOP, stdin=subprocess.DEVNULL, stdout=file,
                                         stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})})
                self.children.add(child)
                if self.interrupted:
                    child.kill()
                status = child.wait(timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                file.write(f"\nended by runtests.py after {timeout} s\n".encode())
                status = -1
            except OSError as error:
                file.write(f"{error}\n".encode())
                status = -1
            finally:
                self.children.discard(child)
        with open(log, errors="replace", encoding="utf-8") as file:
            output = file.read()
        if status and show_failure:
            print("\n".join(f"    {line}" for line in output.splitlines()[-40:]), flush=True)
        return status, output, time.monotonic() - began, log

    def make(self, name, *arguments):
        status, _, seconds, log = self.run(name, ["make", "--no-print-directory", "-j2", *arguments], 1200)
        self.count(not status, bool(status), name, seconds, log)
        return not status

    # ---- Stages ----

    def stage_build(self):
        built = self.make("build/gcc", f"BUILD={self.build}", "CC=gcc", "all")
        self.make("build/clang", f"BUILD={self.build}/clang", "CC=clang", "all")
        again = os.path.join(self.build, "again")
        subprocess.run(["make", "--no-print-directory", f"BUILD={again}", "clean"], cwd=TOP, stdout=subprocess.DEVNULL,
                       check=True)
        if self.make("build/again", f"BUILD={again}", "CC=gcc", "all") and built:
            for name in ("BOOTX64.EFI", "esp.img", "tasuki-csv"):
                same = filecmp.cmp(os.path.join(self.build, name), os.path.join(again, name), shallow=False)
                self.count(same, not same, f"build/again: {name} has the same bytes", 0)

    def programs(self, *patterns):
        """The names, below tests/, of the test programs whose sources match."""
        sources = sorted(path for pattern in patterns for path in glob.glob(os.path.join(TOP, "tests", pattern)))
        return [os.path.relpath(path, os.path.join(TOP, "tests"))[:-2] for path in sources]

    def make_programs(self, names):
        """Builds each; those that do not build count as failed and are left out of what is returned."""
        targets = [f"{self.build}/tests/{name}" for name in names]
        status, _, _, _ = self.run("build-tests", ["make", "--no-print-directory", "-j2", "-k", f"BUILD={self.build}",
                                                   *targets], 1200)
        if not status:
            return names
        good = []
        for name, target in zip(names, targets):
            if self.run(f"build-{name}", ["make", "--no-print-directory", f"BUILD={self.build}", target], 600,
                        show_failure=False)[0]:
                self.count(0, 1, f"{name}: does not build", 0, os.path.join(self.logs, "build-tests.log"))
            else:
                good.append(name)
        return good

    def stage_unit(self):
        names = self.programs("differential/*_vs_*.c", "unit/test_*.c")
        if not names:
            return
        kernel = os.path.join(self.build, "demo", "vmlinuz")
        self.make("build/cores", "-k", f"BUILD={self.build}", "core-objects", kernel)

        def run_one(name):
            return name, self.run(name, [os.path.join(self.build, "tests", name)], UNIT_SECONDS,
                                  environment={"FAKE_LOG_QUIET": "1", "BZIMAGE": kernel})

        for name, (status, output, seconds, log) in self.two_at_a_time(run_one, self.make_programs(names)):
            passed = sum(map(int, re.findall(r"\[  PASSED  \] (\d+) test", output)))
            failed = sum(map(int, re.findall(r"\[  FAILED  \] (\d+) test", output)))
            skipped = re.findall(r"^\[  SKIPPED \] (\w+)$", output, re.M)
            if status and not failed:
                failed = 1  # crashed, or found by a sanitizer
            self.count(max(passed, not failed and not skipped), failed, name, seconds, log, skipped)

    def stage_fuzz(self):
        names = self.programs("fuzz/fuzz_*.c")
        if not names:
            return

        def run_one(name):
            short = os.path.basename(name)[len("fuzz_"):]
            kept = os.path.join(TOP, "tests", "fuzz", "corpus", short)
            grown = os.path.join(self.build, "fuzz", short)
            os.makedirs(grown, exist_ok=True)
            command = [os.path.join(self.build, "tests", name), f"-max_total_time={self.fuzz_seconds}", "-timeout=10",
                       "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={grown}-", grown]
            if os.path.isdir(kept):
                command.append(kept)
            return name, self.run(name, command, self.fuzz_seconds + 120, environment={"FAKE_LOG_QUIET": "1"})

        for name, (status, _, seconds, log) in self.two_at_a_time(run_one, self.make_programs(names)):
            self.count(not status, bool(status), name, seconds, log)

    def stage_system(self):
        if not glob.glob(os.path.join(TOP, "tests", "system", "test_*.py")):
            return
        if not self.make("build/images", f"BUILD={self.build}", "all", "guests", f"{self.build}/demo/vmlinuz",
                         f"{self.build}/debian.img", f"{self.build}/tests/unit/test_fault_cases"):
            return
        report = os.path.join(self.logs, "system.xml")
        began = time.monotonic()
        tests = self.system_tests = systemtests.SystemTests(TOP, self.build, self.logs)
        problem = tests.collect()
        if problem:
            print(problem, flush=True)
            self.count(0, 1, "system", time.monotonic() - began)
            return
        names = sum(len(unit.names) for unit in tests.units)  # each unit accounts for every one of its own
        for unit in tests.run():
            if unit.failed or unit.problem:
                print(unit.explain(), flush=True)
            if unit.problem:
                print(f"system/{unit.name}: {unit.problem}", flush=True)
            self.count(len(unit.passed), len(unit.failed) or bool(unit.problem), f"system/{unit.name}", unit.seconds,
                       unit.log, [f"{name}: {unit.reasons[name]}" for name in unit.skipped])
        tests.merge(report)
        print(f"system: {names} tests in {minutes(time.monotonic() - began)}; {report} has all reports", flush=True)


def cpu_seconds():
    """Of all processes that have ended below this one. What a stage takes on a busy machine says little; this does."""
    times = os.times()
    return times.children_user + times.children_system


def minutes(seconds):
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--fuzz-seconds", type=int, default=10)
    parser.add_argument("stages", nargs="*")
    options = parser.parse_args()
    stages = options.stages or STAGES
    for stage in stages:
        if stage not in STAGES:
            sys.exit(f"runtests.py: {stage}: no such stage; there are {', '.join(STAGES)}")
    os.chdir(TOP)
    runner = Runner(options.build, options.fuzz_seconds)
    os.makedirs(runner.logs, exist_ok=True)
    for number in SIGNALS:
        signal.signal(number, runner.interrupt)
    began = time.monotonic()
    took = []
    try:
        for stage in STAGES:
            if stage in stages:
                stage_began, cpu_began = time.monotonic(), cpu_seconds()
                getattr(runner, "stage_" + stage)()
                took.append(f"    {stage:8}{minutes(time.monotonic() - stage_began):>14}"
                            f"{minutes(cpu_seconds() - cpu_began):>14} of CPU time")
    except KeyboardInterrupt:
        if runner.system_tests:
            runner.system_tests.end()
        print(f"\ninterrupted by {signal.Signals(runner.interrupted).name}", flush=True)
        sys.exit(128 + runner.interrupted)
    print(f"\ntook {minutes(time.monotonic() - began)}:", *took, sep="\n")
    for skipped in runner.skipped:
        print(f"skipped: {skipped}")
    for failure in runner.failures:
        print(f"failed: {failure}")
    summary = f"{runner.passed} passed, {runner.failed} failed"
    with open(os.path.join(runner.logs, "summary"), "w", encoding="utf-8") as file:
        file.write(summary + "\n")
    print(summary, flush=True)
    sys.exit(1 if runner.failed else 0)


if __name__ == "__main__":
    main()
