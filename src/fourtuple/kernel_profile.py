"""KernelProfile: what differs between the Linux versions that the engine can imitate.

Here: names, numbers and switches, one value a fact. Not here: the code that obeys them (inet/ and tcp/ read them).
Rule: a profile claims only what was measured on that kernel or can be cited by commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class KernelProfile:
    """One kernel version as the engine sees it. The defaults are those of 6.18."""

    name: str
    """Version, as in `uname -r` without the patch level."""

    sysctl_defaults: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """Full sysctl name -> text, where the default differs from the table in sysctl_table.py."""

    absent_sysctls: frozenset[str] = frozenset()
    """Full names of sysctls that this kernel does not have yet: get and set answer ENOENT."""

    hz: int = 250
    """Ticks a second (CONFIG_HZ): bounds and rounding of the sysctls that the kernel keeps in jiffies."""

    initial_rto_us: int = 1_000_000
    """TCP_TIMEOUT_INIT: first retransmission timeout of a SYN (RFC 6298; 3 s before 3.1)."""

    port_search: str = "6.18"
    """Which _inet_hash_connect() picks the port: low parity first, then the other (since 4.6)."""

    table_perturb_size: int = 65_536
    """Entries of table_perturb[] (65,536 since 5.18, 256 before; one global hint before 5.0)."""

    port_rehash_period_us: int = 10_000_000
    """Period after which secure_ipv4_port_ephemeral() hashes anew (since 5.18); 0 = never."""

    has_local_port_range_option: bool = True
    """IP_LOCAL_PORT_RANGE exists (since 6.3)."""

    bucket_heals: bool = True
    """A bind bucket's state is computed anew when a binder leaves (since 6.18); before, when all owners are gone."""


LINUX_6_18 = KernelProfile("6.18")

PROFILES: Mapping[str, KernelProfile] = MappingProxyType({p.name: p for p in (LINUX_6_18,)})


def profile_named(name: str) -> KernelProfile:
    """The profile of that kernel version; ValueError names those that exist."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(f"no kernel profile {name!r}; there are: {', '.join(PROFILES)}") from None
