"""Retrieval of what cannot be ranked."""

import numpy as np
import pytest

from pipeline.metrics.retrieval import recall_at


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_finds_nothing(value):
    similarity = np.full((3, 3), 0.5)
    similarity[1] = value
    with pytest.raises(ValueError, match="3 of 9 similarities are NaN or infinite"):
        recall_at(similarity, np.eye(3))
