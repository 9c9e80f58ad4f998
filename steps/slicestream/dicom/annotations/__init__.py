"""Annotations of every format in use, each in a module of its own, to one result."""
