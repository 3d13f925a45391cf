"""Manners towards a server: pauses with jitter, growing waits after failures.  The clock can be replaced in tests."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Pace:
    """Decides when the next request may go out; one instance is shared by all threads of a run.

    Args:
        pause_s: between the starts of two downloads; the real pause is up to `jitter` times longer, at random.
        jitter: share of the pause.
        first_wait_s, longest_wait_s: of the waits after failures, which double from try to try.
        clock, sleep, uniform: replaced in tests; `uniform` returns a number in [0, 1).
    """

    pause_s: float = 0.0
    jitter: float = 0.5
    first_wait_s: float = 2.0
    longest_wait_s: float = 120.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[], float] = random.random
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _next_s: float | None = field(default=None, repr=False)

    def wait_turn(self) -> float:
        """Sleep until the next download may start, and return the seconds slept."""
        with self._lock:
            now_s = self.clock()
            start_s = now_s if self._next_s is None else max(now_s, self._next_s)
            self._next_s = start_s + self._jittered(self.pause_s)
        if start_s > now_s:
            self.sleep(start_s - now_s)
        return start_s - now_s

    def back_off(self, failures: int, asked_s: float | None = None) -> float:
        """Sleep after the `failures`-th failure in a row, at least as long as the server asked; return the seconds."""
        wait_s = min(self.first_wait_s * 2 ** (failures - 1), self.longest_wait_s)
        wait_s = max(self._jittered(wait_s), asked_s or 0.0)
        self.sleep(wait_s)
        return wait_s

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + self.jitter * self.uniform())


class RateLimit:
    """Keeps a stream of bytes under a rate.

    Args:
        bytes_per_s: None for no limit.
    """

    def __init__(
        self,
        bytes_per_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.bytes_per_s, self._clock, self._sleep = bytes_per_s, clock, sleep
        self._started_s = clock()
        self._sent = 0

    def add(self, count: int) -> None:
        """Account for `count` bytes, sleeping as long as they came too fast."""
        if not self.bytes_per_s:
            return
        self._sent += count
        ahead_s = self._sent / self.bytes_per_s - (self._clock() - self._started_s)
        if ahead_s > 0:
            self._sleep(ahead_s)


def parse_size(text: str) -> int:
    """Bytes of `500K`, `2M`, `1.5G` or a plain number.

    Raises:
        ValueError: anything else, or not positive.
    """
    units = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    try:
        value = float(number) * units[unit]
    except (KeyError, ValueError) as error:
        raise ValueError(f"{text!r} is no size: write 500K, 2M or 1G") from error
    if not 1 <= value < float("inf"):
        raise ValueError(f"{text!r} is no size: it must be at least one byte")
    return int(value)
