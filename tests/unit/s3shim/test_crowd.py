"""Blocks are large for few bodies, and small for many, so that memory stays bounded."""

from __future__ import annotations

from tonfs.s3shim.crowd import LEAST, MEMORY, Crowd


def test_blocks_shrink_with_the_number_of_bodies_and_grow_again():
    crowd = Crowd()
    assert crowd.block(1 << 20) == 1 << 20
    for _ in range(100):
        crowd.enter()
    assert LEAST <= crowd.block(1 << 20) <= MEMORY // 200
    assert crowd.block(1 << 20) % 4096 == 0
    for _ in range(100_000):
        crowd.enter()
    assert crowd.block(1 << 20) == LEAST
    for _ in range(100_099):
        crowd.leave()
    assert crowd.block(1 << 20) == 1 << 20
