"""The public names are where they are promised, and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fourtuple


@pytest.mark.parametrize("name", fourtuple.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(fourtuple, name) is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'connect_all'"):
        fourtuple.connect_all  # noqa: B018


def test_importing_the_package_imports_no_engine() -> None:
    program = "import sys, fourtuple; print(sorted(m for m in sys.modules if m.startswith('fourtuple.')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
