"""Files: where a clip's is looked for, and what does not open."""

import pytest

from pipeline.manifest import Clip
from pipeline.mediafile import MediaError, find


def test_files_are_found_by_id_then_source_then_in_full(tmp_path):
    clip = Clip("abc_5_15", "abc", start_s=5.0, duration_s=10.0)
    with pytest.raises(MediaError, match="abc_5_15"):
        find(clip, tmp_path)
    (tmp_path / "full").mkdir()
    for name, whole in (("full/abc.mp4", True), ("abc.webm", False), ("abc_5_15.mp4", False)):
        (tmp_path / name).touch()
        assert find(clip, tmp_path) == (tmp_path / name, whole)


def test_a_media_path_cannot_leave_the_folder(tmp_path):
    with pytest.raises(ValueError, match="stay inside"):
        find(Clip("a", "a", media="../secret.mp4"), tmp_path)
