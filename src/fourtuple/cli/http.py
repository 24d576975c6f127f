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


def printable(data: bytes, lines: int) -> list[str]:
    """The first lines of some bytes from the network, with nothing in them that a terminal would obey."""
    text = data.decode("utf-8", "replace")
    found = ["".join(c if c.isprintable() else "�" for c in line) for line in text.split("\n")]
    while found and not found[-1].strip("�\r "):
        found.pop()
    return found[:lines] + (["…"] if len(found) > lines else [])
