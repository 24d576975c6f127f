"""Which build the suite runs against, and what every test may rely on.

Three builds, one suite:

- compiled (the default): the modules that have a `.pxd` come from their .so.
- pure (`--pure`, or FOURTUPLE_PURE=1): every module comes from its .py. Coverage is read off this run.
- checked (`PYTHONPATH=build/checked`, as `make test` does it): a copy with checks in inet/ and wire/.

The pure finder is installed when this file is imported, which is before pytest imports any test module.
A plugin that pytest loads earlier still must not have imported a compiled module: that stops the run, as half of
each build in one process proves nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# Written in Cython alone, so there is nothing else to load: the one .pyx, and the helper code Cython shares.
COMPILED_ONLY = frozenset({"fourtuple.phy._io", "fourtuple._cyutility"})


class PureFinder:
    """Finds the modules of fourtuple by their .py, blind to the .so beside it."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith("fourtuple.") or name in COMPILED_ONLY:
            return None
        specs = (cls._finder(entry).find_spec(name) for entry in path or ())
        return next((spec for spec in specs if spec is not None), None)

    @staticmethod
    @cache
    def _finder(entry: str) -> FileFinder:
        return FileFinder(entry, (SourceFileLoader, SOURCE_SUFFIXES))


def _pure_asked_for() -> bool:
    return "--pure" in sys.argv or os.environ.get("FOURTUPLE_PURE", "") not in ("", "0")


def _refuse_compiled_modules_already_imported() -> None:
    suffixes = tuple(EXTENSION_SUFFIXES)
    early = [
        name
        for name, module in sys.modules.items()
        if name.startswith("fourtuple.")
        and name not in COMPILED_ONLY
        and (getattr(module, "__file__", None) or "").endswith(suffixes)
    ]
    if early:
        raise pytest.UsageError(f"--pure: already imported compiled, before the tests: {', '.join(sorted(early))}")


PURE = _pure_asked_for()
if PURE:
    _refuse_compiled_modules_already_imported()
    os.environ["FOURTUPLE_PURE"] = "1"  # for pytest runs started by a test
    sys.meta_path.insert(0, PureFinder)


def variant() -> str:
    """The build this run tests: compiled, pure or checked."""
    if PURE:
        return "pure"
    spec = find_spec("fourtuple")
    home = Path(spec.origin if spec and spec.origin else "")
    return "checked" if home.parent.parent.name == "checked" else "compiled"


# No deadline: no test is timed, and the uncompiled engine is slow. Fewer examples there, for the same reason.
settings.register_profile("compiled", deadline=None)
settings.register_profile("checked", deadline=None)
settings.register_profile("pure", deadline=None, max_examples=30)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pure", action="store_true", help="load every fourtuple module from its .py, not its .so")


def pytest_configure(config: pytest.Config) -> None:
    # A chosen profile wins (--hypothesis-profile); in CI the same examples are drawn in every run.
    if not config.getoption("--hypothesis-profile", default=None):
        name = variant()
        settings.register_profile(name, settings.get_profile(name), derandomize=bool(os.environ.get("CI")))
        settings.load_profile(name)


def pytest_report_header(config: pytest.Config) -> str:
    spec = find_spec("fourtuple")
    return f"fourtuple: {variant()}, from {Path(spec.origin).parent if spec and spec.origin else 'nowhere'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The pure run leaves out what is marked compiled_only (deselected and counted, not skipped)."""
    if not PURE:
        return
    left_out = [item for item in items if item.get_closest_marker("compiled_only")]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def build() -> str:
    """The build under test: "compiled", "pure" or "checked"."""
    return variant()
