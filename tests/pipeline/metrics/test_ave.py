"""AVE accuracy against the worked examples and label-only values measured on the public evaluation code."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.metrics import ave

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "ave"
TARGET = np.array([[28, 28, 28, 5, 5, 5, 5, 5, 5, 5]])
GATE = np.array([[-1, 0.2, 0.0, 1, 1, 1, -0.1, 1, 1, 1]])


def winner(index: int, width: int = 28) -> np.ndarray:
    scores = np.zeros((1, width))
    scores[0, index] = 1
    return scores


def test_gate_and_class_decide_a_segment():
    assert ave.accuracy(ave.gated(GATE, winner(5), 28), TARGET) == pytest.approx(80.0)


def test_a_wrong_class_leaves_only_the_background_segments():
    assert ave.accuracy(ave.gated(GATE, winner(9), 28), TARGET) == pytest.approx(20.0)


def test_videos_are_pooled():
    gate = np.concatenate([GATE, np.full((1, 10), 2.0)])
    category = np.concatenate([winner(5), winner(0)])
    target = np.concatenate([TARGET, np.zeros((1, 10), dtype=int)])
    assert ave.accuracy(ave.gated(gate, category, 28), target) == pytest.approx(90.0)


def test_background_may_win_the_weak_rule():
    assert ave.accuracy(ave.gated(np.full((1, 10), 2.0), winner(28, 29), 28), TARGET) == pytest.approx(30.0)


def test_probabilities_read_as_logits_let_every_segment_pass():
    gate = np.array([[0.01, 0.02, 0.03, 0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9]])
    trap = ave.gated(gate, winner(5, 29), 28, "probabilities-as-logits")
    assert ave.accuracy(trap, TARGET) == pytest.approx(70.0)
    assert ave.accuracy(ave.gated(gate, winner(5, 29), 28, "probabilities"), TARGET) == pytest.approx(90.0)


def test_per_segment_argmax():
    predicted = np.array([[28, 28, 5, 5, 5, 5, 5, 7, 28, 5]])
    scores = np.eye(29)[predicted]
    assert ave.accuracy(ave.per_segment(scores), TARGET) == pytest.approx(70.0)


def test_half_is_background_both_ways():
    assert (ave.gated(np.zeros((1, 3)), winner(4), 28) == 28).all()
    assert (ave.gated(np.full((1, 3), 0.5), winner(4), 28, "probabilities") == 28).all()


def test_unweighted_batches_overweigh_the_last():
    predicted = np.zeros((402, 10), dtype=int)
    target = predicted.copy()
    target[400:] = 1  # the last batch of 8 holds these two videos alone
    assert ave.accuracy(predicted, target) == pytest.approx(100 * 400 / 402)
    assert ave.accuracy(predicted, target, batch=8) == pytest.approx(100 * 50 / 51)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ave.gated(GATE, winner(5, 27), 28), "do not fit"),
        (lambda: ave.gated(GATE, winner(5), 28, "percent"), "known are"),
        (lambda: ave.accuracy(TARGET, TARGET[:, :9]), "differ in shape"),
        (lambda: ave.accuracy(np.zeros((0, 10)), np.zeros((0, 10))), "no segment"),
    ],
)
def test_wrong_shapes_are_told(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_label_only_values_on_the_real_test_split():
    if not (DATA / "labels.h5").exists():
        pytest.skip("the published AVE labels are not here")
    import h5py

    with h5py.File(DATA / "labels.h5") as labels, h5py.File(DATA / "test_order.h5") as order:
        target = labels["avadataset"][:][order["order"][:]]
    values = ave.label_only(target)
    assert values["always background"] == pytest.approx(17.786, abs=5e-4)
    assert values["oracle class, always on"] == pytest.approx(82.214, abs=5e-4)
    assert (target[..., :28].sum(axis=(1, 2)) == 10).mean() == pytest.approx(0.649, abs=5e-4)
    constant = np.full(target.shape[:2], 28)
    assert ave.accuracy(constant, target) == pytest.approx(values["always background"])
