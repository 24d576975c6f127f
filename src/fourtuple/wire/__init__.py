"""Bytes on the wire and their fields; nothing of the engine is known here."""
