from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tonfs.network import congestion
from tonfs.network.congestion import Congestion


def drive(rtt: float, seconds: float, *, rate: float = 0.0, loss_every: int = 0) -> tuple[Congestion, int]:
    """A sender with endless data on a path that delivers `rate` symbols a second, in rounds of one RTT."""
    control, now, delivered, number = Congestion(), 0.0, 0, 0
    control.app_limited = False
    while now < seconds:
        count = max(1, control.room)
        sent = control.on_sent(count, now)
        taken = min(count, int(rate * rtt)) if rate else count
        now += rtt
        lost = 0
        for _ in range(taken):
            number += 1
            lost += bool(loss_every) and number % loss_every == 0
        arrived = taken - lost
        control.on_settled(count, arrived, sent, now)
        delivered += arrived
    return control, delivered


def test_an_empty_path_is_filled_within_a_few_round_trips() -> None:
    control, _ = drive(0.05, 0.6)
    assert control.window > 500


def test_random_loss_does_not_close_the_window() -> None:
    clean, _ = drive(0.03, 2)
    lossy, _ = drive(0.03, 2, loss_every=10)
    assert lossy.window > 0.5 * clean.window
    assert 0.05 < lossy.loss < 0.15


def test_a_busy_moment_on_a_lossy_path_does_not_close_the_window_for_good() -> None:
    """Loss, and round trips that are long for a while because somebody is busy. A small window is confirmed late, so
    its rate is low and its round trips stay long: neither may be taken for a queue."""
    control, now = Congestion(), 0.0
    control.app_limited = False
    windows: dict[bool, list[float]] = {False: [], True: []}
    while now < 3.0:
        sent = control.on_sent(max(0, control.room), now)
        busy = 1.0 <= now < 2.0
        settled = min(control.in_flight, 20) if busy else control.in_flight
        now += 0.01 if busy else 0.0004 if settled >= 32 else 0.0028
        control.on_settled(settled, settled - -(-settled // 10), sent, now)
        if not 1.0 <= now < 2.5:
            windows[now > 2].append(control.window)
    assert min(windows[True]) > 0.1 * max(windows[False])


def test_the_window_follows_the_path() -> None:
    control, delivered = drive(0.05, 5, rate=2000)
    assert 100 <= control.window <= 400
    assert delivered > 0.8 * 5 * 2000


def test_silence_is_answered_with_ever_more_patience() -> None:
    control = Congestion()
    assert control.timeout == 2 * congestion.FIRST_RTT
    control, _ = drive(0.2, 2)
    assert 0.2 < control.timeout <= 1


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.floats(0, 20), st.booleans()),
        max_size=60,
    )
)
def test_no_history_breaks_the_arithmetic(steps: list[tuple[int, int, int, float, bool]]) -> None:
    control, now = Congestion(), 0.0
    for sent, settled, arrived, wait, limited in steps:
        control.app_limited = limited
        record = control.on_sent(sent, now)
        now += wait
        control.on_settled(min(settled, control.in_flight), arrived, record if sent else None, now)
        if sent == 7:
            control.on_outage()
        assert congestion.FLOOR <= control.window <= congestion.CEILING
        assert 0 <= control.loss <= 1
        assert 0 < control.timeout <= 1
        assert control.in_flight >= 0
