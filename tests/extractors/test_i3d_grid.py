"""The window arithmetic against counts published with, or measured on, the UnAV-100 features."""

import numpy as np
import pytest

from extractors.i3d_grid import rows, segments, to_grid, to_seconds, windows
from extractors.recipes import recipe


@pytest.mark.parametrize(("seconds", "wanted"), [(10.0, 29), (47.68, 146), (1.0, 1), (0.96, 0), (0.0, 0)])
def test_published_counts(seconds, wanted):
    assert rows(round(seconds * 25)) == wanted


def test_windows_leave_room_for_the_last_flow_field():
    for frames in range(24, 300):
        ends = windows(frames)[:, 1]
        assert all(end + 1 <= frames for end in ends)
        assert (rows(frames) * 8 + 25) > frames  # one more window would not fit


def test_times():
    found = segments(250)
    assert found.shape == (29, 2)
    np.testing.assert_allclose(found[:2], [[0.0, 0.96], [0.32, 1.28]])
    np.testing.assert_allclose(to_grid(found.mean(axis=1)), np.arange(29), atol=1e-12)
    assert to_grid(10.0) == (10.0 * 25 - 12) / 8
    np.testing.assert_allclose(to_seconds(to_grid([0.0, 3.3])), [0.0, 3.3], atol=1e-12)


def test_audio_rows_start_with_the_video_rows():
    """Both UnAV streams share their starts, so a loader that cuts to the shorter one keeps them aligned."""
    audio = recipe("vggish:unav2023").spec.grid.segments(10.0)
    np.testing.assert_allclose(audio[:, 0], segments(250)[:, 0], atol=1e-12)
