"""The sites are shared: tests of this folder run one after the other."""
