"""The optional C helper of the packet path: `packets.c` and `symbols.c`, built into `_packets` where a C compiler
is.

`tonfs.network.lane` decides whether it is used. `build` is cffi's recipe, run by setup.py.
"""
