"""The live kernel judges the engine's port order: who gets which port, who may share, what fails and how.

The same random history runs on the kernel and on the engine (tests/kernel/port_judge).  What the kernel draws at random
is hidden from us, so the question is: can the engine have done this?  FOURTUPLE_JUDGE_STEPS=1000000 asks longer.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.kernel.netns import needs_kernel
from tests.kernel.port_judge import session, world
from tests.kernel.port_judge.judge import Judge
from tests.kernel.port_judge.models import WRONG
from tests.kernel.port_judge.session import (
    STEPS,
    directed_history,
    doubts,
    dropped,
    histories,
    recorded,
    some_histories,
    sound_histories,
    verdict,
)

pytestmark = [needs_kernel, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _dropped_refusals_are_shown(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Also where the test passes: seed and step of a refusal that further recordings of the seed did not confirm."""
    before = len(dropped)
    yield
    with capsys.disabled():
        for why in dropped[before:]:
            print(f"\nrefused once, not again, and dropped: {why}")  # noqa: T201


@pytest.mark.compiled_only
@pytest.mark.timeout(400 + STEPS // 250)
def test_every_step_of_the_kernels_histories_is_one_that_the_engine_can_take() -> None:
    judged = 0
    for history in some_histories():
        assert doubts(history) == ""
        judged += history.steps()
    for history in histories(len(some_histories()) + 1, STEPS - judged):
        assert doubts(history) == ""


def test_a_short_history_is_possible_in_this_build_too() -> None:
    assert doubts(recorded(7, 1_000)) == ""


def test_the_directed_history_over_a_rehash_is_possible() -> None:
    _, why = directed_history()
    assert why == ""


@pytest.mark.compiled_only
def test_a_refusal_that_does_not_come_back_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    history = recorded(7, 200)
    at = next(k for k, line in enumerate(history.lines) if line.op == world.BIND and line.outcome > 0)
    history.lines[at] = history.lines[at]._replace(outcome=-errno.EPERM)
    kept: list[str] = []
    monkeypatch.setattr(session, "dropped", kept)
    assert doubts(history) == ""
    assert len(kept) == 1
    assert kept[0].startswith("step ")
    assert "of seed 7: the kernel" in kept[0]


@pytest.mark.compiled_only
@pytest.mark.parametrize("model", WRONG, ids=lambda model: model.name)
def test_a_wrong_idea_of_the_hidden_start_is_refuted(model: type) -> None:
    assert any(verdict(history, model()) for history in (directed_history()[0], *sound_histories()))


@pytest.mark.compiled_only
def test_the_histories_meet_every_kind_of_call_and_failure() -> None:
    met = Counter()
    for history in (directed_history()[0], *some_histories()):
        for line in history.lines:
            met[line.op, errno.errorcode[-line.outcome] if line.outcome < 0 else "OK"] += 1
    for op in (world.BIND, world.LISTEN, world.CONNECT, world.UNCONNECT, world.CLOSE, world.TIME_WAIT, world.FIN_WAIT2,
               world.FINISH, world.SET, world.AGE):  # fmt: skip
        assert met[op, "OK"] >= 20, op
    assert met[world.CONNECT, "OK"] > 1000
    assert met[world.CONNECT, "EADDRNOTAVAIL"] > 500
    assert min(met[world.BIND, "EADDRINUSE"], met[world.LISTEN, "EADDRINUSE"]) > 50
    assert min(met[world.BIND, "EINVAL"], met[world.LISTEN, "EINVAL"], met[world.CONNECT, "EALREADY"]) > 0


@pytest.mark.compiled_only
def test_what_is_known_of_the_hidden_start_excludes_other_ports() -> None:
    searches = telling = 0
    for history in sound_histories():
        judge = Judge(history)
        judge.run()
        searches += judge.searches
        telling += judge.telling
    assert searches > 3000
    assert telling > searches // 5
