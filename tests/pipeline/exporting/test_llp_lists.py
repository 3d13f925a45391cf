"""The lists of LLP, written from the manifest, against the published ones."""

import pytest

from pipeline.datasets import llp
from pipeline.datasets.description import load as describe
from pipeline.exporting.llp_lists import CLIP_LISTS, EVENT_LISTS, FULL_LIST, write_lists
from pipeline.exporting.request import Export, Request
from tests.real_data import FOLDER as DATA


def test_llp_lists_written_from_the_manifest_equal_the_published_ones(tmp_path):
    """Except one row with a repeated label, and the evaluation rows that every evaluator ignores."""
    if not (DATA / "llp" / "AVVP_train.csv").exists():
        pytest.skip("the public LLP annotation files are not beside the project")
    made = llp.read(describe("llp"), DATA / "llp")
    everything = list(range(len(made)))
    write_lists(Request(made, None, tmp_path), tmp_path / "data", everything, Export())
    for name in ("AVVP_train.csv", "AVVP_val_pd.csv"):
        assert (tmp_path / "data" / name).read_bytes() == (DATA / "llp" / name).read_bytes()
    written = (tmp_path / "data" / "AVVP_test_pd.csv").read_text().splitlines()
    published = (DATA / "llp" / "AVVP_test_pd.csv").read_text().splitlines()
    different = [(a, b) for a, b in zip(written, published, strict=True) if a != b]
    assert different == [("LcFWKgFphXI_20_30\tClapping", "LcFWKgFphXI_20_30\tClapping,Clapping")]
    for name, ignored, inverted in [("AVVP_eval_visual.csv", 11, 0), ("AVVP_eval_audio.csv", 14, 1)]:
        rows = sorted((tmp_path / "data" / name).read_text().splitlines())
        wanted = sorted((DATA / "llp" / name).read_text().splitlines())
        assert len(wanted) - len(rows) == ignored + inverted
        assert set(rows) <= set(wanted)
    write_lists(Request(made, None, tmp_path, annotations=DATA / "llp"), tmp_path / "data", everything, Export())
    for path in (tmp_path / "data").iterdir():
        assert path.read_bytes() == (DATA / "llp" / path.name).read_bytes()


def test_the_full_list_need_not_be_at_hand(tmp_path):
    (tmp_path / "given").mkdir()
    for split, name in CLIP_LISTS.items():
        (tmp_path / "given" / name).write_text(f"filename\tevent_labels\n{split}\tDog\n")
    for name in EVENT_LISTS.values():
        (tmp_path / "given" / name).write_text("filename\tonset\toffset\tevent_labels\n")
    request = Request(None, None, tmp_path, annotations=tmp_path / "given")
    write_lists(request, tmp_path / "data", [], Export())
    full = (tmp_path / "data" / FULL_LIST).read_text()
    assert full == "filename\tevent_labels\ntrain\tDog\nval\tDog\ntest\tDog\n"
