"""What a port can be on the page: its class (colour), its symbol (for those who do not see the colour), its words."""

from __future__ import annotations

from fourtuple import kernel_map as km
from fourtuple.cli.html import snapshot

LOOK_CLASS = {
    km.LOOK_RESERVED: "reserved",
    km.LOOK_BUCKET_BOUND: "bound",
    km.LOOK_ESTABLISHED: "used",
    km.LOOK_TIME_WAIT: "waiting",
    km.LOOK_TW_REUSED: "taken",
    km.LOOK_FREE: "taken",
    km.LOOK_JOINED: "taken",
}
STATE_CLASS = {
    snapshot.FREE: "free",
    snapshot.SHARED: "shared",
    snapshot.USED: "busy",
    snapshot.BOUND: "bound",
    snapshot.RESERVED: "reserved",
    snapshot.TIME_WAIT: "waiting",
}
SYMBOLS = {
    "taken": "✓",
    "used": "✗",
    "busy": "·",
    "bound": "B",
    "reserved": "R",
    "waiting": "T",
    "shared": "+",
    "free": "",
}
LEGEND = {
    "taken": "taken",
    "used": "looked at: this four-tuple exists",
    "reserved": "reserved",
    "bound": "held by a bind()",
    "waiting": "in TIME_WAIT",
    "busy": "in use for this destination",
    "shared": "in use for other destinations",
    "free": "free",
}
"""In the order in which they are told."""
