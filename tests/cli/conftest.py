"""Fixtures of the command line's tests."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def tun() -> str:
    """The name of the real wire, if this machine has it."""
    from fourtuple.shell.wires import Setup, WireUnavailable, open_tun

    try:
        open_tun(Setup()).close()
    except WireUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no TUN here: {error.strerror}")
    return "tun"
