"""What the command line does with words it is given, and with what goes wrong."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fourtuple import __version__
from fourtuple.cli import main as module
from fourtuple.cli.main import COMMANDS, main


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    try:
        code = main(list(argv))
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"fourtuple {__version__}\n", "")


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    assert all(f"\n    {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, err = run(capsys, command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: fourtuple {command}")


def test_a_mistyped_command_is_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "conect", "x") == (2, "", "fourtuple: no command 'conect'. Did you mean 'connect'?\n")


def test_an_unknown_command_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "zzz") == (2, "", f"fourtuple: no command 'zzz'. There are: {', '.join(COMMANDS)}.\n")


def test_a_mistyped_option_is_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "connect", ":80", "--los", "syn:1")
    assert (code, out) == (2, "")
    assert err.startswith("fourtuple connect: no option '--los'. Did you mean '--loss'?\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["connect"], "the following arguments are required: HOST:PORT"),
        (["connect", "10.0.0.1"], "HOST:PORT: no port in '10.0.0.1' (expected HOST:PORT, :PORT, [v6]:PORT or a URL)"),
        (["connect", "10.0.0.1:99999"], "HOST:PORT: not a port: '99999' (expected a number 0-65535)"),
        (["connect", "10.0.0.300:80"], "HOST:PORT: not an IPv4 address: '10.0.0.300' (expected four numbers 0-255"),
        (["connect", ":80", "--fill", "150%"], "--fill: '150%' is not a percentage; say for example 50%"),
        (["connect", ":80", "--rtt", "30"], "--rtt: '30' is not a duration; say for example 30ms, 1.5s or 200us"),
        (["connect", ":80", "--range", "9-5"], "--range: '9-5': ports run from 1 to 65535, the lower one first"),
        (["connect", ":80", "--range", "x"], "--range: 'x' is not a range of ports; say for example 40000-44095"),
        (
            ["connect", ":80", "--range", "80-90"],
            "Linux refuses net.ipv4.ip_local_port_range = '80 90' (EINVAL): it may not reach below "
            "net.ipv4.ip_unprivileged_port_start = 1024",
        ),
        (["connect", ":80", "--rtt", "-5ms"], "--rtt: '-5ms' is not a duration; say for example 30ms, 1.5s or 200us"),
        (["connect", ":80", "--fill", "-5%"], "--fill: '-5%' is not a percentage; say for example 50%"),
        (["connect", ":80", "--range", "-5-10"], "--range: '-5-10' is not a range of ports"),
        (["connect", ":80", "--timeout", "86401s"], "--timeout: '86401s' is more than a day (86400s)"),
        (["connect", ":80", "--timeout", "9" * 30 + "s"], "is more than a day (86400s)"),
        (["connect", ":80", "--source", "::1"], "--source: '::1': no IPv6 on these wires yet"),
        (["connect", ":80", "--source", "[::1]:5"], "--source: '[::1]:5': no IPv6 on these wires yet"),
        (["connect", ":80", "--source", ""], "--source: not an IPv4 address: ''"),
        (["connect", ":80", "--http", "--send", "x"], "--send: not allowed with argument --http"),
        (["connect", ":80", "-v", "-q"], "-q/--quiet: not allowed with argument -v/--verbose"),
        (["connect", ":80", "--reserve", "a"], "--reserve: 'a' is not a list of ports; say for example 8080,9000-9010"),
        (["connect", ":80", "--loss", "sny:1"], "--loss: 'sny:1' is not a rule; say for example syn:1"),
        (["connect", ":80", "--source", "10.0"], "--source: not an IPv4 address: '10.0'"),
        (["connect", ":80", "--seed", "-1x"], "--seed"),
        (["connect", ":80", "--wire", "sin"], "--wire: no wire 'sin'. Did you mean 'sim'?"),
        (["connect", ":80", "more"], "one argument too many: 'more'"),
        (["--color", "blue", "connect", ":80"], "--color: invalid choice: 'blue'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    first, *rest = err.splitlines()
    assert message in first
    assert all(line.startswith(("  try:  ", "        ")) for line in rest)


def test_a_name_without_an_address_has_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "connect", "no-such-host.invalid:80")
    assert (code, out, err.count("\n")) == (68, "", 1)
    assert err.startswith("fourtuple: no-such-host.invalid: no address for this name")


def test_what_cannot_be_a_name_is_not_explained_by_codecs(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "connect", "a..b:80")
    assert (code, err) == (68, "fourtuple: a..b: no address for this name (it is not a host name)\n")


def test_ipv6_is_not_there_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "connect", "[::1]:80")[0] == 69


class Broken:
    """A command with a bug."""

    @staticmethod
    def add_arguments(parser: object) -> None:
        pass

    @staticmethod
    def run(args: object, out: object, err: object) -> int:
        raise ZeroDivisionError("of course")


def test_a_bug_is_one_line_and_a_file_with_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = importlib.import_module
    monkeypatch.setattr(
        module.importlib, "import_module", lambda name: Broken if name == "fourtuple.cli.demo" else real(name)
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, err = run(capsys, "demo")
    assert (code, out) == (1, "")
    first, second = err.splitlines()
    assert first == "fourtuple: internal error: ZeroDivisionError: of course"
    (report,) = tmp_path.iterdir()
    assert second.endswith(str(report))
    assert "Traceback" in report.read_text()
    assert "arguments: ['demo']" in report.read_text()


def test_a_bug_without_a_place_for_a_file_is_told_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def bug(argv: list[str]) -> int:
        raise ZeroDivisionError("of course")

    monkeypatch.setattr(module, "_run", bug)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    code, out, err = run(capsys, "demo")
    assert (code, out) == (1, "")
    assert "everything about it:\n" in err
    assert "Traceback" in err


def test_ctrl_c_has_its_exit_code(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_run", interrupt)
    assert run(capsys, "demo") == (130, "", "")


@pytest.mark.compiled_only
def test_the_version_loads_neither_the_engine_nor_rich() -> None:
    """Start-up time is mostly imports: what is not imported costs nothing."""
    script = (
        "import sys; from fourtuple.cli.main import main; main(['--version']); "
        "print([m for m in ('fourtuple.host', 'fourtuple.tcp', 'rich', 'asyncio', 'socket') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"fourtuple {__version__}\n[]\n"


# ------------------------------------------------------------------------------------------------ streams

_SIM = ["connect", ":80", "--wire", "sim"]


def start(argv: list[str], redirect: str = "", **environ: str) -> subprocess.Popen[bytes]:
    """The command line in a process of its own, buffered as Python does by default, with a shell's redirections."""
    script = f"import sys; from fourtuple.cli.main import main; sys.exit(main({argv!r}))"
    settings = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | environ
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirect}', sys.executable, script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=settings)


@pytest.mark.parametrize("argv", [["--version"], ["connect", "--help"], _SIM, [*_SIM, "--json"]])
def test_output_into_a_closed_pipe_is_no_error(argv: list[str]) -> None:
    process = start(argv)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate()
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize("argv", [["--version"], ["connect", "--help"], _SIM])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_may_be_closed_from_the_start(argv: list[str], closed: str) -> None:
    process = start(argv, closed)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("argv", [["--version"], ["--help"], [], ["connect", "--help"], _SIM, [*_SIM, "--json"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_line(argv: list[str], unbuffered: str) -> None:
    process = start(argv, ">/dev/full", PYTHONUNBUFFERED=unbuffered)
    _, err = process.communicate()
    assert (process.returncode, err) == (29, b"fourtuple: cannot write the answer: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_complaint_that_cannot_be_written_keeps_its_exit_code() -> None:
    process = start(["nope"], "2>/dev/full")
    process.communicate()
    assert process.returncode == 2


@pytest.mark.parametrize("options", [[], ["--json"], ["--fill", "100%"], ["--loss", "syn:1", "-v"]])
def test_a_stream_without_utf8_gets_ascii(options: list[str]) -> None:
    process = start([*_SIM, *options], PYTHONIOENCODING="ascii")
    out, err = process.communicate()
    assert (process.returncode in (0, 20), err) == (True, b"")
    assert out.isascii()
    if options == ["--json"]:
        assert "→" in json.loads(out)["steps"][1]["text"]


def test_help_is_coloured_for_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for force, expected in (("", False), ("1", True)):
        stream = io.StringIO()
        monkeypatch.setenv("FORCE_COLOR", force)
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit):
            main(["connect", "--help"])
        assert ("\x1b[" in stream.getvalue()) is expected
