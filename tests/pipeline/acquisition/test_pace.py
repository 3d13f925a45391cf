"""Pauses, jitter, growing waits and rate limits, against a clock that only `sleep` moves."""

import pytest

from pipeline.acquisition.pace import Pace, RateLimit, parse_size


class Clock:
    def __init__(self):
        self.now_s = 100.0
        self.slept_s = []

    def __call__(self):
        return self.now_s

    def sleep(self, seconds):
        self.slept_s.append(seconds)
        self.now_s += seconds


def _pace(clock, uniform=0.0, **more):
    return Pace(clock=clock, sleep=clock.sleep, uniform=lambda: uniform, **more)


def test_the_first_turn_is_at_once_and_the_next_waits_what_is_left_of_the_pause():
    clock = Clock()
    pace = _pace(clock, pause_s=8.0)
    assert pace.wait_turn() == 0.0
    clock.now_s += 5.0
    assert pace.wait_turn() == pytest.approx(3.0)
    clock.now_s += 50.0
    assert pace.wait_turn() == 0.0


def test_jitter_only_lengthens():
    clock = Clock()
    pace = _pace(clock, uniform=1.0, pause_s=8.0, jitter=0.5)
    pace.wait_turn()
    assert pace.wait_turn() == pytest.approx(12.0)


def test_waits_double_up_to_the_longest_and_honour_the_server():
    clock = Clock()
    pace = _pace(clock, first_wait_s=2.0, longest_wait_s=10.0)
    assert [pace.back_off(failures) for failures in (1, 2, 3, 4, 5)] == [2.0, 4.0, 8.0, 10.0, 10.0]
    assert pace.back_off(1, asked_s=30.0) == 30.0


def test_rate_limit_holds_the_average():
    clock = Clock()
    limit = RateLimit(1000.0, clock, clock.sleep)
    for _ in range(10):
        limit.add(500)
    assert clock.now_s - 100.0 == pytest.approx(5.0)
    free = RateLimit(None, clock, clock.sleep)
    free.add(10**9)
    assert clock.now_s - 100.0 == pytest.approx(5.0)


def test_sizes():
    assert [parse_size(text) for text in ("500", "2K", "1.5M", "1g")] == [500, 2048, 1572864, 1 << 30]
    for text in ("", "x", "-1", "5T", "0", "inf", "nan"):
        with pytest.raises(ValueError, match="no size"):
            parse_size(text)
