"""Finds the catalogue and its executable scenarios, which are kept outside this repository."""

from __future__ import annotations

import sys
from pathlib import Path

SHARED = Path(__file__).resolve().parents[3] / "shared" / "kernel"
if str(SHARED) not in sys.path:
    sys.path.insert(0, str(SHARED))

import kernel_oracle as ko  # noqa: E402

__all__ = ["SHARED", "ko"]
