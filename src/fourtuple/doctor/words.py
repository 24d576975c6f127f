"""Numbers with their units, and endpoints, as the doctor says them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def grouped(number: int) -> str:
    """28232 -> '28 232'."""
    return f"{number:,}".replace(",", " ")


def percent(fill: float) -> str:
    """0.624 -> '62 %'; 100 % means full and 0 % means empty, nothing else does."""
    if 0 < fill < 0.01:
        return "<1 %"
    return f"{int(fill * 100 + 1e-9)} %"


def duration(us: float) -> str:
    """'6 µs', '780 µs', '1.7 ms', '2.1 s'."""
    if us < 1_000:
        return f"{us:.0f} µs"
    return f"{us / 1_000:.1f} ms" if us < 1_000_000 else f"{us / 1_000_000:.1f} s"


def time_left(seconds: float) -> str:
    """'38 s', '4m 20s', '3h 05m', '> 1 day'."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m" if whole < 86_400 else "> 1 day"


def endpoint(address: str, port: int) -> str:
    """'10.0.0.1:80', '[::1]:80'."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def plural(count: int, noun: str) -> str:
    """'1 port', '28 232 ports'."""
    return f"{grouped(count)} {noun}" + ("" if count == 1 else "s")


def port_list(ports: Iterable[int], separator: str = "-") -> str:
    """{80, 81, 82, 90} -> '80-82,90': what ip_local_reserved_ports takes."""
    runs: list[list[int]] = []
    for port in sorted(set(ports)):
        if runs and port == runs[-1][1] + 1:
            runs[-1][1] = port
        else:
            runs.append([port, port])
    return ",".join(str(a) if a == b else f"{a}{separator}{b}" for a, b in runs)


def some_of(words: Sequence[str], most: int = 4) -> str:
    """'a, b, c and 7 more'."""
    left = len(words) - most
    return ", ".join(words[:most]) + (f" and {grouped(left)} more" if left > 0 else "")
