"""The live kernel judges random programs of socket calls: every answer of ours must be its answer."""

from __future__ import annotations

import pytest

from tests.kernel.calls import program, run_program
from tests.kernel.netns import in_namespace, needs_kernel
from tests.kernel.oracle import ko
from tests.kernel.sut import FourtupleSUT

pytestmark = needs_kernel

SEEDS = range(60)


def kernel_answers(seeds):
    sut = ko.KernelSUT()
    sut.start()
    x = ko.X(sut)
    return [run_program(x, program(seed)) for seed in seeds]


def our_answers(seed):
    sut = FourtupleSUT()
    sut.start()
    return run_program(ko.X(sut), program(seed))


@pytest.fixture(scope="module")
def kernel():
    return dict(zip(SEEDS, in_namespace(kernel_answers, list(SEEDS)), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_program_gets_the_kernels_answers(kernel, seed):
    ours, its = our_answers(seed), kernel[seed]
    if ours != its:  # once more: the kernel runs in real time, on a machine that may be busy
        its = in_namespace(kernel_answers, [seed])[0]
    for step, (call, theirs, answer) in enumerate(zip(program(seed), its, ours, strict=True)):
        before = "\n".join(f"{c} -> {a}" for c, a in zip(program(seed)[:step], ours, strict=False))
        assert answer == theirs, f"{before}\n{call}: the kernel says {theirs}, we {answer}"
