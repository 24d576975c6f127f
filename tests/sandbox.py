"""Runs a command as somebody who may do less: user nobody, another /dev/net/tun, seccomp, no user namespaces.

The command gets a mount namespace of its own, so nothing of this machine changes and nothing is left behind.  Where
this checkout or this Python lies in a directory that nobody may enter (as /root), a tmpfs is put over that directory
there, with only the two in it, at their own paths; if the files of src/ may not be read either (umask 077), it holds a
copy.

This file is also the program that does it: `python sandbox.py OPTIONS COMMAND...`, OPTIONS being a Sandbox as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

NOBODY = 65534
PYTHON = os.path.realpath(sys.executable)
"""The interpreter behind the virtual environment: all that the command line needs is in src/."""
# linux/mount.h, linux/sched.h, linux/prctl.h
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_SECCOMP_RET_ALLOW, _SECCOMP_RET_ERRNO, _EPERM = 0x7FFF0000, 0x00050000, 1
_CALLS = {"x86_64": {"unshare": 272, "socket": 41}, "aarch64": {"unshare": 97, "socket": 198}}
_NODES = {"ENXIO": os.makedev(241, 7), "ENODEV": os.makedev(10, 254)}
"""A major number that nobody has, and a minor one of the misc devices that nobody has."""


@dataclass(frozen=True)
class Sandbox:
    """What the command finds."""

    uid: int = NOBODY
    node: str = "0666"
    """/dev/net/tun: its mode, or `missing`, or the errno of a device number without a driver."""
    no_new_privs: bool = False
    denied: str = ""
    """A system call that a seccomp filter answers with EPERM, `socket:17` with that first argument."""
    user_limits: tuple[tuple[str, int], ...] = ()
    """Sysctls user.NAME in a user namespace of its own."""
    read_only_sysctls: bool = False
    """/proc/sys as in a container."""


def run(sandbox: Sandbox, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """The command's exit code and output."""
    return subprocess.run(_line(sandbox, command), env=_environment(), capture_output=True, text=True, timeout=timeout)


def start(sandbox: Sandbox, *command: str) -> subprocess.Popen[str]:
    """The command running: its pid is its own, as it replaces this program."""
    return subprocess.Popen(
        _line(sandbox, command), env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def fourtuple(sandbox: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line of this checkout."""
    return run(sandbox, PYTHON, "-m", "fourtuple.cli.main", *arguments)


def _line(sandbox: Sandbox, command: tuple[str, ...]) -> list[str]:
    return [sys.executable, __file__, json.dumps({**asdict(sandbox), "src": str(_src())}), *command]


def _src() -> Path:
    import fourtuple

    return Path(str(fourtuple.__file__)).parents[1]


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return {**kept, "PYTHONPATH": str(_src()), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "COLUMNS": "120"}


# ------------------------------------------------------------------------------------------ inside, as root

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


def _mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(result, f"mount {source} on {target}")


def _make_reachable(trees: list[str]) -> None:
    """Each tree at its own path, with every directory above it open to all."""
    held = [(tree, os.open(tree, os.O_PATH | os.O_DIRECTORY)) for tree in trees]
    closed = {above for tree in trees if (above := _closed_above(tree))}
    for directory in closed:
        _mount("tmpfs", directory, "tmpfs", 0, "mode=755")
    for tree, fd in held:
        source = f"/proc/self/fd/{fd}"
        if _is_readable(source):
            if any(tree.startswith(directory) for directory in closed):
                os.makedirs(tree, 0o755)
                _mount(source, tree, "", _MS_BIND | _MS_REC)
        else:
            _copy(source, tree, fresh=any(tree.startswith(directory) for directory in closed))
        os.close(fd)


def _closed_above(tree: str) -> str:
    """The topmost directory above `tree`, or itself, that others may not enter; "" for none."""
    above = [*reversed(Path(tree).parents)]
    return next((str(path) for path in above if not path.stat().st_mode & stat.S_IXOTH), "")


def _is_readable(tree: str) -> bool:
    """Whether others may read it all; of a whole Python only the top is looked at."""
    if not os.stat(tree).st_mode & stat.S_IXOTH:
        return False
    entries = os.walk(tree) if os.path.isdir(tree + "/fourtuple") else ()
    for directory, names, files in entries:
        needed = [(name, stat.S_IXOTH) for name in names] + [(name, stat.S_IROTH) for name in files]
        if not all(os.lstat(os.path.join(directory, name)).st_mode & bit for name, bit in needed):
            return False
    return True


def _copy(source: str, target: str, fresh: bool) -> None:
    """A copy with modes of its own, in a tmpfs."""
    if fresh:
        os.makedirs(target, 0o755)
    hidden = os.open(source, os.O_PATH | os.O_DIRECTORY)
    _mount("tmpfs", target, "tmpfs", 0, "mode=755")
    for directory, names, files in os.walk(f"/proc/self/fd/{hidden}"):
        below = os.path.join(target, os.path.relpath(directory, f"/proc/self/fd/{hidden}"))
        for name in names:
            os.mkdir(os.path.join(below, name), 0o755)
        for name in files:
            shutil.copyfile(os.path.join(directory, name), os.path.join(below, name))
            os.chmod(os.path.join(below, name), 0o644)
    os.close(hidden)


def _put_node(node: str) -> None:
    """/dev/net with nothing but the tun that was asked for."""
    _mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=755")
    if node in _NODES:
        os.mknod("/dev/net/tun", stat.S_IFCHR | 0o666, _NODES[node])
        os.chmod("/dev/net/tun", 0o666)
    elif node != "missing":
        os.mknod("/dev/net/tun", stat.S_IFCHR, os.makedev(10, 200))
        os.chmod("/dev/net/tun", int(node, 8))


@contextmanager
def _mapped_by_parent() -> Iterator[None]:
    """Enter a user namespace in here: a child that stayed outside gives it all of our users."""
    reading, writing = os.pipe()
    me = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{me}/{name}").write_text("0 0 65536")
        os._exit(0)
    yield
    os.close(writing)
    if os.waitpid(child, 0)[1]:
        raise OSError("uid_map could not be written")


def _enter_user_namespace(limits: list[tuple[str, int]]) -> None:
    with _mapped_by_parent():
        _check(_libc.unshare(_CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")
    for name, value in limits:
        Path(f"/proc/sys/user/{name}").write_text(str(value))


def _filter(denied: str) -> None:
    """A classic BPF program (seccomp(2)): EPERM for one system call, perhaps only with one first argument."""
    name, _, argument = denied.partition(":")
    number = _CALLS[os.uname().machine][name]
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    program = [(load, 0, 0, 0), (equal, 0, 3 if argument else 1, number)]  # seccomp_data.nr
    if argument:
        program += [(load, 0, 0, 16), (equal, 0, 1, int(argument))]  # seccomp_data.args[0], its lower half
    program += [(give, 0, 0, _SECCOMP_RET_ERRNO | _EPERM), (give, 0, 0, _SECCOMP_RET_ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    prog = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, prog), "PR_SET_SECCOMP")


def main(options: str, command: list[str]) -> None:
    """Become what was asked for, then the command."""
    asked = json.loads(options)
    _check(_libc.unshare(_CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    _make_reachable([asked["src"], sys.base_prefix])
    _put_node(asked["node"])
    if asked["read_only_sysctls"]:
        _mount("/proc/sys", "/proc/sys", "", _MS_BIND)
        _mount("none", "/proc/sys", "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY)
    if asked["user_limits"]:
        _enter_user_namespace(asked["user_limits"])
    os.chdir("/")
    if asked["uid"]:
        os.setgroups([])
        os.setresgid(asked["uid"], asked["uid"], asked["uid"])
        os.setresuid(asked["uid"], asked["uid"], asked["uid"])
    if asked["no_new_privs"] or asked["denied"]:
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    if asked["denied"]:
        _filter(asked["denied"])
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
