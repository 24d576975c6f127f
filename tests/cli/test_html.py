"""`--html`: the page tells what text and JSON tell, is whole in one file, and is safe whatever the network says."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fourtuple import kernel_map as km
from fourtuple.cli.attempt import Attempt, Request, prefill, run_attempt
from fourtuple.cli.html.markup import Html, tag
from fourtuple.cli.html.page import connect_page
from fourtuple.cli.html.path import our_place
from fourtuple.cli.html.snapshot import FREE, SHARED, USED, Snapshot, read_range, take_snapshot
from fourtuple.cli.http import request_bytes
from fourtuple.cli.main import main
from fourtuple.cli.report import connect_report
from fourtuple.cli.story import ladder_lines, trace_lines
from fourtuple.cli.terminal import Terminal, text_of
from fourtuple.phy.fault import parse_loss
from fourtuple.shell.wires import Setup, open_sim
from tests.cli.htmlpage import Element, read_page

SERVER = ("10.64.0.1", 8080)


def attempt_of(
    request: Request | None = None,
    loss: str = "",
    ports: str = "",
    reserved: str = "",
    held: int = 0,
    to: tuple[str, int] = SERVER,
    source: str = "",
) -> tuple[Attempt, Snapshot]:
    """One connect() on a simulated wire, and the tables then."""
    sysctls = {"net.ipv4.ip_local_port_range": ports, "net.ipv4.ip_local_reserved_ports": reserved}
    chosen = {name: text for name, text in sysctls.items() if text}
    setup = Setup((to,), source, parse_loss(loss) if loss else (), None, 3, chosen)
    tables: list[Snapshot] = []
    with open_sim(setup) as wire:
        prefill(wire.host, source, *to, held)
        found = run_attempt(
            wire, request or Request(*to, source=source), on_return=lambda a: tables.append(take_snapshot(a))
        )
    read_range(tables[0], found)
    return found, tables[0]


STORIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "http": {"request": Request(*SERVER, payload=request_bytes(*SERVER), wants_answer=True)},
    "lost-syn": {"loss": "syn:1"},
    "past-reserved-ports": {"ports": "49000 49039", "reserved": "49010-49015", "held": 16},
    "long-addresses": {"to": ("100.200.100.200", 65_535), "source": "100.200.100.201", "loss": "synack:1-3"},
    "full": {"ports": "40000 40999", "held": 1000},
    "nobody-answers": {"loss": "syn:1-99"},
    "refused": {"request": Request("127.0.0.1", 9)},
    "unreachable": {"request": Request("255.255.255.255", 80)},
    "bound": {"request": Request(*SERVER, source="10.64.0.2", source_port=40_000)},
    "bind-fails": {"request": Request(*SERVER, source="192.0.2.1", source_port=40_000)},
}


@pytest.fixture(scope="module", params=STORIES)
def told(request: pytest.FixtureRequest) -> tuple[Attempt, Element, dict[str, Any]]:
    """One attempt with its page and its JSON."""
    attempt, tables = attempt_of(**STORIES[request.param])
    return attempt, read_page(connect_page(attempt, tables, 3, 0)), connect_report(attempt, 3, 0)


Told = tuple[Attempt, Element, dict[str, Any]]

# ------------------------------------------------------------------------------------------------ the same story


def test_page_and_json_name_the_same_functions_with_the_same_decisions(told: Told) -> None:
    _, page, document = told
    steps = [
        (li.attributes["data-function"], li.attributes["data-text"], li.attributes["data-note"])
        for li in page.all("step")
    ]
    assert steps == [(step["function"], step["text"], step["note"]) for step in document["steps"]]
    assert steps


def test_page_and_text_show_the_same_lines(told: Told) -> None:
    attempt, page, _ = told
    terminal = Terminal(io.StringIO(), color=False, boxes=True, ascii_only=False, width=400, is_tty=False)
    shown = [li for li in page.one("path").all(name="li") if {"step", "look"} & set(li.classes)]
    ours = [_line(li) for li in shown if "detail" not in li.classes]
    assert ours == [_squeezed(text_of(line)) for line in trace_lines(attempt, terminal)]


def _line(li: Element) -> str:
    if "look" in li.classes:
        return _squeezed(" ".join(li.attributes[f"data-{part}"] for part in ("name", "text", "note")))
    parts = (li.attributes["data-function"], li.attributes["data-text"], li.attributes["data-brief-note"])
    return _squeezed(" ".join((li.one("time").text, *parts)))


def _squeezed(text: str) -> str:
    without_time_of_look = re.sub(r"^.*[│└] ", "", text)
    return " ".join(without_time_of_look.split())


def test_what_a_reader_sees_of_a_step_is_its_decision(told: Told) -> None:
    _, page, _ = told
    for li in page.all("step"):
        assert li.one("fn").text == li.attributes["data-function"]
        assert li.attributes["data-text"] in li.text
        assert li.attributes.get("data-brief-note", li.attributes["data-note"]) in li.text


def test_page_and_json_have_the_same_ports_with_the_same_verdicts(told: Told) -> None:
    _, page, document = told
    ports = document["ports"]
    cards = page.all("card", "ports")
    if not ports["looked_at"]:
        assert "data-looked-at" not in cards[0].attributes
        return
    assert int(cards[0].attributes["data-looked-at"]) == ports["looked_at"]
    counts = dict(part.split("=") for part in cards[0].attributes["data-verdicts"].split())
    assert {name: int(number) for name, number in counts.items()} == ports["verdicts"]
    looks = {look["port"]: look["verdict"] for look in ports["looks"]}
    for width in ("wide", "narrow"):
        cells = {
            int(g.attributes["data-port"]): g.attributes["data-verdict"]
            for g in cards[0].one(width).all(name="g")
            if "data-port" in g.attributes
        }
        assert cells.items() <= looks.items()
        assert {ports["looks"][0]["port"], list(looks)[-1]} <= cells.keys()
        if len(looks) <= 5:
            assert cells == looks


def test_page_text_and_json_have_the_same_packets(told: Told) -> None:
    attempt, page, document = told
    expected = [(p["text"], p["direction"], p["lost"] or "") for p in document["packets"]]
    if not attempt.request.payload:
        expected = expected[: len(attempt.segments)]
    terminal = Terminal(io.StringIO(), color=False, boxes=True, ascii_only=False, width=120, is_tty=False)
    rungs = ladder_lines(attempt, terminal, whole=bool(attempt.request.payload))[1:]
    assert len(rungs) == len(expected)
    for figure in page.one("card", "wire").all("wide") + page.one("card", "wire").all("narrow"):
        drawn = [tuple(g.attributes[f"data-{key}"] for key in ("packet", "direction", "lost"))
                 for g in figure.all("packet")]  # fmt: skip
        assert drawn == expected


def test_the_page_says_how_it_ended(told: Told) -> None:
    attempt, page, document = told
    title, result = page.one(name="h1").text, document["result"]
    if not attempt.error:
        assert "→ 0 in " in title
        expected = f"{attempt.source}:{attempt.source_port} {attempt.request.address}:{attempt.request.port}"
        assert page.one("tuple").attributes["data-tuple"] == expected
        return
    assert f"→ −1 {result['errno']}" in title
    card = page.one("failure")
    assert result["explanation"]["reason"] in card.text
    for text in result["explanation"]["frees"] + result["explanation"]["not_it"]:
        assert " ".join(text.split()) in " ".join(card.text.split())


# ------------------------------------------------------------------------------------------------ single things


def page_of(**story: Any) -> Element:
    """The page of one attempt."""
    attempt, tables = attempt_of(**story)
    return read_page(connect_page(attempt, tables, 3, 0))


def test_a_step_says_where_the_kernel_and_we_have_it() -> None:
    step = next(li for li in page_of().all("step") if li.attributes["data-function"] == "tcp_v4_connect")
    assert step.one("file").text == "net/ipv4/tcp_ipv4.c"
    assert step.one("where").text.startswith("ours: tcp/ipv4.py tcp_v4_connect · ")


def test_every_place_of_ours_is_a_file() -> None:
    root = Path(main.__code__.co_filename).parent.parent
    for entry in km.FUNCTIONS:
        assert (root / our_place(entry).split()[0]).is_file(), entry.name


def test_a_lost_syn_has_its_cross_its_timer_and_what_would_follow() -> None:
    page = page_of(loss="syn:1")
    assert "(first SYN lost)" in page.one(name="h1").text
    wire = page.one("card", "wire").one("wide")
    words = " ".join(text.text for text in wire.all(name="text"))
    assert "lost (syn:1)" in words and "retransmit timer 1.000 s" in words
    assert "+1 +1 +1 +1 +2 +4 +8 +16" in words and "give up at 131 s" in words
    assert len(wire.all("cross")) == 1


def test_both_ends_have_their_states() -> None:
    wire = page_of().one("card", "wire").one("wide")
    pills = [text.text for text in wire.all("on-pill", name="text")]
    assert pills == ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "ESTABLISHED", "connect() = 0"]


def test_eleven_unanswered_syns_are_followed_by_the_schedule() -> None:
    page = page_of(loss="syn:1-99")
    assert "(11 SYNs, no answer)" in page.one(name="h1").text
    texts = page.one("schedule").one("wide").all(name="text")
    dots = [int(text.attributes["data-syn-us"]) // 1_000_000 for text in texts if "data-syn-us" in text.attributes]
    # RFC 6298 doubling after tcp_syn_linear_timeouts = 4, below it the kernels that had no linear timeouts
    assert dots == [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67, 0, 1, 3, 7, 15, 31, 63]


def test_the_card_of_a_connected_port_says_what_the_tables_hold() -> None:
    facts = [dd.text for dd in page_of(ports="40000 40999", held=10).one("tuple-card").all(name="dd")]
    assert facts[0] == "this four-tuple, ESTABLISHED; 11 in the table"
    assert facts[1].startswith("fastreuse −1, fastreuseport −1, 1 owner")
    assert facts[2] == "989 of 1 000 ports are left for this destination"


def test_a_port_of_bind_is_said_to_be_closed_to_others() -> None:
    card = page_of(**STORIES["bound"]).one("tuple-card")
    assert "fastreuse 0" in card.text and "bind() has a part in it: closed" in card.text
    assert {mark.text for mark in card.all("mark")} == {"✗"}


def test_the_tables_tell_other_destinations_apart() -> None:
    setup = Setup((SERVER, ("10.64.0.1", 8081)), sysctls={"net.ipv4.ip_local_port_range": "40000 40007"})
    tables: list[Snapshot] = []
    with open_sim(setup) as wire:
        prefill(wire.host, "", "10.64.0.1", 8081, 4)
        prefill(wire.host, "", *SERVER, 1)
        found = run_attempt(wire, Request(*SERVER), on_return=lambda a: tables.append(take_snapshot(a)))
    read_range(tables[0], found)
    assert tables[0].state_of(found.source_port) == USED
    assert tables[0].counts[USED] == 2  # ours, and the one held before
    assert tables[0].counts[SHARED] + tables[0].counts[FREE] == 6


def time_wait(reuse: int) -> Element:
    """The only port of the range was ours until 1.5 s ago."""
    sysctls = {"net.ipv4.ip_local_port_range": "40000 40000", "net.ipv4.tcp_tw_reuse": str(reuse)}
    tables: list[Snapshot] = []
    with open_sim(Setup((SERVER,), sysctls=sysctls)) as wire:
        run_attempt(wire, Request(*SERVER))
        wire.runner.run_until(lambda: False, wire.runner.now_us() + 1_500_000)
        found = run_attempt(wire, Request(*SERVER), on_return=lambda a: tables.append(take_snapshot(a)))
    read_range(tables[0], found)
    return read_page(connect_page(found, tables[0], 0, 0))


def test_a_time_wait_that_is_taken_over_is_said_to_be() -> None:
    page = time_wait(reuse=1)
    assert "→ 0 in" in page.one(name="h1").text and "(a TIME_WAIT taken over)" in page.one(name="h1").text
    assert page.one("card", "ports").attributes["data-verdicts"] == "tw_reused=1"


def test_a_time_wait_that_is_in_the_way_is_said_to_be() -> None:
    page = time_wait(reuse=0)
    assert "→ −1 EADDRNOTAVAIL" in page.one(name="h1").text
    assert page.one("card", "ports").attributes["data-verdicts"] == "time_wait=1"
    assert "tcp_tw_reuse=1 lets it be taken over" in page.one("failure").text


# ------------------------------------------------------------------------------------------------ nothing from outside


HOSTILE = (
    b"HTTP/1.1 200 <b onclick=alert(1)>\r\n\r\n</pre><script>alert(2)</script>\x00\x1b[31m\xff"
    b"<img src=//evil.example/x>\n"
)


def hostile_page() -> str:
    """A server that would like to run things in the reader's browser."""
    attempt, tables = attempt_of(request=Request(*SERVER, payload=request_bytes(*SERVER), wants_answer=True))
    attempt.answer = HOSTILE
    return connect_page(attempt, tables, 3, 0)


def test_a_hostile_answer_is_text() -> None:
    text = hostile_page()
    page = read_page(text)
    assert len(page.all(name="script")) == 1 and not page.all(name="img") and not page.all(name="b")
    assert "</pre><script>alert(2)</script>" in page.one("answer").one(name="pre").text
    assert "\x00" not in text and "\x1b" not in text


def test_a_port_is_not_said_to_be_unseen_when_all_were_looked_at() -> None:
    attempt, tables = attempt_of(held=30_000)
    card = read_page(connect_page(attempt, tables, 3, 28_232)).one("card", "ports")
    assert len(attempt.looks) == 28_232
    assert [item.text for item in card.one("legend").all(name="li")] == [
        "✗looked at: this four-tuple exists",
        "·in use for this destination",  # the tracks of the whole range
    ]
    assert {title.text.partition(": ")[2] for title in card.all(name="title") if title.text[:1].isdigit()} == {
        "looked at: this four-tuple exists"
    }


def test_what_the_timer_would_do_does_not_depend_on_ports_being_left() -> None:
    attempt, tables = attempt_of(
        Request(*SERVER, source="0.0.0.0", source_port=40_000), loss="syn:1", ports="40000 40000", reserved="40000"
    )
    assert "give up at 131 s" in read_page(connect_page(attempt, tables, 3, 0)).one("wire").text


def test_one_held_four_tuple_is_one() -> None:
    attempt, tables = attempt_of(ports="40000 40000", held=1)
    page = read_page(connect_page(attempt, tables, 3, 1))
    assert "1 four-tuple held before" in page.one("sub").text.replace("\u00a0", " ")
    assert "The range has this port only" in page.one("card", "ports").text


def test_an_answer_that_never_ends_is_cut() -> None:
    attempt, tables = attempt_of(request=Request(*SERVER, payload=request_bytes(*SERVER), wants_answer=True))
    attempt.answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (1 << 20)
    answer = read_page(connect_page(attempt, tables, 3, 0)).one("answer")
    assert answer.text.count("x") < 500
    assert "the rest was not read" in answer.text


def test_markup_escapes_what_is_not_markup() -> None:
    assert tag("p", "<i>", tag("b", "&"), title='"><i>') == '<p title="&quot;&gt;&lt;i&gt;">&lt;i&gt;<b>&amp;</b></p>'
    assert tag("p", Html("<i>"), None, "") == "<p><i></p>"
    assert tag("p", "a\x00\x1b\u202eb") == "<p>a���b</p>"


def test_the_page_is_one_file_that_may_load_nothing() -> None:
    text = hostile_page()
    page = read_page(text)
    policy = next(m for m in page.all(name="meta") if m.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy.attributes["content"]
    assert not page.all(name="link") and not page.all(name="iframe")
    for element in page.all():
        assert not {"src", "href", "style", "onclick"} & set(element.attributes), element


# ------------------------------------------------------------------------------------------------ the command


def connect(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    code = main(["connect", "10.64.0.1:8080", "--wire", "sim", "--seed", "7", *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_page_is_written_and_the_last_line_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = connect(capsys, "--html", "connect.html")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "connect.html: the page of this connect()"
    assert (
        read_page(Path("connect.html").read_text()).one(name="h1").text.startswith("connect(3, 10.64.0.1:8080) → 0 in")
    )


def test_json_stays_json_and_the_page_is_written_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    code, out, _ = connect(capsys, "--json", "--fill", "100%", "--range", "40000-40009", "--html", str(path))
    assert (code, json.loads(out)["result"]["errno"]) == (20, "EADDRNOTAVAIL")
    assert "EADDRNOTAVAIL" in path.read_text()


def test_a_seed_makes_the_same_page_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("a", "b"):
        connect(capsys, "-q", "--loss", "syn:1", "--html", str(tmp_path / name))
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing/a.html", "No such file or directory"),
        (".", "Is a directory"),
        ("there.html/a.html", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
@pytest.mark.parametrize("command", [["connect", "10.64.0.1:8080"], ["demo"]])
def test_a_file_that_cannot_be_written_is_one_line_before_anything_is_done(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    why: str,
    command: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.html").write_text("mine")
    assert main([*command, "--wire", "sim", "--html", name]) == 29
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"fourtuple: --html: cannot write {name}: {why}\n")
    assert os.listdir() == ["there.html"]


def test_a_reader_of_a_fifo_gets_the_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with subprocess.Popen(["timeout", "20", "cat", str(path)], stdout=subprocess.PIPE, text=True) as reader:
        assert connect(capsys, "--html", str(path))[0] == 0
        assert reader.communicate()[0].startswith("<!doctype html>")


def test_an_empty_name_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = connect(capsys, "--html", "")
    assert (code, out) == (2, "")
    assert err.startswith("fourtuple connect: --html is empty; leave it out, or give it a value\n")


def test_a_run_that_fails_leaves_the_file_as_it_was(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text("mine")
    assert main(["connect", "10.64.0.1:8080", "--wire", "nowhere", "--html", str(path)]) == 2
    assert main(["connect", "nobody.invalid:8080", "--wire", "sim", "--html", str(path)]) == 68
    assert path.read_text() == "mine"


def test_stdout_is_no_place_for_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = connect(capsys, "--html", "-")
    assert (code, out) == (2, "")
    assert err == "fourtuple: --html: a page goes to a file, as stdout has the text; say --html page.html\n"


# ------------------------------------------------------------------------------------------------ the demo


def demo(tmp_path: Path, wire: str) -> Element:
    """The page of a demo."""
    path = tmp_path / "demo.html"
    assert main(["demo", "--wire", wire, "--html", str(path)]) == 0
    return read_page(path.read_text())


def squares(page: Element, figure: str) -> list[tuple[int, int]]:
    """(even, odd) squares of the map at each level; the newest are told by their half of the picture."""
    found = []
    for map_ in page.all("map", name="figure"):
        if not map_.one(name="svg").attributes["aria-labelledby"].startswith(f"map-{figure}-"):
            continue
        wide = float(map_.one("ground").attributes["width"])
        xs = [x for path in map_.all("squares") for x in _cells(path.attributes["d"])]
        found.append((sum(x < wide for x in xs), sum(x > wide for x in xs)))
    return found


def _cells(path: str) -> list[float]:
    """The x of each square: M starts a run, each h3 is one."""
    xs: list[float] = []
    for x, _, run in re.findall(r"M([0-9.]+) ([0-9.]+)((?:h3)+)", path):
        xs += [float(x) + 3 * i for i in range(len(run) // 2)]
    return xs


# Of 4,096 ports: 10 % and 45 % are even ones only; at 62 % all 2,048 even ones are taken, and 492 odd ones.
LEVELS = [(410, 0), (1843, 0), (2048, 492)]


def test_the_page_of_the_demo_has_its_five_chapters(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = demo(tmp_path, "sim")
    out = capsys.readouterr().out
    titles = [head.one(name="h2").text for head in page.all("chapter")]
    assert titles == [f"{line[0]}{line[3:]}" for line in out.splitlines() if re.match(r"\d  \S", line)]
    assert len(titles) == 5
    assert f"{tmp_path}/demo.html: the page of this demo" in out
    assert squares(page, "ours") == LEVELS
    assert squares(page, "kernel") == []
    dots = [int(text.attributes["data-syn-us"]) for text in page.all(name="text") if "data-syn-us" in text.attributes]
    assert len(dots) == 2 * (11 + 7)


def test_the_demos_decisions_are_those_of_the_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = demo(tmp_path, "sim")
    said = [tuple(li.attributes[f"data-{key}"] for key in ("port", "server", "errno"))
            for ul in page.all("decisions") for li in ul.all(name="li")]  # fmt: skip
    lines = re.findall(r"(4000\d) → (10\S+) +(?:(E[A-Z]+): )?", capsys.readouterr().out)
    assert said == lines and len(said) == 9


def test_on_a_real_wire_the_kernel_fills_the_same_halves(tmp_path: Path, tun: str) -> None:
    page = demo(tmp_path, tun)
    assert squares(page, "ours") == LEVELS
    assert squares(page, "kernel") == LEVELS
    rows = [[cell.text for cell in row.all(name="td")] for row in page.one("cost", name="table").all(name="tr")]
    assert [len(row) for row in rows] == [0, 3, 3, 3]


def test_a_page_from_a_real_wire(capsys: pytest.CaptureFixture[str], tmp_path: Path, tun: str) -> None:
    path = tmp_path / "a.html"
    code = main(["connect", "10.64.0.1:8080", "--wire", tun, "--json", "--html", str(path)])
    document = json.loads(capsys.readouterr().out)
    page = read_page(path.read_text())
    assert code == 0
    steps = [li.attributes["data-text"] for li in page.all("step")]
    assert steps == [step["text"] for step in document["steps"]]
    drawn = [g.attributes["data-packet"] for g in page.one("card", "wire").one("wide").all("packet")]
    assert drawn == [packet["text"] for packet in document["packets"] if packet["connect"]]
    assert len(drawn) == 3 and "private network" in page.one("sub").text
