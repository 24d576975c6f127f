"""`fourtuple map` from end to end: against ports that the test itself took, and as text, page, picture and JSON."""

from __future__ import annotations

import errno
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from fourtuple.cli.main import main
from fourtuple.doctor.port_states import DOUBTFUL, LIKELY_BOUND, OPEN, PortStates, bucket_states, port_states
from fourtuple.live.netns import Netns
from fourtuple.live.owners import Owner, Owners
from fourtuple.live.rows import Socket
from fourtuple.live.snapshot import Snapshot, write
from fourtuple.live.socket_table import SocketTable
from fourtuple.live.system import System
from fourtuple.sysctl import Sysctls
from tests.cli.golden import check_golden
from tests.cli.htmlpage import Element, read_page
from tests.cli.schema import check, load
from tests.doctor.sick import LOW, OTHER_SOURCE, PORTS, SOURCE, A, B, C, Sick
from tests.live.space import needs_root

HERE, THERE = "10.0.0.1", "192.0.2.9"


@pytest.fixture
def sick() -> Iterator[Sick]:
    with Sick() as made:
        yield made


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What it prints; it succeeds and complains of nothing."""
    code = main(["map", *words])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return captured.out


def report(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(shown(capsys, "--json", *words))
    check(load("map-1"), document)
    assert len(document["ports"]) == document["high"] - document["low"] + 1
    for kind in document["kinds"]:
        assert document["ports"].count(kind["letter"]) == kind["first"] + kind["second"]
    return document


def ports_of(document: dict[str, Any], letter: str) -> set[int]:
    return {port for port, each in enumerate(document["ports"], document["low"]) if each == letter}


# ------------------------------------------------------------------------------------------ against the kernel


@needs_root
def test_every_port_is_what_the_test_made_of_it(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.sysctl("net.ipv4.ip_local_reserved_ports", "40100-40109")
    sick.listen(SOURCE, 40_011)
    sick.client(bind=(SOURCE, 40_013))
    taken = set(sick.hold(150, A))
    found = report(capsys, "-N", sick.path, "203.0.113.1:443")
    assert ports_of(found, "#") == taken
    assert ports_of(found, "L") == {40_011}
    assert ports_of(found, "B") == {40_013}
    assert ports_of(found, "R") == set(range(40_100, 40_110))
    assert len(ports_of(found, ".")) == PORTS - 150 - 1 - 1 - 10
    assert sick.succeeding(A) == (len(ports_of(found, ".")), "EADDRNOTAVAIL")


@needs_root
def test_connect_is_given_exactly_the_ports_that_are_marked_as_open(sick: Sick) -> None:
    """The kernel is asked about each port on its own: IP_LOCAL_PORT_RANGE leaves it no other."""
    sick.sysctl("net.ipv4.ip_local_reserved_ports", "40100-40109")
    sick.listen(SOURCE, 40_011)
    sick.hold(90, A)
    sick.hold(70, B)
    sick.hold(40, C, bind=(SOURCE, 0))
    state = sick.state()
    states = port_states(state, state.predict(SOURCE, *B))
    assert {DOUBTFUL, LIKELY_BOUND} < set(states.kinds)  # those that are inferred are inferred rightly here
    for port, kind in enumerate(states.kinds, LOW):
        code = sick.dial(B, own_range=(port, port))
        expected = errno.EINPROGRESS if kind in OPEN else errno.EADDRNOTAVAIL
        assert (port, kind, code) == (port, kind, expected)


@needs_root
def test_time_waits_and_accepted_connections_are_told_apart(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.time_waits(5, (OTHER_SOURCE, 9_000))
    listener = sick.listen(SOURCE, 40_021)
    sick.pair(listener)
    listener.close()
    listener = sick.listen(SOURCE, 40_023)
    sick.pair(listener)
    found = report(capsys, "-N", sick.path, f"{OTHER_SOURCE}:9000")
    assert len(ports_of(found, "T")) == 5
    assert found["destination"]["sockets"] == 5
    buckets = report(capsys, "-N", sick.path, "--buckets")
    assert ports_of(buckets, "L") == {40_023}
    assert ports_of(buckets, "T") == ports_of(found, "T")


@needs_root
def test_the_counts_are_those_of_the_prediction(sick: Sick) -> None:
    sick.sysctl("net.ipv4.ip_local_reserved_ports", "40100-40109")
    sick.listen(SOURCE, 40_011)
    sick.hold(220, A)
    sick.hold(30, C, bind=(SOURCE, 0))
    state = sick.state()
    for p in (state.predict(SOURCE, *A), state.predict(SOURCE, *B), state.predict(SOURCE, *C)):
        states = port_states(state, p)
        number = {kind: sum(states.count(kind)) for kind in set(states.kinds)}
        assert sum(n for kind, n in number.items() if kind in OPEN) == p.free.likely
        assert number.get("used", 0) + number.get("time_wait", 0) == p.used_in_range_ports
        assert number.get(DOUBTFUL, 0) == p.doubtful_ports
        if p.destination != C[0]:  # whose own ports are those in use
            assert number.get(LIKELY_BOUND, 0) == p.shut_likely_ports == 30
        assert number.get("reserved", 0) == p.reserved_ports


@needs_root
def test_without_a_destination_it_is_the_fullest_and_says_so(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(20, B)
    sick.hold(90, A)
    first, second, *_ = shown(capsys, "-N", sick.path).splitlines()
    assert first == "10.77.0.1 → 203.0.113.1:443   90 of 400 ports taken (22 %)"
    assert second.startswith("the fullest of 2 destinations")


@needs_root
def test_an_address_or_a_port_alone_means_all_that_match(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(30, A)
    sick.hold(20, A, bind=(OTHER_SOURCE, 0), no_port=True)
    sick.hold(40, C)
    for word in ("203.0.113.1", ":443"):
        found = report(capsys, "-N", sick.path, word)
        assert (found["destination"]["src"], found["destination"]["sockets"]) == (SOURCE, 30)
        assert [other["src"] for other in found["others"]] == [OTHER_SOURCE]
    assert "also            10.77.0.2 → 203.0.113.1:443 5 %" in shown(capsys, "-N", sick.path, "203.0.113.1")


@needs_root
def test_ipv6_has_its_own_map_and_the_family_may_be_asked_for(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.ip("-6 neigh add 2001:db8:77::2 lladdr 02:00:00:00:00:02 dev hole0")
    six = set(sick.hold(30, ("2001:db8:77::2", 443), family=socket.AF_INET6))
    four = set(sick.hold(40, A))
    assert ports_of(report(capsys, "-N", sick.path, "-6"), "#") == six
    assert ports_of(report(capsys, "-N", sick.path, "-4"), "#") == four
    for word in ("2001:db8:77::2", "[2001:db8:77::2]:443"):
        found = report(capsys, "-N", sick.path, word)
        assert (ports_of(found, "#"), found["destination"]["src"]) == (six, "2001:db8:77::1")


@needs_root
def test_full_is_eaddrnotavail_and_still_exit_0(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(PORTS, A)
    out = shown(capsys, "-N", sick.path, "203.0.113.1:443")
    assert "EADDRNOTAVAIL: every port is passed over" in out
    assert "100 % taken" in out


@needs_root
def test_where_nobody_is_connected_one_line_tells_what_bind_and_listen_do(
    sick: Sick, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "132")
    assert shown(capsys, "-N", sick.path).replace("\n", " ") == (
        f"nobody is connected anywhere in netns {sick.path}; 400 of 400 ports free; bind() and listen() hold none "
        "of them "
    )
    sick.listen(SOURCE, 40_011)
    sick.client(bind=(SOURCE, 40_013))
    sick.sysctl("net.ipv4.ip_local_reserved_ports", "40100-40109")
    assert shown(capsys, "-N", sick.path, "203.0.113.1:443").replace("\n", " ") == (
        f"203.0.113.1:443: nobody is connected to it in netns {sick.path}; 388 of 400 ports free, 1 held by bind(), "
        "1 by listeners, 10 reserved "
    )
    assert report(capsys, "-N", sick.path, "203.0.113.1:443")["destination"]["free"]["likely"] == 388


@needs_root
def test_with_owners_it_says_who(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.listen(SOURCE, 40_011)
    sick.hold(3, A)
    out = shown(capsys, "-N", sick.path, "-p")
    assert re.search(r"  held by +\S.*\[\d+] 3 sockets\n", out)
    assert re.search(r"  listeners +40011 \S.*\[\d+]\n", out)


@needs_root
def test_an_odd_range_is_walked_odd_ports_first(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.range(40_001, 40_010)
    taken = sick.hold(3, A)
    assert all(port & 1 for port in taken)
    found = report(capsys, "-N", sick.path)
    assert (found["first_parity"], ports_of(found, "#")) == ("odd", set(taken))
    assert [kind["first"] for kind in found["kinds"] if kind["kind"] == "used"] == [3]
    assert "odd, tried first" in shown(capsys, "-N", sick.path)


@needs_root
def test_a_range_of_one_port(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.range(40_001, 40_001)
    sick.hold(1, A)
    assert report(capsys, "-N", sick.path)["ports"] == "#"
    assert "100 % taken" in shown(capsys, "-N", sick.path)


# ------------------------------------------------------------------------------------------ of a file, as text


def made_up(low: int = 32768, high: int = 60999, even: int = 9_000, odd: int = 700) -> Snapshot:
    """A machine with so many connections to THERE, and one port of nearly each kind."""
    rows = [Socket(2, "ESTABLISHED", HERE, low + 2 * i, THERE, 443, flags=4, inode=7) for i in range(even)]
    rows += [Socket(2, "ESTABLISHED", HERE, low + 1 + 6 * i, THERE, 443, flags=4, inode=7) for i in range(odd)]
    rows += [Socket(2, "TIME_WAIT", HERE, high - 1 - 2 * i, THERE, 443, timer=3, expires_ms=50_000) for i in range(600)]
    rows += [Socket(2, "LISTEN", "0.0.0.0", high - 2, "0.0.0.0", 0, inode=8)]
    rows += [Socket(2, "BOUND", HERE, high - 4 - 2 * i, "0.0.0.0", 0, inode=9) for i in range(900)]
    rows += [Socket(2, "ESTABLISHED", HERE, high - 4000 - 2 * i, "192.0.2.10", 80, inode=7) for i in range(600)]
    sysctls = Sysctls()
    assert sysctls.set("net.ipv4.ip_local_port_range", f"{low} {high}") == 0
    assert sysctls.set("net.ipv4.ip_local_reserved_ports", f"{high - 5000}-{high - 4900}") == 0
    system = System("web-17", "6.18.44", 1e9, "blue", 4026531840, sysctls)
    owners = Owners({7: Owner(70, "crawler", "crawler", 0, "/"), 8: Owner(80, "nginx", "nginx", 0, "/")})
    table = SocketTable.of(rows, netns=Netns("blue", "", 4026531840, False), source="sock_diag", taken_at=1e9)
    return Snapshot(table, system, owners=owners)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """made_up() as a file."""
    path = tmp_path_factory.mktemp("map") / "web-17.snap"
    write([made_up()], path)
    return str(path)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("text", ["destination", "buckets"])
def test_the_text_is_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: str, text: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = shown(capsys, "-r", file, *(["--buckets"] if text == "buckets" else []))
    assert max(map(len, out.splitlines())) <= width
    check_golden(f"map-{text}-{width}.txt", out)


def test_nothing_is_told_by_colour_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    colored = shown(capsys, "-r", file)
    assert "\x1b[" in colored and "█" in colored
    plain = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    samples = re.findall(r"^  [✓✗]  (.{6})\S", plain, re.MULTILINE)
    assert len(samples) == len(set(samples)) == 7


def test_ascii_is_ascii_and_a_pipe_gets_no_blocks(capsys: pytest.CaptureFixture[str], file: str) -> None:
    assert shown(capsys, "-r", file, "--ascii").isascii()
    assert not set("░▒▓█") & set(shown(capsys, "-r", file))


def test_the_fuller_of_two_namespaces_in_a_file_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write([made_up(even=10, odd=0), made_up(even=5_000)], tmp_path / "two")
    assert report(capsys, "-r", str(tmp_path / "two"))["destination"]["sockets"] == 5_000 + 700 + 600


def test_buckets_do_not_depend_on_the_destination() -> None:
    from fourtuple.doctor.reading import Reading

    state = Reading.of_snapshot(made_up()).state
    states = bucket_states(state)
    assert sum(states.count("time_wait")) == 600
    assert sum(states.count("joined")) == 9_700  # flags=4: the kernel says that connect() chose the port
    assert sum(states.count("bound")) + sum(states.count("listen")) == 901 - sum(
        60_999 - 5_000 <= port <= 60_999 - 4_900 for port in range(60_999 - 4 - 1_798, 60_998, 2)
    )


# ------------------------------------------------------------------------------------------ page and picture


def pages(tmp_path: Path, *words: str) -> Element:
    assert main(["map", *words, "--html", str(tmp_path / "map.html")]) == 0
    return read_page((tmp_path / "map.html").read_text())


def test_the_page_has_a_square_for_every_port_that_is_not_free(
    capsys: pytest.CaptureFixture[str], file: str, tmp_path: Path
) -> None:
    page = pages(tmp_path, "-r", file)
    out = capsys.readouterr().out
    assert out.endswith("map.html: the map as a page\n")
    for width in (676, 306):
        picture = next(svg for svg in page.all(name="svg") if svg.attributes.get("width") == str(width))
        size = 3
        squares = {
            path.attributes["class"].split()[1]: sum(
                int(run) // size for run in re.findall(r"h(\d+)", path.attributes["d"])
            )
            for path in picture.all("ports-in", name="path")
        }
        assert (squares["even"], squares["odd"]) == (9_000, 700)
        assert (squares["time_wait"], squares["listen"]) == (600, 1)
        assert picture.one(name="desc").text.count(";") == 6
    assert [row.all(name="td")[1].text for row in page.one("kinds").all(name="tr")[1:]][:2] == [
        "free",
        "in use to this destination",
    ]


def test_names_of_a_foreign_file_are_harmless_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    taken = made_up()
    evil = Owner(1, "<script>alert(1)</script>\x1b[31m", "x", 0, "/")
    write([Snapshot(taken.sockets, taken.system, owners=Owners({8: evil}))], tmp_path / "evil")
    page = pages(tmp_path, "-r", str(tmp_path / "evil"), "--buckets")
    assert len(page.all(name="script")) == 1  # the switch of the colour scheme
    assert "<script>alert(1)</script>" in page.text


def test_the_picture_is_a_png(capsys: pytest.CaptureFixture[str], file: str, tmp_path: Path) -> None:
    assert main(["map", "-r", file, "--png", str(tmp_path / "map.png"), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err.endswith("map.png: the map as a picture\n")
    json.loads(captured.out)
    data = (tmp_path / "map.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = imread(tmp_path / "map.png")
    assert pixels.shape == (992, 1760, 4)
    seen = {tuple(round(255 * part) for part in color[:3]) for row in pixels[200::3, 60:1140:3] for color in row}
    assert seen >= {(0x38, 0x8B, 0xFD), (0xF0, 0x88, 0x3E), (0xC9, 0xA5, 0xFF), (0xFF, 0x5A, 0x4F)}


# ------------------------------------------------------------------------------------------ refusals


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["map", *words])
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err.splitlines()[0]


@pytest.mark.parametrize(
    "words, code, complaint",
    [
        (["1.2.3:80"], 2, "not an IPv4 address"),
        ([":99999"], 2, "not a port"),
        (["-N", "no-such-netns"], 2, "no-such-netns"),
        (["-r", "/no/such/file"], 2, "-r: "),
        (["--html", "-"], 2, "--html: a page goes to a file"),
        (["--html", "/no/such/dir/map.html"], 29, "--html: cannot write"),
        (["--png", "-"], 2, "--png: a picture goes to a file"),
        (["--png", "/no/such/dir/map.png"], 29, "--png: cannot write"),
        (["no-such-host.invalid:80"], 68, "cannot resolve"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, complaint: str
) -> None:
    found, line = refused(capsys, *words)
    assert (found, complaint in line) == (code, True), line


def test_without_matplotlib_png_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fourtuple.cli import port_picture

    monkeypatch.setattr(port_picture, "find_spec", lambda name: None)
    assert main(["map", "--png", "map.png"]) == 2
    err = capsys.readouterr().err
    assert "needs matplotlib" in err and "pip install 'fourtuple[plots]'" in err and "--html" in err


def test_a_part_of_a_range_has_its_shades() -> None:
    """A character of 4 ports: a shade for each number of ports in use, a letter for what is most."""
    from fourtuple.cli.portmap import _character
    from fourtuple.cli.terminal import open_terminal

    states = PortStates(1, 1, (), (), False)
    out = open_terminal()
    drawn = {
        ports: _character(ports.split(), states, "even", "1234", out)[0]
        for ports in (
            "used free free free",
            "used used free free",
            "used used used listen",
            "listen listen listen used",
            "used listen free free",
            "reserved reserved free free",
            "reserved free free free",
            "free free free joined",
            "doubtful doubtful joined free",
        )
    }
    assert list(drawn.values()) == ["1", "2", "4", "L", "l", "R", "r", "·", "?"]


@needs_root
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_words_stay_apart_and_nothing_is_wider_than_the_terminal(
    sick: Sick, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    sick.sysctl("net.ipv4.ip_local_reserved_ports", "40100-40109")
    sick.hold(80, A)
    for words in (("203.0.113.1:443",), ("--buckets",), ("203.0.113.9:443",)):
        out = shown(capsys, "-N", sick.path, *words)
        wide = [line for line in out.splitlines() if len(line) > width and sick.path not in line]
        assert wide == []
    head = next(line for line in shown(capsys, "-N", sick.path).splitlines() if line.endswith(" taken"))
    assert re.fullmatch(r" +even(, tried first)? +\d+ % taken  odd(, tried next)? +\d+ % taken", head)


@needs_root
def test_in_a_range_of_three_ports_the_last_one_is_out_of_reach(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.range(LOW, LOW + 2)
    sick.hold(2, A)
    out = shown(capsys, "-N", sick.path)
    assert "3 of 3 ports taken (100 %)" in out
    assert re.search(r"left +nothing\n +out of reach +40002: in a range of 3 ports no search looks at the last", out)


@pytest.mark.parametrize("command", ["map", "doctor"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-4", "[::1]:3"], "-4 asks for IPv4, and ::1 is an IPv6 address"),
        (["-6", "127.0.0.1:3"], "-6 asks for IPv6, and 127.0.0.1 is an IPv4 address"),
        (["-6", "127.0.0.1"], "-6 asks for IPv6, and 127.0.0.1 is an IPv4 address"),
        ([""], "DEST is empty; leave it out, or give it a value"),
        (["-r", ""], "-r is empty; leave it out, or give it a value"),
        (["-N", ""], "-N/--netns is empty; leave it out, or give it a value"),
    ],
)
def test_what_contradicts_itself_or_is_empty_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], command: str, words: list[str], said: str
) -> None:
    code = main([command, *words])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.splitlines()[0].endswith(f" {command}: {said}") or err.splitlines()[0] == f"fourtuple: {command}: {said}"


def test_an_ipv4_mapped_address_is_of_either_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "-4", "[::ffff:192.0.2.1]:80"]) == 0
    capsys.readouterr()
