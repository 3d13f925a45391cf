"""Samples at another rate."""

import numpy as np
import pytest

from pipeline.waveform import resample
from tests import media_factory as make


@pytest.mark.parametrize("method", ["soxr_hq", "kaiser_best"])
def test_resampling_equals_librosa(method):
    librosa = pytest.importorskip("librosa")
    wave = make.tone(0.7, 44_100)[0]
    theirs = librosa.resample(wave, orig_sr=44_100, target_sr=16_000, res_type=method)
    np.testing.assert_array_equal(resample(wave, 44_100, 16_000, method), theirs)


def test_unknown_resampler_is_refused():
    with pytest.raises(ValueError, match="soxr_hq"):
        resample(np.zeros(10, np.float32), 8000, 16000, "nearest")
