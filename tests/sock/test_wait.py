"""Wait: condition, deadline, signals."""

from __future__ import annotations

import errno

from fourtuple.sock.wait import ERESTARTSYS, PENDING, SIGNAL, TIMEOUT, WOKEN, Wait, sock_intr_errno


class Sleep:
    """A Wait with a switch, and what its end was told."""

    def __init__(self, deadline=None, results=None):
        self.ready = False
        self.reasons = []
        self.results = results or {WOKEN: 0, TIMEOUT: -errno.EAGAIN, SIGNAL: sock_intr_errno(deadline)}
        self.wait = Wait(lambda: self.ready, self.finish, deadline)

    def finish(self, why):
        self.reasons.append(why)
        return self.results[why]


def test_a_wait_is_pending_until_its_condition_holds():
    sleep = Sleep()
    assert sleep.wait.poll(0) is PENDING
    sleep.ready = True
    assert sleep.wait.poll(1) == 0
    assert sleep.reasons == [WOKEN]


def test_the_result_stays_and_the_call_ends_once():
    sleep = Sleep()
    sleep.ready = True
    assert (sleep.wait.poll(0), sleep.wait.poll(1), sleep.wait.signal(True)) == (0, 0, 0)
    assert sleep.reasons == [WOKEN]


def test_the_deadline_ends_it_and_not_a_microsecond_before():
    sleep = Sleep(deadline=300_000)
    assert sleep.wait.poll(299_999) is PENDING
    assert sleep.wait.poll(300_000) == -errno.EAGAIN


def test_a_condition_that_holds_at_the_deadline_wins():
    sleep = Sleep(deadline=5)
    sleep.ready = True
    assert sleep.wait.poll(5) == 0


def test_a_signal_without_restart_gives_eintr():
    assert Sleep().wait.signal(False) == -errno.EINTR


def test_a_signal_with_restart_begins_the_call_again():
    sleep, again = Sleep(), Sleep()
    sleep.wait.restart = lambda: again.wait
    assert sleep.wait.signal(True) is PENDING
    again.ready = True
    assert sleep.wait.poll(1) == 0


def test_a_restarted_call_that_does_not_sleep_gives_its_result():
    sleep = Sleep()
    sleep.wait.restart = lambda: -errno.EISCONN
    assert sleep.wait.signal(True) == -errno.EISCONN


def test_a_bounded_sleep_is_never_restarted():
    sleep = Sleep(deadline=10)
    sleep.wait.restart = lambda: 0
    assert sleep.wait.signal(True) == -errno.EINTR
    assert sock_intr_errno(None) == -ERESTARTSYS


def test_a_continuation_may_go_on_sleeping():
    first, second = Sleep(), Sleep(results={WOKEN: 7})
    first.wait.then(lambda result: second.wait)
    first.ready = True
    assert first.wait.poll(0) is PENDING
    second.ready = True
    assert first.wait.poll(0) == 7


def test_what_the_call_holds_is_released_at_its_end_only():
    sleep, released = Sleep(), []
    sleep.wait.at_end(lambda: released.append(1))
    sleep.wait.poll(0)
    assert not released
    sleep.ready = True
    sleep.wait.poll(0)
    assert released == [1]


def test_a_verb_surrounds_each_step_but_not_a_finished_wait():
    log = []

    class Verbs:
        def enter(self, now):
            log.append(("enter", now))

        def leave(self):
            log.append("leave")

    sleep = Sleep()
    sleep.wait.verbs = Verbs()
    sleep.wait.poll(3)
    sleep.ready = True
    sleep.wait.poll(4)
    sleep.wait.poll(5)
    assert log == [("enter", 3), "leave", ("enter", 4), "leave"]
