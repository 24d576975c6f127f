"""Machine: what the network namespaces of one machine share: boot secrets, table_perturb, randomness.

Two Hosts of one Machine with equal addresses draw their ports from one sequence, as two namespaces of Linux do: neither
the hash nor the table has the namespace in it (PORT-48).
"""

from __future__ import annotations

from fourtuple.inet.secrets import BootSecrets


class Machine:
    """One booted machine.  Equal seeds and equal calls give equal packets."""

    __slots__ = ("secrets", "seed")

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.secrets = BootSecrets(seed)
