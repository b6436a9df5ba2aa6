# SPDX-License-Identifier: MIT
"""The machine that the other tests have as their LIO: what it promises them."""
import os

import pytest
from csv_volume import MIB, Volume
from lio import LioTarget

pytestmark = pytest.mark.vendor("none")


def test_what_it_has_answered_outlives_a_power_cut(tmp_path):
    """A volume and its files, and the reservation of who has asked for that."""
    with LioTarget(size=64 << 20, unit={"force_pr_aptpl": 1}, log=str(tmp_path / "lio.log")) as target:
        volume = Volume(tmp_path, target.url())
        volume.run("mkfs")
        data = os.urandom(3 * MIB)
        volume.run("put", "-", "f", data=data)
        put = volume.start("put", "-", "held", stdin=-1)
        put.stdin.write(b"x" * 5 * MIB)
        put.stdin.flush()
        held = target.run("cat $unit/pr/res_holder $unit/pr/res_pr_type")
        assert "csv-" in held and "Write Exclusive" in held
        target.kill()
        target.start()
        assert target.run("cat $unit/pr/res_holder $unit/pr/res_pr_type") == held
        put.stdin.close()
        assert put.wait(60) == 0
        assert volume.run("get", "f", "-") == data
        volume.check()
        assert "No SPC-3 Reservation holder" in target.run("cat $unit/pr/res_holder")
        volume.end()
