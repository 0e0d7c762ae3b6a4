"""How much one peer may have on its way to another: a window in symbols, after the idea of BBR.

The path is described by its highest recent delivery rate and its lowest recent round-trip time; the window is one and
a half times their product plus what arrives in some milliseconds (confirmations come in lumps). Random loss does not
shrink it; loss does that comes with waiting in a queue, or is above `TOO_MUCH`, so that several senders share a full
queue, and a short queue is not flooded. All transfers to a peer share one window.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

START: Final = 32.0
FLOOR: Final = 16.0
CEILING: Final = 4096.0
TOO_MUCH: Final = 0.25
CROWDED: Final = 0.02
"""Share of lost symbols that means a full queue if the round trips are longer than the path needs."""
JUDGED: Final = 64
"""Symbols whose fate is known before their loss is judged; half a window if that is more."""
WAITING: Final = 0.005
"""Seconds that a round trip may be longer than the shortest without a queue: confirmations of few symbols come late by
design (2 ms with us), and busy machines are late besides."""
BEST_HALVES: Final = 2.0
"""Seconds in which the memory of the best rate halves. A window that shrank for another reason than a full queue, and
the lower rate that comes of it, must not prove each other right."""
LUMP: Final = 0.02
"""Seconds of delivery that the window holds beyond the path's own needs."""
GAIN: Final = 1.5
"""How often the path's own needs fit into the window: room for a rate that grows, and for losses of a third."""
RTT_LIFE: Final = 10.0
"""Seconds after which the lowest round-trip time must be measured anew, with a small window."""
FIRST_RTT: Final = 0.05


class Sent(NamedTuple):
    """State of the delivery counters when some symbols left."""

    time: float
    delivered: float
    delivered_time: float
    app_limited: bool


class Congestion:
    """Window of one peer. Times in seconds, amounts in symbols."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.loss = 0.0
        """Smoothed share of lost symbols."""
        self.srtt = 0.0
        self.rttvar = FIRST_RTT / 2
        self.app_limited = True
        self._delivered = 0.0
        self._delivered_time = 0.0
        self._rates: deque[tuple[float, float]] = deque()
        self._best = (0.0, 0.0)
        """(rate, when): the highest, of which half is forgotten every `BEST_HALVES`."""
        self._min_rtt = 0.0
        self._min_rtt_time = 0.0
        self._probe_until = 0.0
        self._startup = True
        self._full_rate = 0.0
        self._full_rounds = 0
        self._round_end = 0.0
        self._settled = 0
        self._lost = 0
        self._cap = CEILING
        self._window = START

    @property
    def window(self) -> float:
        return self._window

    @property
    def room(self) -> int:
        """Symbols that may leave now."""
        return int(self._window) - self.in_flight

    @property
    def timeout(self) -> float:
        """Silence after which a probe should go out."""
        if not self.srtt:
            return 2 * FIRST_RTT
        return min(1.0, max(0.03, 1.25 * self.srtt + 4 * self.rttvar + 0.01))

    @property
    def tail(self) -> float:
        """When to repeat the last symbol if nobody said that all is there."""
        return 1.25 * self.srtt + 0.003 if self.srtt else FIRST_RTT

    def on_sent(self, count: int, now: float) -> Sent:
        if self.in_flight == 0:
            self._delivered_time = now  # idle time is no part of a delivery rate
        self.in_flight += count
        return Sent(now, self._delivered, self._delivered_time, self.app_limited)

    def on_forgotten(self, count: int) -> None:
        """Symbols in flight whose fate does not matter any more."""
        self.in_flight -= count

    def on_outage(self) -> None:
        """Nothing came back for long: begin carefully again."""
        self._window = min(self._window, START)
        self._startup, self._full_rate, self._full_rounds = True, 0.0, 0
        self._rates.clear()
        self._best = (0.0, 0.0)

    def on_settled(self, settled: int, arrived: int, sent: Sent | None, now: float) -> None:
        """`settled` symbols left the network, `arrived` of them (or of earlier ones) at the peer."""
        self.in_flight -= settled
        self._delivered += arrived
        self._settled += settled
        self._lost += settled - arrived  # negative when symbols arrive that were overtaken, and counted, before
        if self._settled >= max(JUDGED, self._window / 2):
            self._judge_loss(now)
        if sent is None:
            self._delivered_time = now
            return
        self._sample_rtt(now - sent.time, now)
        elapsed = now - sent.delivered_time
        self._delivered_time = now
        if elapsed > 0:
            self._sample_rate((self._delivered - sent.delivered) / elapsed, sent.app_limited, now)
        if sent.delivered >= self._round_end:
            self._end_round()
        self._resize(arrived, now)

    def _sample_rtt(self, rtt: float, now: float) -> None:
        rtt = max(rtt, 1e-5)
        if not self.srtt:
            self.srtt, self.rttvar = rtt, rtt / 2
        else:
            self.rttvar += (abs(rtt - self.srtt) - self.rttvar) / 4
            self.srtt += (rtt - self.srtt) / 8
        if not self._min_rtt or rtt <= self._min_rtt:
            self._min_rtt, self._min_rtt_time = rtt, now
        elif now - self._min_rtt_time > RTT_LIFE:
            self._min_rtt, self._min_rtt_time = rtt, now
            self._probe_until = now + max(0.02, 2 * self.srtt)

    def _sample_rate(self, rate: float, app_limited: bool, now: float) -> None:
        rates = self._rates
        if rate > self._best_rate(now):
            self._best = (rate, now)
        if app_limited and rates and rate < rates[0][1]:
            return
        while rates and rates[-1][1] <= rate:
            rates.pop()
        rates.append((now, rate))
        horizon = now - max(10 * self.srtt, 0.2)
        while rates[0][0] < horizon and len(rates) > 1:
            rates.popleft()

    def _best_rate(self, now: float) -> float:
        rate, then = self._best
        return rate * float(0.5 ** ((now - then) / BEST_HALVES))

    def _judge_loss(self, now: float) -> None:
        share = max(0.0, self._lost / self._settled)
        self._settled = self._lost = 0
        self.loss += (share - self.loss) / 4
        waiting = self.srtt > 1.1 * self._min_rtt + WAITING
        if share > TOO_MUCH or (share > CROWDED and waiting):
            enough = self._best_rate(now) * (self._min_rtt + LUMP / 4)  # below this the path would run dry
            self._cap = max(FLOOR, 0.7 * self._window, min(enough, self._window))
            self._startup = False
        else:
            self._cap = min(CEILING, 1.05 * self._cap + 1)

    def _end_round(self) -> None:
        self._round_end = self._delivered
        if self._startup and not self.app_limited and self._rates:
            rate = self._rates[0][1]
            if rate > 1.25 * self._full_rate:
                self._full_rate, self._full_rounds = rate, 0
            else:
                self._full_rounds += 1
                self._startup = self._full_rounds < 3

    def _resize(self, arrived: int, now: float) -> None:
        rate = self._rates[0][1] if self._rates else 0.0
        path = rate * self._min_rtt
        # The constant part evens out shares of a full path: the rest only follows the rate that each has already.
        lump = FLOOR + rate * LUMP
        if self._startup:
            grown = self._window + (0 if self.app_limited else arrived)
            window = min(grown, max(self._window, 3 * path + lump))
        else:
            window = GAIN * path + lump
        if now < self._probe_until:
            window = max(FLOOR, path / 2)
        self._window = max(FLOOR, min(window, self._cap, CEILING))
