"""cffi's recipe for `_packets` (API mode, stable ABI, one file for every Python from 3.11 on).

setup.py runs it at installation. The extension is optional: without a C compiler the installation goes on, and the
packet path runs in Python.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

_HERE = Path(__file__).parent

ffi = FFI()
ffi.cdef((_HERE / "packets.h").read_text(encoding="ascii"))
ffi.set_source(
    "tonfs.network._fast._packets",
    "".join((_HERE / name).read_text(encoding="ascii") for name in ("packets.c", "symbols.c")),
    include_dirs=[str(_HERE)],
    libraries=["dl"],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"],
    py_limited_api=True,
    optional=True,
)
