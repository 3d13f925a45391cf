import json

import numpy as np
import pytest

from pipeline.compare import main
from pipeline.comparison import changed_fields, row_cosines
from tests.pipeline import store_factory as factory

DEMO = factory.manifest(6)
AUDIO = factory.spec()


def write(path, spec, change=lambda row, values: values, absent=frozenset()):
    store = factory.FeatureStore.create(path, DEMO, [spec])
    writer = store.writer(spec.key, 0)
    for row in range(6):
        if row in absent:
            writer.fail(row, "absent", "gone")
        else:
            values = factory.rows_of(AUDIO, row, 10)
            writer.put(row, change(row, values).astype(spec.dtype), spec.grid.segments(10.0))
    writer.commit()
    return str(path)


def test_row_cosines_are_those_of_the_formula():
    one = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    two = np.array([[4.0, 3.0], [0.0, 5.0], [0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(row_cosines(one, two), [24 / 25, 0, 1, 0])


def test_equal_stores_have_cosine_one_and_no_difference(tmp_path, capsys):
    one, two = write(tmp_path / "a", AUDIO), write(tmp_path / "b", AUDIO)
    assert main([one, two, "--at-least", "1", "--out", str(tmp_path / "c.json")]) == 0
    (found,) = json.loads((tmp_path / "c.json").read_text())["features"]
    assert (found["cosine_median"], found["cosine_p5"], found["largest"]) == (1.0, 1.0, 0.0)
    assert (found["clips"], found["rows"], found["identical"]) == (6, 60, True)


def test_numbers_equal_those_computed_by_hand(tmp_path):
    def turn_one_clip(row, values):
        return values[:, ::-1] if row == 2 else values + (0.25 if row == 4 else 0)

    one, two = write(tmp_path / "a", AUDIO, absent={0}), write(tmp_path / "b", AUDIO, turn_one_clip, absent={5})
    assert main([one, two, "--at-least", "0.99", "--out", str(tmp_path / "c.json")]) == 3
    (found,) = json.loads((tmp_path / "c.json").read_text())["features"]
    cosines, largest = [], 0.0
    for row in (1, 2, 3, 4):
        old = factory.rows_of(AUDIO, row, 10).astype(float)
        new = turn_one_clip(row, factory.rows_of(AUDIO, row, 10)).astype(float)
        largest = max(largest, np.abs(old - new).max())
        cosines += [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(old, new, strict=True)]
    assert found["cosine_median"] == pytest.approx(np.median(cosines), abs=1e-12)
    assert found["cosine_p5"] == pytest.approx(np.percentile(cosines, 5), abs=1e-12)
    assert found["largest"] == pytest.approx(largest, abs=1e-7)
    assert (found["missing_a"], found["missing_b"]) == ([DEMO.ids[0]], [DEMO.ids[5]])


def test_features_are_matched_by_encoder_and_the_reason_is_told(tmp_path, capsys):
    half = factory.spec(dtype="float16")
    one, two = write(tmp_path / "a", AUDIO), write(tmp_path / "b", half)
    assert main([one, two]) == 0
    assert "dtype: 'float32' -> 'float16'" in capsys.readouterr().out
    other = factory.spec("cnn14")
    three = write(tmp_path / "c", other)
    with pytest.raises(SystemExit):
        main([one, three])
    assert "--pair A=B" in capsys.readouterr().err
    assert main([one, three, "--pair", "vggish:ave2018=cnn14:ave2018"]) == 0


def test_shapes_that_cannot_be_compared_are_named(tmp_path, capsys):
    wide = factory.spec(shape=(5,))
    store = factory.store(tmp_path / "b", DEMO, [wide])
    with pytest.raises(SystemExit):
        main([write(tmp_path / "a", AUDIO), str(store.path)])
    assert "not comparable" in capsys.readouterr().err


def test_changed_fields_names_nested_fields():
    assert changed_fields({"a": 1, "g": {"x": 1, "y": 2}}, {"a": 1, "g": {"x": 3}, "n": 0}) == [
        "g.x: 1 -> 3",
        "g.y: 2 -> None",
        "n: None -> 0",
    ]


def test_features_and_clips_without_counterpart_are_told_and_are_not_identical(tmp_path, capsys):
    more = factory.spec("cnn14")
    one = write(tmp_path / "a", AUDIO)
    factory.store(tmp_path / "a", DEMO, [more], job_clips=factory.FeatureStore.open(one).facts["job_clips"])
    two = write(tmp_path / "b", AUDIO, absent={5})
    assert main([one, two, "--at-least", "0.9", "--out", str(tmp_path / "c.json")]) == 3
    assert f"{more.key:40} in A only" in capsys.readouterr().out
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["not_compared"] == {"A": [more.key], "B": []}
    assert found["features"][0]["identical"] is False
