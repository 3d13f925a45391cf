import numpy as np
import pytest

from benchmarks import agreement


def test_compare_reports_scale_and_direction():
    rows = np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)
    assert agreement.compare(rows, rows) == (0.0, pytest.approx(1.0))
    relative, cosine = agreement.compare(rows, rows + np.array([[0.0, 0.04], [0.0, 0.0]]))
    assert (relative, cosine) == (pytest.approx(0.04 / 4.04), pytest.approx(1.0, abs=1e-4))
    assert agreement.compare(rows, rows[::-1]) == (pytest.approx(1.0), 0.0)
    with pytest.raises(ValueError, match="ours is"):
        agreement.compare(rows, rows[:1])


def test_agreement_is_by_difference_for_fp32_and_by_direction_otherwise():
    assert agreement.agreement("resnet50", "fp32", 5e-5, 1.0)["equal"]
    assert not agreement.agreement("resnet50", "fp32", 5e-4, 1.0)["equal"]
    assert agreement.agreement("resnet50", "bf16", 5e-2, 0.9995)["equal"]
    assert not agreement.agreement("resnet50", "bf16", 5e-2, 0.99)["equal"]


def test_cosines_are_row_by_row():
    ours = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    theirs = np.array([[4.0, 3.0], [0.0, 2.0], [1.0, 0.0]])
    assert agreement.cosines(ours, theirs).tolist() == pytest.approx([0.96, 0.0, 0.0])
