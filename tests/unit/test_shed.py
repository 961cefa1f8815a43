"""What is answered under load: the newest, as much of it as there is time for."""

from hypothesis import given
from hypothesis import strategies as st

from mmedge.pipeline.shed import expected_run_ns, shed
from mmedge.types import Snapshot

MS = 1_000_000


def ready(kinds, period_ns=8 * MS):
    return [Snapshot(t_ns=n * period_ns, seq=n, present={}, on_frame=kind) for n, kind in enumerate(kinds)]


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(MS, 2000 * MS), st.integers(0, 5000 * MS))
def test_the_newest_is_answered_and_nothing_is_lost_or_late(kinds, period_ns, run_ns):
    snapshots = ready(kinds, period_ns)
    kept, late = shed(snapshots, period_ns=period_ns, run_ns=run_ns)
    assert sorted([*kept, *late], key=lambda s: s.t_ns) == snapshots
    assert kept[-1] is snapshots[-1]
    assert kept == sorted(kept, key=lambda s: s.t_ns)
    # Whatever is ready, answering it takes no longer than what it stands for, or one run.
    assert len(kept) * run_ns <= max(len(snapshots) * period_ns, run_ns)
    frames = [s for s in kept if s.on_frame]
    assert len(frames) <= max(1, period_ns // max(run_ns, 1))


@given(st.lists(st.integers(1, 2000 * MS), min_size=1, max_size=40))
def test_what_is_expected_lies_between_what_came(times_ns):
    expected_ns = 0
    for took_ns in times_ns:
        expected_ns = expected_run_ns(expected_ns, took_ns)
        assert min(times_ns) - 1 <= expected_ns <= max(times_ns)


def test_one_answer_that_was_held_up_costs_no_frame_and_slow_ones_soon_do():
    expected_ns = 0
    for took_ms in (2, 2, 2, 30):
        expected_ns = expected_run_ns(expected_ns, took_ms * MS)
    assert len(shed(ready([True] * 2, 33 * MS), period_ns=33 * MS, run_ns=expected_ns)[0]) == 2
    for _ in range(3):
        expected_ns = expected_run_ns(expected_ns, 100 * MS)
    assert len(shed(ready([True] * 4, 33 * MS), period_ns=33 * MS, run_ns=expected_ns)[0]) == 1


@given(st.integers(1, 60), st.integers(MS, 2000 * MS))
def test_hops_are_all_answered_while_a_run_is_shorter_than_a_period(count, period_ns):
    assert shed(ready([False] * count, period_ns), period_ns=period_ns, run_ns=period_ns)[1] == []


def test_frames_that_wait_for_a_block_of_sound_are_all_answered_where_there_is_time():
    assert len(shed(ready([True] * 3), period_ns=8 * MS, run_ns=2 * MS)[0]) == 3
    assert len(shed(ready([True] * 3), period_ns=8 * MS, run_ns=5 * MS)[0]) == 1


def test_what_has_no_rate_of_its_own_is_judged_by_what_came():
    kept, late = shed(ready([False] * 9, MS), period_ns=40 * MS, run_ns=30 * MS)
    assert (len(kept), len(late)) == (1, 8)


def test_lines_that_come_at_once_are_all_answered_where_that_is_quick():
    assert len(shed(ready([False] * 9, 1), period_ns=40 * MS, run_ns=MS)[0]) == 9
    assert len(shed(ready([False] * 4, 70_000), period_ns=40 * MS, run_ns=300_000)[0]) == 4
