"""As much HTTP as it takes to ask one question."""

from __future__ import annotations


def request_bytes(host: str, port: int) -> bytes:
    """GET / for that host; the server is asked to close afterwards."""
    name = host if port == 80 else f"{host}:{port}"
    return f"GET / HTTP/1.1\r\nHost: {name}\r\nUser-Agent: fourtuple\r\nConnection: close\r\n\r\n".encode()


def parse_answer(answer: bytes) -> tuple[str, bytes]:
    """(status line, body); the status line is '' when it is not HTTP, and then everything is body."""
    if not answer.startswith(b"HTTP/"):
        return "", answer
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0].decode("ascii", "replace"), body


def printable(data: bytes, lines: int, width: int) -> list[str]:
    """The first lines of some bytes from the network, cut, with nothing in them that a terminal would obey."""
    found = [_printable_line(line, width) for line in data.decode("utf-8", "replace").split("\n")]
    while found and not found[-1].strip("�… "):
        found.pop()
    return found[:lines] + (["…"] if len(found) > lines else [])


def _printable_line(line: str, width: int) -> str:
    line = line.removesuffix("\r").expandtabs()
    text = "".join(c if c.isprintable() else "�" for c in line[:width])
    return text if len(line) <= width else text[:-1] + "…"
