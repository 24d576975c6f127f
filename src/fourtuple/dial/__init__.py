"""Many connections at once: open, hold, talk, close, and report on them."""
