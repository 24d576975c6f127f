"""Simulation: several hosts on one virtual clock, their links, and the commands that configure them."""
