"""What 8-bit weights keep of the exact ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.embeddings.head import principal_directions
from services.embeddings.quantize import BLOCK, quantize_blocks


@given(st.integers(1, 100), st.integers(1, 8), st.floats(1e-6, 1e3), st.integers(0, 2**32 - 1))
def test_each_weight_is_off_by_at_most_one_step_of_its_block(
    rows: int, columns: int, scale: float, seed: int
):
    weight = np.random.default_rng(seed).normal(0, scale, (rows, columns)).astype(np.float32)
    values, scales, zero_points = quantize_blocks(weight)
    back = (values.astype(np.float32) - zero_points[..., None]) * scales[..., None]
    restored = back.reshape(columns, -1)[:, :rows].T
    step = np.repeat(scales, BLOCK, axis=1)[:, :rows].T
    assert (np.abs(restored - weight) <= step * 1.001).all()


def test_a_block_of_zeros_stays_zero():
    values, scales, zero_points = quantize_blocks(np.zeros((BLOCK, 2), np.float32))
    assert (values == zero_points[..., None]).all()
    assert (scales == 1).all()


def test_principal_directions_are_orthonormal_and_keep_the_cosines_of_flat_data():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 20))
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    found = principal_directions(flat.astype(np.float32), 3)
    assert found.T @ found == pytest.approx(np.eye(3), abs=1e-5)
    projected = flat @ found
    assert projected @ projected.T == pytest.approx(flat @ flat.T, abs=1e-5)


def test_principal_directions_have_one_sign_whatever_the_data_s_sign():
    data = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    assert principal_directions(data, 2) == pytest.approx(principal_directions(-data, 2))
