import math
import sys

import pytest

from benchmarks import measure

BLOCK = 200 << 20
# A parent that only waits for a child that holds the memory.
PARENT_OF_BLOCK = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; held = b'x' * {BLOCK}; time.sleep(1.5)"], check=True)
"""


def test_start_up_is_taken_out_of_the_cost_of_a_clip():
    def run(count: int) -> measure.Run:
        return measure.Run(wall_s=7.0 + 0.5 * count, cpu_s=3.0 + 0.75 * count)

    cost = measure.cost(run, 2, 10)
    assert (cost.start_s, cost.clip_s, cost.clip_cpu_s) == pytest.approx((7.0, 0.5, 0.75))
    assert (cost.total_s, cost.clips) == (12.0, 10)
    with pytest.raises(ValueError, match="more than few"):
        measure.cost(run, 10, 10)


def test_what_may_be_start_up_is_not_taken_for_clips():
    cost = measure.difference(measure.Run(10.0, 12.0), measure.Run(11.0, 13.0), 2, 12)
    assert math.isnan(cost.clip_s)
    assert cost.clip_cpu_s == pytest.approx(0.1)


def test_cpu_time_of_a_process_that_is_left_behind_counts():
    burn = "import os, time; time.sleep(0.2); [None for _ in iter(lambda: os.times().user > 0.2, True)]"
    leave = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn!r}])"
    assert measure.run([sys.executable, "-c", leave]).cpu_s > 0.2


def test_ratios_are_taken_pair_by_pair():
    # The machine was half as fast in the second repeat, for both: the ratio is 4 all the same.
    assert measure.median_ratio([8.0, 16.0, 8.0], [2.0, 4.0, 2.0]) == 4.0
    assert measure.median_ratio([8.0, 16.0, 9.0], [2.0, 2.0, 1.0]) == 8.0


def test_memory_of_a_child_counts():
    seen = measure.run([sys.executable, "-c", PARENT_OF_BLOCK], watch_memory=True, every_s=0.05)
    assert BLOCK < seen.peak_bytes < 2 * BLOCK
    assert seen.wall_s > 1.5
    idle = measure.run([sys.executable, "-c", "import time; time.sleep(0.3)"], watch_memory=True, every_s=0.05)
    assert 0 < idle.peak_bytes < BLOCK / 4


def test_thread_settings_of_the_shell_do_not_reach_a_contender(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = "import os, sys; sys.exit('OMP_NUM_THREADS' in os.environ or os.environ['KEPT'] != 'yes')"
    measure.run([sys.executable, "-c", code], environment={"KEPT": "yes"})


def test_a_failing_command_says_what_it_said():
    with pytest.raises(RuntimeError, match=r"exit code 3(.|\n)*no such encoder"):
        measure.run([sys.executable, "-c", "import sys; print('no such encoder', file=sys.stderr); sys.exit(3)"])
