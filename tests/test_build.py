"""The build compiles what it says it compiles, and each run of the suite tests the build it was started for."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load_setup() -> ModuleType:
    """setup.py as a module: it acts only when it is the program."""
    spec = importlib.util.spec_from_file_location("fourtuple_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SETUP = load_setup()
COMPILED = SETUP.compiled_modules(ROOT / "src")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with one hot module, inet/ports."""
    package = tmp_path / "fourtuple" / "inet"
    package.mkdir(parents=True)
    for name in ("__init__.py", "ports.py", "ports.pxd", "plain.py"):
        (package / name).touch()
    return tmp_path


@pytest.mark.parametrize("name", sorted(COMPILED))
def test_a_module_with_a_pxd_comes_from_the_build_under_test(name: str, build: str) -> None:
    if name == SETUP.PYX:
        build = "compiled" if build == "pure" else build
    file = importlib.import_module(name).__file__
    assert file is not None
    path = Path(file)
    assert path.suffix == (".py" if build == "pure" else ".so")
    assert path.is_relative_to(ROOT / ("build/checked" if build == "checked" else "src"))


def test_every_so_in_the_tree_belongs_to_a_module_that_is_compiled() -> None:
    found = {SETUP.module_name(so, ROOT / "src").partition(".cpython-")[0] for so in (ROOT / "src").rglob("*.so")}
    assert found <= {*COMPILED, SETUP.SHARED}


def test_the_pure_run_knows_the_modules_that_have_no_py() -> None:
    from tests.conftest import COMPILED_ONLY

    assert {SETUP.PYX, SETUP.SHARED} == COMPILED_ONLY


def test_the_modules_are_those_with_a_pxd(tree: Path) -> None:
    assert SETUP.compiled_modules(tree) == {"fourtuple.inet.ports": tree / "fourtuple/inet/ports.py"}


def test_the_largest_module_is_compiled_first(tree: Path) -> None:
    (tree / "fourtuple/inet/plain.pxd").touch()
    (tree / "fourtuple/inet/plain.py").write_text("x = 1\n")
    assert list(SETUP.compiled_modules(tree)) == ["fourtuple.inet.plain", "fourtuple.inet.ports"]


def test_a_pxd_that_types_no_module_stops_the_build(tree: Path) -> None:
    os.rename(tree / "fourtuple/inet/ports.py", tree / "fourtuple/inet/port.py")
    with pytest.raises(SystemExit, match=r"ports\.pxd types no module: there is no ports\.py"):
        SETUP.compiled_modules(tree)


def test_the_pxd_of_a_package_stands_for_no_module(tree: Path) -> None:
    (tree / "fourtuple/inet/__init__.pxd").touch()
    assert list(SETUP.compiled_modules(tree)) == ["fourtuple.inet.ports"]


def test_all_that_reads_bytes_or_columns_by_hand_is_checked() -> None:
    by_hand = [name for name in COMPILED if name.split(".")[1] in ("inet", "live", "wire")]
    assert len(by_hand) >= 20
    assert all(name.startswith(SETUP.CHECKED_PACKAGES) for name in by_hand)
    assert "tests/live" in (ROOT / "Makefile").read_text().partition("CHECKED_TESTS =")[2].partition("\n")[0]


def test_a_second_pyx_stops_the_build(tree: Path) -> None:
    (tree / "fourtuple/inet/fast.pyx").touch()
    with pytest.raises(SystemExit, match=r"write fast\.py and fast\.pxd"):
        SETUP.compiled_modules(tree)


def test_the_checked_copy_follows_the_sources(tree: Path, tmp_path: Path) -> None:
    source, target = tree / "fourtuple", tmp_path / "copy"
    SETUP.mirror(source, target)
    (source / "inet/plain.py").unlink()
    (source / "inet/ports.py").write_text("x = 2\n")
    SETUP.mirror(source, target)
    assert not (target / "inet/plain.py").exists()
    assert (target / "inet/ports.py").read_text() == "x = 2\n"
    assert (target / "inet/ports.py").stat().st_mtime == (source / "inet/ports.py").stat().st_mtime
