# SPDX-License-Identifier: MIT
"""The portable CPU model in a guest: what its CPUID does not have does not work either. (In Bochs alone, whose CPU has INVPCID
and XSAVES to be taken away; QEMU's has neither. test_guests.py compares the model's CPUID on both.)"""
import pytest
from test_guests import vms

GUESTS = ("msr", "paging", "xsave")


@pytest.mark.vendor("intel")
@pytest.mark.parametrize("name", GUESTS)
def test_portable_guest(booted, name):
    settings = {one: {**vms("intel")[one], "cpu": "portable"} for one in GUESTS}
    booted.get("intel", "models", vms=settings).run_guest(name).check()
