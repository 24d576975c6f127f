"""A test of the test: each planted fault in a port rule makes the judge of test_port_order_live.py fail.

Each fault is one change to the source of the engine, in a copy that runs uncompiled.  All copies judge the same
directed history, which has what refutes each of them (port_judge/episodes.py); the copy without a fault finds it
possible.  Where chance was against a fault, the kernel runs that history again, twice at most.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kernel.netns import needs_kernel
from tests.kernel.port_judge.mutations import MUTATIONS, Mutation, copy_package, judge, plant
from tests.kernel.port_judge.session import directed_history, recorded, verdict
from tests.kernel.port_judge.world import DIRECTED, History

# The set-up of the first test judges all copies: 20 s, and minutes where others have the CPUs.
pytestmark = [needs_kernel, pytest.mark.compiled_only, pytest.mark.timeout(600)]

UNCHANGED = Mutation("unchanged", "", ())
MORE_HISTORIES = 2


def _copies(root: Path) -> dict[str, Path]:
    """A copy for each fault, by its name."""
    plain = copy_package(root / "unchanged")
    copies = {UNCHANGED.name: plain}
    for k, mutation in enumerate(MUTATIONS):
        copies[mutation.name] = root / str(k) / plain.name
        shutil.copytree(plain, copies[mutation.name])
        plant(copies[mutation.name], mutation)
    return copies


def _judged(copies: dict[str, Path], names: Sequence[str], history: History, path: Path) -> dict[str, str]:
    """What the copies of these names say of a history: two processes at a time."""
    history.save(path)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(lambda name: judge(copies[name], [path]), names), strict=True))


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What each copy says, by name of the fault."""
    root = tmp_path_factory.mktemp("mutants")
    history, why = directed_history()
    assert why == ""
    copies = _copies(root)
    found = _judged(copies, list(copies), history, root / "history.json")
    for _ in range(MORE_HISTORIES):
        missed = [mutation.name for mutation in MUTATIONS if not found[mutation.name]]
        if missed:
            history = recorded(DIRECTED)
            found |= _judged(copies, missed, history, root / "history.json") if not verdict(history) else {}
    yield found
    shutil.rmtree(root, ignore_errors=True)


def test_the_copy_without_a_fault_finds_the_history_possible(verdicts: dict[str, str]) -> None:
    assert verdicts[UNCHANGED.name] == ""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_planted_fault_is_found(verdicts: dict[str, str], mutation: Mutation) -> None:
    assert verdicts[mutation.name] != "", "judged possible in 3 recordings of the directed history"


def test_each_fault_changes_something_that_stands_in_the_source_once(tmp_path: Path) -> None:
    copy = copy_package(tmp_path)
    for mutation in MUTATIONS:
        text = (copy / mutation.file).read_text()
        assert all(text.count(old) == 1 for old, _ in mutation.edits), mutation.name
