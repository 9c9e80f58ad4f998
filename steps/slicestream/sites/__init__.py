"""Reaching the compute sites: the register of runs, pre-flight checks, removal of leftovers."""
