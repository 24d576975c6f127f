"""ConnectError: the real errno, Python's own classes, and a report that goes to JSON."""

from __future__ import annotations

import errno
import json

import pytest

from fourtuple.errors import KINDS, REASONS, ConnectError, NoLocalPort, errno_name, make_error

# Where OSError(code) becomes a class of its own, ours must be one of that class too.
PYTHONS_OWN = [code for code in errno.errorcode if type(OSError(code, "")) is not OSError]
FROM_SOCKETS = {errno.EAGAIN, errno.EALREADY, errno.EINPROGRESS, errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT,
                errno.ECONNABORTED, errno.EPIPE, errno.ESHUTDOWN, errno.EACCES, errno.EPERM, errno.EINTR}  # fmt: skip


@pytest.mark.parametrize("code", sorted(FROM_SOCKETS), ids=errno_name)
def test_a_kind_is_also_what_python_would_raise(code):
    assert code in PYTHONS_OWN
    error = make_error("connect", code)
    assert isinstance(error, type(OSError(code, "")))
    assert isinstance(error, ConnectError)
    assert error.errno == code


@pytest.mark.parametrize(
    ("code", "python_class"),
    [
        (errno.ECONNREFUSED, ConnectionRefusedError),
        (errno.ETIMEDOUT, TimeoutError),
        (errno.EACCES, PermissionError),
        (errno.EINPROGRESS, BlockingIOError),
        (errno.ECONNRESET, ConnectionResetError),
        (errno.EPIPE, BrokenPipeError),
        (errno.EINTR, InterruptedError),
    ],
)
def test_except_clauses_for_the_kernels_sockets_work(code, python_class):
    with pytest.raises(python_class):
        raise make_error("connect", code)


def test_the_report_of_a_full_range_names_the_function_and_what_frees_a_port():
    error = make_error("connect", errno.EADDRNOTAVAIL, {"daddr": "10.9.0.2", "dport": 80}, {"low": 1, "high": 2})
    assert isinstance(error, NoLocalPort)
    assert error.report["errno"] == "EADDRNOTAVAIL"
    assert error.report["function"] == "__inet_hash_connect"
    assert error.report["frees"]
    assert error.report["four_tuple"]["dport"] == 80
    assert json.loads(json.dumps(error.report)) == error.report


def test_an_errno_that_nobody_described_still_has_a_report():
    error = make_error("ioctl", errno.ENOTTY)
    assert type(error) is ConnectError
    assert error.report["reason"] == "ioctl() gives ENOTTY"


def test_every_reason_is_a_sentence_without_a_full_stop():
    for reason in REASONS.values():
        assert reason.function
        assert reason.reason and not reason.reason.endswith(".")
    assert all(issubclass(kind, OSError) for kind in KINDS.values())
