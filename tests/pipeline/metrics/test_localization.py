"""mAP and soft-NMS: worked examples measured on the public code, and a plain-loop twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.localization import THRESHOLDS, Detections, mean_average_precision, soft_nms, without_duplicates

VIDEOS = "abcdefgh"


def detections(*rows: tuple) -> Detections:
    """Rows are (video, class, start, end[, score])."""
    columns = list(zip(*rows, strict=True))
    return Detections([VIDEOS.index(name) for name in columns[0]], *columns[1:])


# name: truth, predictions, mAP at 0.1..0.9, average
EXAMPLES = {
    "U1": ([("a", 0, 0, 10)], [("a", 0, 0, 10, 0.9)], [1] * 9, 1),
    "U2": ([("a", 0, 0, 10)], [("a", 0, 0, 5, 0.9), ("a", 0, 0, 10, 0.8)], [1] * 5 + [0.5] * 4, 0.777778),
    "U3": (
        [("a", 0, 0, 10), ("a", 0, 2, 12)],
        [("a", 0, 0, 10, 0.9), ("a", 0, 0, 10, 0.8)],
        [1] * 6 + [0.5] * 3,
        0.833333,
    ),
    "U4": ([("a", 0, 0, 10), ("b", 1, 3, 8)], [("a", 0, 0, 10, 0.9), ("b", 0, 3, 8, 0.95)], [0.25] * 9, 0.25),
    "U5": ([("a", 0, 0, 10), ("a", 0, 0.0005, 10)], [("a", 0, 0, 10, 0.9)], [1] * 9, 1),
    "U7": (
        [("a", 0, 0, 10), ("a", 0, 20, 30), ("b", 0, 0, 4)],
        [("a", 0, 0, 9, 0.9), ("b", 0, 10, 12, 0.8), ("a", 0, 21, 29, 0.7), ("c", 0, 0, 4, 0.6), ("b", 0, 0, 3, 0.5)],
        [0.755556] * 7 + [0.555556, 0.333333],
        0.68642,
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_example(name):
    truth, found, per_threshold, average = EXAMPLES[name]
    values, mean = mean_average_precision(detections(*truth), detections(*found))
    assert values == pytest.approx(per_threshold, abs=1e-6)
    assert mean == pytest.approx(average, abs=1e-6)


def test_colliding_class_numbers_are_the_references_trap():
    truth = detections(("a", 3, 0, 10), ("b", 7, 3, 8))
    found = detections(("a", 3, 0, 10, 0.9), ("b", 1, 3, 8, 0.8))
    assert mean_average_precision(truth, found)[1] == pytest.approx(0.5)
    assert mean_average_precision(truth, found, reference_ids=True)[1] == pytest.approx(1.0)


def test_the_first_of_two_duplicates_stays():
    truth = detections(("a", 0, 5, 6), ("a", 0, 0.0009, 10), ("a", 0, 0, 10), ("b", 0, 0, 10), ("a", 1, 0, 10))
    assert without_duplicates(truth).start_s.tolist() == [5, 0.0009, 0, 0]


def loop_map(truth: Detections, found: Detections) -> np.ndarray:
    """The rules of the metric, one prediction at a time."""
    truth = without_duplicates(truth)
    table = []
    for label in np.unique(truth.label):
        real = [row for row in range(len(truth)) if truth.label[row] == label]
        ours = sorted((row for row in range(len(found)) if found.label[row] == label), key=lambda r: -found.score[r])
        values = []
        for threshold in THRESHOLDS:
            taken, hits = set(), []
            for row in ours:
                overlaps = []
                for other in real:
                    if truth.video[other] == found.video[row]:
                        begin, end = truth.start_s[other], truth.end_s[other]
                        shared = max(min(end, found.end_s[row]) - max(begin, found.start_s[row]), 0)
                        lengths = end - begin + found.end_s[row] - found.start_s[row]
                        overlaps.append((shared / (lengths - shared), other))
                hit = False
                for overlap, other in sorted(overlaps, key=lambda pair: -pair[0]):
                    if overlap < threshold:
                        break
                    if other not in taken:
                        taken.add(other)
                        hit = True
                        break
                hits.append(hit)
            area, best = 0.0, 0.0
            for position in range(len(hits) - 1, -1, -1):
                best = max(best, sum(hits[: position + 1]) / (position + 1))
                area += best * hits[position] / len(real)
            values.append(area)
        table.append(values)
    return np.mean(table, axis=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 25))
def test_agrees_with_plain_loops(seed, real, ours):
    rng = np.random.default_rng(seed)

    def draw(count, scored):
        start = rng.uniform(0, 20, count)
        score = rng.permutation(count) / count if scored else None
        end = start + rng.uniform(1, 10, count)
        return Detections(rng.integers(0, 3, count), rng.integers(0, 3, count), start, end, score)

    truth, found = draw(real, False), draw(ours, True)
    np.testing.assert_allclose(mean_average_precision(truth, found)[0], loop_map(truth, found), atol=1e-12)


@pytest.mark.parametrize(
    ("segments", "scores", "labels", "sigma", "order", "expected"),
    [
        ([[0, 10], [1, 11]], [0.9, 0.8], [0, 0], 0.4, [0, 1], [0.9, 0.150064]),
        ([[0, 10], [1, 11]], [0.9, 0.8], [0, 1], 0.4, [0, 1], [0.9, 0.8]),
        ([[0, 10], [0, 10], [20, 30]], [0.9, 0.011, 0.5], [0, 0, 0], 0.4, [0, 2], [0.9, 0.5]),
        ([[0, 10], [1, 11], [4, 14]], [0.6, 0.9, 0.5], [0, 0, 0], 0.5, [1, 2, 0], [0.9, 0.279982, 0.108934]),
    ],
)
def test_soft_nms(segments, scores, labels, sigma, order, expected):
    kept, values = soft_nms(np.array(segments), np.array(scores), np.array(labels), sigma)
    assert kept.tolist() == order
    assert values == pytest.approx(expected, abs=1e-6)


def test_soft_nms_keeps_a_weak_first_pick_and_at_most_so_many():
    kept, values = soft_nms(np.array([[0, 1], [5, 6]]), np.array([0.0005, 0.9]), np.array([0, 1]))
    assert values.tolist() == [0.9, 0.0005]
    starts = np.arange(300.0) * 10
    kept, _ = soft_nms(np.stack([starts, starts + 5], 1), np.linspace(1, 0.5, 300), np.arange(300) % 2)
    assert kept.tolist() == list(range(100))


def test_wrong_input_is_told():
    with pytest.raises(ValueError, match="need scores"):
        mean_average_precision(detections(("a", 0, 0, 1)), detections(("a", 0, 0, 1)))
    with pytest.raises(ValueError, match="different lengths"):
        Detections([0, 1], [0], [0.0], [1.0])
