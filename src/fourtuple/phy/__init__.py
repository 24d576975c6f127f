"""Devices that carry whole IP packets, and the wrappers that go round any of them."""
