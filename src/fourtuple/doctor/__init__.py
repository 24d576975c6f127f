"""What is wrong with connect() on this machine, why, and what fixes it: the engine asked about a live machine."""
