"""What a source has of the clips that are asked for."""

import pytest

from pipeline.acquisition.folder import FolderSource
from pipeline.acquisition.ledger import Ledger
from pipeline.acquisition.plan import make_plan
from pipeline.acquisition.shelf import Shelf
from pipeline.manifest import Clip


@pytest.mark.parametrize(
    ("clip", "ids"), [(Clip("a_0_10", "a"), "by the id a_0_10 or a"), (Clip("a", "a"), "by the id a")]
)
def test_a_clip_that_is_not_there_is_said_to_be_by_each_id_once(tmp_path, clip, ids):
    (tmp_path / "source").mkdir()
    shelf = Shelf(tmp_path / "media")
    plan = make_plan([clip], "llp", FolderSource(tmp_path / "source"), Ledger(tmp_path / "l", "llp"), shelf, "all")
    assert plan.nowhere[0].message.endswith(ids)
