"""Only what pyproject.toml cannot say: the optional C helper of the packet path (tonfs/network/_fast)."""

from setuptools import setup

setup(cffi_modules=["tonfs/network/_fast/build.py:ffi"])
