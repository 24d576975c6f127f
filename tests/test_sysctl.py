"""Sysctls: fields, names, vectors, the generation, errors. tests/kernel compares the parsers with the kernel's."""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOENT

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.kernel_profile import KernelProfile, profile_named
from fourtuple.sysctl import Sysctls
from fourtuple.sysctl_table import BY_NAME, FIELDS, SYSCTLS

RANGE, RESERVED = "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports"


def test_each_field_of_the_table_is_an_attribute_and_no_other() -> None:
    sysctls = Sysctls()
    assert all(hasattr(sysctls, field) for field in FIELDS)
    with pytest.raises(AttributeError):
        sysctls.tcp_nosuch = 1  # type: ignore[attr-defined]


def test_defaults_read_back_as_the_table_says() -> None:
    sysctls = Sysctls()
    here = [row for row in SYSCTLS if row.name not in sysctls.profile.absent_sysctls]
    assert [(r.name, sysctls.get(r.name).split()) for r in here] == [(r.name, r.default.split()) for r in here]


def test_the_range_has_two_fields_and_a_tab_between_them() -> None:
    sysctls = Sysctls()
    assert (sysctls.get(RANGE), sysctls.port_low, sysctls.port_high) == ("32768\t60999", 32768, 60999)


@pytest.mark.parametrize(
    "name", ["net.ipv4.tcp_syn_retries", "net/ipv4/tcp_syn_retries", "/proc/sys/net/ipv4/tcp_syn_retries"]
)
def test_dots_and_slashes_name_the_same(name: str) -> None:
    sysctls = Sysctls()
    assert (sysctls.set(name, "3"), sysctls.get(name), sysctls.tcp_syn_retries) == (0, "3", 3)


@pytest.mark.parametrize("name", ["tcp_syn_retries", "net.ipv4.tcp_nosuch", "", "net.core.tcp_syn_retries"])
def test_other_names_do_not_exist(name: str) -> None:
    assert Sysctls().set(name, "3") == -ENOENT
    with pytest.raises(KeyError, match="no sysctl"):
        Sysctls().get(name)


def test_the_list_of_algorithms_is_read_only() -> None:
    assert Sysctls().set("net.ipv4.tcp_available_congestion_control", "reno") == -EACCES


def test_the_generation_moves_with_each_successful_write_only() -> None:
    sysctls = Sysctls()
    before = sysctls.generation
    assert [sysctls.set(RANGE, t) for t in ("40000 50000", "50000 40000", "", "40000")] == [0, -EINVAL, 0, 0]
    assert sysctls.generation == before + 2


def test_a_refused_range_leaves_both_ends() -> None:
    sysctls = Sysctls()
    assert sysctls.set(RANGE, "61000 60000") == -EINVAL
    assert (sysctls.port_low, sysctls.port_high) == (32768, 60999)


def test_the_range_may_start_low_once_the_privileged_ports_are_given_up() -> None:
    sysctls = Sysctls()
    assert sysctls.set(RANGE, "1 65535") == -EINVAL
    assert sysctls.set("net.ipv4.ip_unprivileged_port_start", "0") == 0
    assert sysctls.set(RANGE, "1 65535") == 0


def test_reserved_ports_are_kept_as_sorted_disjoint_ranges() -> None:
    sysctls = Sysctls()
    assert sysctls.set(RESERVED, "9148,8080,9149-9150,9000-9001,9001\n") == 0
    assert sysctls.reserved_ranges == ((8080, 8080), (9000, 9001), (9148, 9150))
    assert sysctls.get(RESERVED) == "8080,9000-9001,9148-9150"


@given(st.sets(st.integers(0, 65535), max_size=40))
def test_reserved_ports_read_back_are_the_ports_written(ports: set[int]) -> None:
    sysctls = Sysctls()
    assert sysctls.set(RESERVED, ",".join(map(str, ports)) or "\n") == 0
    assert {p for low, high in sysctls.reserved_ranges for p in range(low, high + 1)} == ports


@given(st.sampled_from(sorted(BY_NAME)), st.text("0123456789-+x ,\t\n\0", max_size=30))
def test_any_text_is_taken_or_refused_with_the_bounds_kept(name: str, text: str) -> None:
    sysctls, row = Sysctls(), BY_NAME[name]
    assert sysctls.set(name, text) in (0, -EINVAL, -ENOENT, -EACCES)
    for field in row.field_names:
        value = getattr(sysctls, field)
        if isinstance(value, int):
            assert (row.min is None or row.min <= value) and (row.max is None or value <= row.max)


def test_a_profile_changes_defaults_and_hides_what_its_kernel_lacks() -> None:
    old = KernelProfile("0.0", {RANGE: "32768 61000"}, frozenset({"net.ipv4.tcp_tw_reuse_delay"}))
    sysctls = Sysctls(old)
    assert (sysctls.port_high, sysctls.set("net.ipv4.tcp_tw_reuse_delay", "1")) == (61000, -ENOENT)


def test_profiles_are_found_by_name() -> None:
    assert profile_named("6.18").initial_rto_us == 1_000_000
    with pytest.raises(ValueError, match=r"there are: 2\.6\.32, 3\.10"):
        profile_named("7")
