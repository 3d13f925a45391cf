"""ave-h5: features, labels and orders that stay row by row together."""

import json

import numpy as np

from pipeline.manifest import Clip, Manifest
from tests.pipeline import store_factory as factory
from tests.pipeline.export_factory import AUDIO, DEMO, VISUAL, export, h5


def test_ave_h5_keeps_rows_in_order_and_a_missing_clip_is_a_row_of_zeros(made, capsys):
    assert export(made, "ave-h5") == 0
    out = made / "out"
    visual, audio = h5(out / "visual_feature.h5"), h5(out / "audio_feature.h5")
    assert visual.dtype == audio.dtype == np.float64
    assert visual.shape == (10, 10, 7, 7, 8)
    for row in range(10):
        np.testing.assert_array_equal(visual[row], factory.rows_of(VISUAL, row, 10))
        expected = np.zeros((10, 6)) if row == 3 else factory.rows_of(AUDIO, row, 10)
        np.testing.assert_array_equal(audio[row], expected)
    np.testing.assert_allclose(h5(out / "visual_feature_vec.h5"), visual.mean(axis=(2, 3)))
    assert h5(out / "train_order.h5", "order").tolist() == [0, 1, 2, 5, 6, 7]
    assert h5(out / "labels_closs.h5")[1].tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    np.testing.assert_array_equal(h5(out / "labels.h5").sum(axis=2), 1)
    np.testing.assert_allclose(h5(out / "prob_label.h5")[1], [0, 0.5, 0, 0.5], rtol=1e-6)
    (gap,) = json.loads((out / "missing.json").read_text())["rows"]
    assert (gap["row"], gap["feature"], gap["outcome"]) == (3, "audio", "absent")
    said = capsys.readouterr()
    assert "1 clips without features, kept as empty rows" in said.out
    assert "need at least 402 rows in test_order.h5, it has 2" in said.err
    assert "no *_order_match split" in said.err


def test_ave_h5_renumbers_all_files_together(made):
    assert export(made, "ave-h5", "--missing", "renumber", "--dtype", "float32") == 0
    out = made / "out"
    rows = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    audio, labels = h5(out / "audio_feature.h5"), h5(out / "labels.h5")
    assert len(audio) == len(labels) == len(h5(out / "visual_feature.h5")) == 9
    assert audio.dtype == np.float32
    for name in ("train", "val", "test"):
        order = h5(out / f"{name}_order.h5", "order")
        assert order.dtype == np.int64
        kept = [row for row in rows if DEMO.clips[row].split == name]
        assert [rows[new] for new in order] == kept
        for new, row in zip(order, kept, strict=True):
            np.testing.assert_array_equal(audio[new], factory.rows_of(AUDIO, row, 10))
            assert labels[new].argmax(axis=1)[row % 4] == row % 3
    record = json.loads((out / "export.json").read_text())
    assert any("CMRAN, CMBS" in note and "float32" in note for note in record["notes"])
    assert json.loads((out / "missing.json").read_text())["dropped"] == [DEMO.ids[3]]


def test_ave_h5_writes_the_background_set_when_given(made):
    noisy = Manifest("ave-noisy", tuple(Clip(f"n{i}", f"n{i}", None, 10.0) for i in range(4)))
    noisy.save(made / "N.parquet")
    factory.store(made / "NS", noisy, [VISUAL, AUDIO], absent={2})
    background = ["--background-manifest", made / "N.parquet", "--background-store", made / "NS"]
    assert export(made, "ave-h5", *background) == 0
    labels = h5(made / "out" / "labels_noisy.h5")
    assert labels.tolist() == [[0, 0, 0, 1]] * 3
    np.testing.assert_array_equal(h5(made / "out" / "audio_feature_noisy.h5")[2], factory.rows_of(AUDIO, 3, 10))
    assert h5(made / "out" / "visual_feature_noisy.h5").shape == (3, 10, 7, 7, 8)
