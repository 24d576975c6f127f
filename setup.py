"""Compiles the hot modules; everything else about the package is in pyproject.toml.

A hot module is an ordinary `x.py` with an `x.pxd` beside it that gives it its C types. The list of modules is read
off the `.pxd` files: one that belongs to no module stops the build, because Cython would ignore it and the module
would run uncompiled, a hundred times slower, without a word.

    python setup.py build_ext --inplace                 the .so files beside the .py files in src/ (what `make` does)
    FOURTUPLE_BUILD=checked python setup.py build_ext   build/checked/fourtuple: a copy, inet/, live/ and wire/ checked
    FOURTUPLE_BUILD=none pip install -e .               installs without compiling

In place the loops of benchmarks/, which is no part of the package, are compiled too.

Only what changed is compiled again; a change of this file compiles everything again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The one module written in Cython alone: system calls on raw buffers.
PYX = "fourtuple.phy._io"
BENCHMARKS = Path("benchmarks")
# Helpers that Cython would otherwise repeat in each module (memoryviews, exceptions, imports).
SHARED = "fourtuple._cyutility"

VARIANT = os.environ.get("FOURTUPLE_BUILD", "")
CHECKED_ROOT = Path("build/checked")
# Where in the checked build the checks are on: the code that indexes columns and packets by hand.
CHECKED_PACKAGES = ("fourtuple.inet.", "fourtuple.wire.", "fourtuple.live.")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "annotation_typing": False,
}
# wraparound stays off: -1 is then out of bounds, not the last row. overflowcheck stays off: hashes and sequence
# numbers wrap.
CHECKED_DIRECTIVES = DIRECTIVES | {
    "boundscheck": True,
    "initializedcheck": True,
    "cdivision": False,
    "show_performance_hints": False,
}

FLAGS = ["-O2", "-g0", "-Werror=shift-count-overflow", "-Wno-unused-function", "-Wno-sign-compare"]
# What boundscheck does not see: 1 << n with n > 31, signed overflow. Either ends the run with SIGILL (illegal
# instruction), and pytest says in which test.
SANITIZE = ["-fsanitize=shift-exponent,signed-integer-overflow", "-fsanitize-undefined-trap-on-error", "-fno-wrapv"]


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts)


def compiled_modules(root: Path) -> dict[str, Path]:
    """Module name -> source file, largest first: the long compilations must not start last.

    Raises SystemExit for a `.pxd` without a module, and for a second `.pyx`.
    """
    modules = {}
    for pxd in root.rglob("*.pxd"):
        source = pxd.with_suffix(".py")
        if pxd.name == "__init__.pxd" or pxd.with_suffix(".pyx").exists():
            continue
        if not source.exists():
            raise SystemExit(f"setup.py: {pxd} types no module: there is no {source.name} beside it (renamed?)")
        modules[module_name(pxd, root)] = source
    for pyx in root.rglob("*.pyx"):
        if module_name(pyx, root) != PYX:
            raise SystemExit(f"setup.py: {pyx}: write {pyx.stem}.py and {pyx.stem}.pxd; only {PYX} is a .pyx")
        modules[PYX] = pyx
    return dict(sorted(modules.items(), key=lambda item: (-item[1].stat().st_size, item[0])))


def extensions(root: Path) -> list[Extension]:
    modules = compiled_modules(root)
    if not modules:
        return []
    shared = Extension(SHARED, [str(root / SHARED.replace(".", "/")) + ".c"], extra_compile_args=FLAGS)
    return [Extension(name, [str(source)], extra_compile_args=FLAGS) for name, source in modules.items()] + [shared]


def benchmark_extensions() -> list[Extension]:
    modules = {f"{BENCHMARKS}.{name}": source for name, source in compiled_modules(BENCHMARKS).items()}
    return [Extension(name, [str(source)], extra_compile_args=FLAGS) for name, source in modules.items()]


def cores() -> int:
    return len(os.sched_getaffinity(0))


def translate(modules: list[Extension], root: Path, c_dir: Path, directives: dict[str, object]) -> None:
    """Have Cython write the C files of these extensions under c_dir, and make those their sources."""
    from Cython.Build import cythonize
    from Cython.Compiler.Errors import CompileError

    # Cython sees which sources changed, but not that its directives did, here.
    written = Path("setup.py").stat().st_mtime
    c_files = [c_dir / Path(module.sources[0]).with_suffix(".c") for module in modules]
    stale = any(c.exists() and c.stat().st_mtime < written for c in c_files)
    try:
        done = cythonize(
            modules,
            nthreads=cores(),
            force=stale,
            quiet=True,
            build_dir=str(c_dir),
            include_path=[str(root)],
            compiler_directives=directives,
            shared_utility_qualified_name=SHARED,
        )
    except CompileError as error:
        raise SystemExit(f"setup.py: Cython refuses {error}") from None
    sources = {module.name: module.sources for module in done}
    for module in modules:
        module.sources = sources[module.name]
        module.depends = ["setup.py"]  # nor does the C compiler see a change of its flags


def mirror(source: Path, target: Path) -> None:
    """Copy what is new in the sources, remove what is gone; times are kept, so that only changes are compiled."""
    kinds = (".py", ".pxd", ".pyx", ".pyi", ".typed")
    wanted = {path.relative_to(source) for path in source.rglob("*") if path.suffix in kinds}
    for path in wanted:
        new, old = source / path, target / path
        if not old.exists() or old.stat().st_mtime != new.stat().st_mtime:
            old.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(new, old)
    for old in target.rglob("*"):
        if old.suffix in kinds and old.relative_to(target) not in wanted:
            old.unlink()


def translate_checked(modules: list[Extension]) -> None:
    """Checks in the hot packages; the others are compiled too: only a compiled module can use a compiled class."""
    hot = [module for module in modules if module.name.startswith(CHECKED_PACKAGES)]
    rest = [module for module in modules if module not in hot]
    for module in hot:
        module.extra_compile_args = [*FLAGS, "-O1", *SANITIZE]
    for module in rest:
        module.extra_compile_args = [*FLAGS, "-O1"]
    translate(hot, CHECKED_ROOT, Path("build/c-checked"), CHECKED_DIRECTIVES)
    translate(rest, CHECKED_ROOT, Path("build/c-checked"), DIRECTIVES)


class BuildExt(build_ext):
    """Compiles on all cores, and removes the .so of a module no longer compiled, which would still be imported."""

    def finalize_options(self) -> None:
        if self.inplace:
            self.distribution.ext_modules += benchmark_extensions()
            self.distribution.package_dir[str(BENCHMARKS)] = str(BENCHMARKS)
        super().finalize_options()
        self.parallel = self.parallel or cores()
        if VARIANT == "checked":
            self.build_lib, self.build_temp = str(CHECKED_ROOT), "build/temp-checked"

    def run(self) -> None:
        if VARIANT == "checked":
            translate_checked(self.extensions)
        else:
            translate(self.extensions, Path("src"), Path("build/c"), DIRECTIVES)
        super().run()
        if self.inplace:
            self.remove_orphans()

    def remove_orphans(self) -> None:
        wanted = {Path(self.get_ext_fullpath(module.name)).resolve() for module in self.extensions}
        for so in [*Path("src/fourtuple").rglob("*.so"), *BENCHMARKS.rglob("*.so")]:
            if so.resolve() not in wanted:
                so.unlink()


def main() -> None:
    os.chdir(Path(__file__).resolve().parent)
    modules: list[Extension] = []
    if VARIANT == "checked":
        mirror(Path("src/fourtuple"), CHECKED_ROOT / "fourtuple")
        modules = extensions(CHECKED_ROOT)
    elif VARIANT == "":
        modules = extensions(Path("src"))
    elif VARIANT != "none":
        raise SystemExit(f"setup.py: FOURTUPLE_BUILD={VARIANT}: known are checked and none")
    setup(ext_modules=modules, cmdclass={"build_ext": BuildExt})


if __name__ == "__main__":
    main()
