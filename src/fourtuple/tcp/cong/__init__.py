"""Congestion control: reno only; the names that TCP_CONGESTION accepts."""
