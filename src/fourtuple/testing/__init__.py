"""For tests: the door through which outside suites judge the engine."""
