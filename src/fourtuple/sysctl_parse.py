"""Text of a sysctl <-> its value, as the kernel's proc handlers do it (kernel/sysctl.c).

Here: one parser a kind of sysctl. Not here: which sysctl is of which kind (sysctl_table.py), who may write (sysctl.py).
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, ENOENT
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fourtuple.sysctl import Sysctls
    from fourtuple.sysctl_table import Sysctl

# The kernel's isspace() before a number; only these three may follow one (proc_wspace_sep).
_SPACES = " \t\n\v\f\r"
_SEPARATORS = " \t\n"
_PORT_START = "net.ipv4.ip_unprivileged_port_start"
_PAGE = 4095  # a write is cut to PAGE_SIZE - 1
_NUMBER_CHARS = 20  # proc_get_long refuses what fills its buffer of 22


def write_unchecked(sysctls: Sysctls, row: Sysctl, text: str) -> None:
    """Store a default: not subject to bounds or to what other fields hold."""
    if row.kind in ("cc", "read_only"):
        setattr(sysctls, row.fields, text)
    elif row.kind == "ports":
        setattr(sysctls, row.fields, _parse_port_list(text) or ())
    else:
        for field, word in zip(row.field_names, text.split(), strict=True):
            setattr(sysctls, field, int(word))


def _digits_end(text: str, at: int, digits: str) -> int:
    while at < len(text) and text[at] in digits:
        at += 1
    return at


def _get_long(text: str, at: int, followers: str) -> tuple[int, bool, int] | None:
    """kernel/sysctl.c:proc_get_long: (magnitude, negative, end) of the number at `at`, or None.

    C rules: 0x is hexadecimal, a leading 0 octal, no plus sign, at most 20 characters, 64 bits. It ends with the text
    or with one of `followers`.
    """
    window = text[at : at + _NUMBER_CHARS].lower()
    negative = window.startswith("-") and window[1:2].isdigit()
    start = int(negative)
    if window[start : start + 2] == "0x" and window[start + 2 : start + 3] in set("0123456789abcdef"):
        base, start, digits = 16, start + 2, "0123456789abcdef"
    elif window[start : start + 1] == "0":
        base, digits = 8, "01234567"
    else:
        base, digits = 10, "0123456789"
    end = _digits_end(window, start, digits)
    if end == start:
        return None
    value = int(window[start:end], base)
    rest = text[at + end : at + end + 1]
    if value >= 1 << 64 or (rest and rest not in followers):
        return None
    return value, negative, at + end


def _skip_spaces(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACES:
        at += 1
    return at


def _in_bounds(row: Sysctl, value: int) -> bool:
    return (row.min is None or value >= row.min) and (row.max is None or value <= row.max)


def _convert_int(sysctls: Sysctls, row: Sysctl, magnitude: int, negative: bool) -> int | None:
    """proc_dointvec_minmax: a C int inside the bounds."""
    value = -magnitude if negative else magnitude
    return value if -1 << 31 <= value < 1 << 31 and _in_bounds(row, value) else None


def _convert_seconds(sysctls: Sysctls, row: Sysctl, magnitude: int, negative: bool) -> int | None:
    """proc_dointvec_jiffies: kept in ticks, which must fit an int."""
    return None if magnitude * sysctls.profile.hz >= 1 << 31 else -magnitude if negative else magnitude


def _convert_ms(sysctls: Sysctls, row: Sysctl, magnitude: int, negative: bool) -> int | None:
    """proc_dointvec_ms_jiffies: cut to 32 bits, at most INT_MAX, rounded up to a tick."""
    value = (-magnitude if negative else magnitude) & 0xFFFFFFFF
    tick_ms = 1000 // sysctls.profile.hz
    return None if value >= 1 << 31 else -(-value // tick_ms) * tick_ms


def _convert_unsigned(sysctls: Sysctls, row: Sysctl, magnitude: int, negative: bool) -> int | None:
    """proc_douintvec_minmax and its kin: a minus sign is an error even before 0."""
    return None if negative or not _in_bounds(row, magnitude) else magnitude


def _parse_vector(sysctls: Sysctls, row: Sysctl, text: str) -> int:
    """proc_dointvec and its kin: as many numbers as given, each stored as it is read.

    What follows a full vector is not looked at.
    """
    at = 0
    for done, field in enumerate(row.field_names):
        at = _skip_spaces(text, at)
        if at == len(text):
            return 0 if done else -EINVAL
        number = _get_long(text, at, _SEPARATORS)
        value = None if number is None else _CONVERTERS[row.kind](sysctls, row, number[0], number[1])
        if number is None or value is None:
            return -EINVAL
        setattr(sysctls, field, value)
        at = number[2]
    return 0


def _parse_port_range(sysctls: Sysctls, row: Sysctl, text: str) -> int:
    """ipv4_local_port_range: a vector tried on a copy, not inverted, not below ip_unprivileged_port_start (PORT-08)."""
    before = sysctls.port_low, sysctls.port_high
    err = _parse_vector(sysctls, row, text)
    # Any port would do before 4.12 brought ip_unprivileged_port_start.
    floor = 0 if _PORT_START in sysctls.profile.absent_sysctls else sysctls.unprivileged_port_start
    if err == 0 and (sysctls.port_high < sysctls.port_low or sysctls.port_low < floor):
        err = -EINVAL
    if err:
        sysctls.port_low, sysctls.port_high = before
    return err


def _parse_port_start(sysctls: Sysctls, row: Sysctl, text: str) -> int:
    """ipv4_privileged_ports: not above the range of local ports."""
    before = sysctls.unprivileged_port_start
    err = _parse_vector(sysctls, row, text)
    if err == 0 and sysctls.unprivileged_port_start > sysctls.port_low:
        err = -EINVAL
    if err:
        sysctls.unprivileged_port_start = before
    return err


def _get_port(text: str, at: int, followers: str) -> tuple[int, int] | None:
    number = _get_long(text, at, followers)
    return None if number is None or number[1] or number[0] > 65535 else (number[0], number[2])


def _parse_port_list(text: str) -> tuple[tuple[int, int], ...] | None:
    """proc_do_large_bitmap: ports and ranges, ',' or newline between them; None if it is not such a list."""
    ranges: list[tuple[int, int]] = []
    at = _digits_end(text, 0, "\n")
    while at < len(text):
        first = last = _get_port(text, at, "-,\n")
        if first is not None and text[first[1] : first[1] + 1] == "-":
            last = _get_port(text, first[1] + 1, ",\n\0")
        if first is None or last is None or last[0] < first[0]:
            return None
        ranges.append((first[0], last[0]))
        at = _digits_end(text, last[1] + 1, "\n")
    return _merged(ranges)


def _merged(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sorted, with overlapping and touching ranges joined: what reading the bitmap gives back."""
    out: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if out and low <= out[-1][1] + 1:
            out[-1] = out[-1][0], max(high, out[-1][1])
        else:
            out.append((low, high))
    return tuple(out)


def _parse_reserved(sysctls: Sysctls, row: Sysctl, text: str) -> int:
    ranges = _parse_port_list(text)
    if ranges is None:
        return -EINVAL
    sysctls.reserved_ranges = ranges
    return 0


def _parse_congestion_control(sysctls: Sysctls, row: Sysctl, text: str) -> int:
    """proc_tcp_congestion_control: the name up to a newline or NUL, cut to TCP_CA_NAME_MAX - 1, must be available."""
    name = text.split("\0")[0].split("\n")[0][:15]
    if name not in sysctls.tcp_available_congestion_control.split():
        return -ENOENT
    sysctls.tcp_congestion_control = name
    return 0


def _format_numbers(sysctls: Sysctls, row: Sysctl) -> str:
    return "\t".join(str(getattr(sysctls, field)) for field in row.field_names)


def _format_ports(sysctls: Sysctls, row: Sysctl) -> str:
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in sysctls.reserved_ranges)


def format_value(sysctls: Sysctls, row: Sysctl) -> str:
    """The text of one sysctl as /proc shows it, without the newline."""
    return _format_ports(sysctls, row) if row.kind == "ports" else _format_numbers(sysctls, row)


_CONVERTERS: MappingProxyType[str, Callable[[Sysctls, Sysctl, int, bool], int | None]] = MappingProxyType(
    {
        "u8": _convert_unsigned,
        "uint": _convert_unsigned,
        "ulong": _convert_unsigned,
        "int": _convert_int,
        "port_range": _convert_int,
        "port_start": _convert_int,
        "seconds": _convert_seconds,
        "ms": _convert_ms,
    }
)

_PARSERS: MappingProxyType[str, Callable[[Sysctls, Sysctl, str], int]] = MappingProxyType(
    {
        "u8": _parse_vector,
        "uint": _parse_vector,
        "ulong": _parse_vector,
        "int": _parse_vector,
        "seconds": _parse_vector,
        "ms": _parse_vector,
        "port_range": _parse_port_range,
        "port_start": _parse_port_start,
        "ports": _parse_reserved,
        "cc": _parse_congestion_control,
    }
)


def parse_value(sysctls: Sysctls, row: Sysctl, text: str) -> int:
    """Store what `text` says: 0 or -errno. The text is cut as a write to /proc is."""
    return _PARSERS[row.kind](sysctls, row, text[:_PAGE])
