"""AVVP F-scores: worked examples and label-only values of the public evaluation code, and a plain-loop twin."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics import avvp

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "llp"
CLASSES = """
Speech Car Cheering Dog Cat Frying_(food) Basketball_bounce Fire_alarm Chainsaw Cello Banjo Singing Chicken_rooster
Violin_fiddle Vacuum_cleaner Baby_laughter Accordion Lawn_mower Motorcycle Helicopter Acoustic_guitar
Telephone_bell_ringing Baby_cry_infant_cry Blender Clapping
""".split()  # noqa: SIM905


def grid(*events: tuple[int, int, int]) -> np.ndarray:
    cells = np.zeros((1, 10, 25), dtype=np.uint8)
    for label, start, stop in events:
        cells[0, start:stop, label] = 1
    return cells


V7 = (grid((0, 0, 4), (3, 2, 9)), grid((3, 0, 10), (1, 5, 7)), grid((0, 0, 5), (3, 5, 10)), grid((3, 0, 10)))
V8 = (grid((11, 0, 10)), grid((11, 0, 6)), grid((11, 0, 10), (20, 0, 10)), grid((11, 4, 10), (20, 0, 10)))
# (audio, visual, true audio, true visual) -> segment A V AV Event, event A V AV Event
EXAMPLES = {
    "V1": ((grid(), grid(), grid(), grid()), (1, 1, 1, 1), (1, 1, 1, 1)),
    "V2": ((grid((0, 0, 10)), grid(), grid(), grid()), (0, 1, 1, 0), (0, 1, 1, 0)),
    "V3": ((grid((3, 0, 8)), grid(), grid((3, 0, 4)), grid()), (0.666667, 1, 1, 0.666667), (1, 1, 1, 1)),
    "V4": ((grid((3, 0, 9)), grid(), grid((3, 0, 4)), grid()), (0.615385, 1, 1, 0.615385), (0, 1, 1, 0)),
    "V5": (
        (grid((3, 0, 5), (3, 6, 10)), grid(), grid((3, 0, 10)), grid()),
        (0.947368, 1, 1, 0.947368),
        (0.666667, 1, 1, 0.666667),
    ),
    "V6": (
        (grid((3, 0, 4), (3, 5, 9)), grid(), grid((3, 0, 10)), grid()),
        (0.888889, 1, 1, 0.888889),
        (0, 1, 1, 0),
    ),
    "V7": (V7, (0.777778, 0.5, 0.666667, 0.587963), (1, 0.5, 1, 0.666667)),
    "V8": (V8, (0.5, 0.166667, 0.166667, 0.375), (0.5, 0, 0, 0.25)),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_example(name):
    grids, segment, event = EXAMPLES[name]
    found = avvp.f_scores(*grids)
    for level, expected in (("segment", segment), ("event", event)):
        values = [float(found[level][column][0]) for column in ("A", "V", "AV", "Event")]
        assert values == pytest.approx(expected, abs=1e-6), level


def test_two_videos_are_averaged():
    pair = [np.concatenate(grids) for grids in zip(V7, V8, strict=True)]
    table = avvp.scores(*pair)
    assert list(table["segment"].values()) == pytest.approx([63.8889, 33.3333, 41.6667, 46.2963, 48.1481], abs=1e-4)
    assert list(table["event"].values()) == pytest.approx([75, 25, 50, 50, 45.8333], abs=1e-4)
    assert tuple(table["segment"]) == avvp.COLUMNS


def test_runs():
    assert avvp.runs(np.array([int(bit) for bit in "1101001111"])) == [(0, 2), (3, 4), (6, 10)]


def test_decisions_are_inclusive_and_need_the_video():
    video = np.array([[0.5, 0.49999]])
    frames = np.array([[[0.5, 0.9], [0.49, 0.9]]])
    assert avvp.decide(video, frames).tolist() == [[[True, False], [False, False]]]


def loop_f_scores(audio, visual, true_audio, true_visual, overlap=0.5):
    """The same rules, one clip and class at a time."""

    def segment(p, g):
        return sum(p * g), sum(p * (1 - g)), sum((1 - p) * g)

    def event(p, g):
        def reaches(run, others):
            for other in others:
                shared = max(0, min(run[1], other[1]) - max(run[0], other[0]))
                if shared / (run[1] - run[0] + other[1] - other[0] - shared) >= overlap:
                    return True
            return False

        ours, theirs = avvp.runs(p), avvp.runs(g)
        hits = sum(reaches(run, theirs) for run in ours)
        return hits, len(ours) - hits, sum(not reaches(run, ours) for run in theirs)

    result = {}
    for level, count in (("segment", segment), ("event", event)):
        columns = {"A": [], "V": [], "AV": [], "Event": []}
        for clip in range(len(audio)):
            per = {name: [] for name in columns}
            for label in range(audio.shape[2]):
                a, v, ga, gv = (cells[clip, :, label].astype(int) for cells in (audio, visual, true_audio, true_visual))
                counts = {"A": count(a, ga), "V": count(v, gv), "AV": count(a * v, ga * gv)}
                counts["Event"] = tuple(x + y for x, y in zip(counts["A"], counts["V"], strict=True))
                for name, (tp, fp, fn) in counts.items():
                    if tp + fp + fn:
                        per[name].append(2 * tp / (2 * tp + fp + fn))
            for name, values in per.items():
                columns[name].append(sum(values) / len(values) if values else 1.0)
        result[level] = columns
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 12), st.integers(1, 4), st.floats(0.05, 0.95))
def test_agrees_with_plain_loops(seed, clips, segments, classes, density):
    rng = np.random.default_rng(seed)
    grids = [(rng.random((clips, segments, classes)) < density).astype(np.uint8) for _ in range(4)]
    fast, slow = avvp.f_scores(*grids), loop_f_scores(*grids)
    for level in fast:
        for name in fast[level]:
            np.testing.assert_allclose(fast[level][name], slow[level][name], atol=1e-12)


def test_wrong_grids_are_told():
    with pytest.raises(ValueError, match="same shape"):
        avvp.scores(grid(), grid(), grid(), np.zeros((1, 10, 24)))
    empty = np.zeros((0, 10, 25))
    with pytest.raises(ValueError, match="no clip"):
        avvp.scores(empty, empty, empty, empty)


@pytest.fixture(scope="module")
def llp():
    """Test split of the real annotations: weak labels, grids from the corrected and from the 2020 audio file."""
    if not (DATA / "AVVP_eval_audio.csv").exists():
        pytest.skip("the published LLP annotations are not here")

    def rows(name):
        with open(DATA / name, encoding="utf-8") as file:
            return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))

    clips = rows("AVVP_test_pd.csv")
    index = {row["filename"]: number for number, row in enumerate(clips)}
    weak = np.zeros((len(clips), 25))
    for number, row in enumerate(clips):
        weak[number, [CLASSES.index(name) for name in row["event_labels"].split(",")]] = 1

    def dense(name):
        cells = np.zeros((len(clips), 10, 25), dtype=np.uint8)
        for row in rows(name):
            if row["filename"] in index:
                label = CLASSES.index(row["event_labels"])
                cells[index[row["filename"]], int(row["onset"]) : int(row["offset"]), label] = 1
        return cells

    return weak, dense("AVVP_eval_audio.csv"), dense("AVVP_eval_visual.csv"), dense("older/AVVP_eval_audio.csv")


def test_label_only_values_on_the_real_test_split(llp):
    weak, audio, visual, _ = llp
    values = avvp.label_only(weak, audio, visual)
    everywhere, nothing = values["weak label everywhere"], values["nothing"]
    expected = [76.118, 60.348, 52.610, 63.025, 71.726]
    assert list(everywhere["segment"].values()) == pytest.approx(expected, abs=6e-4)
    expected = [63.027, 55.753, 44.692, 54.491, 61.601]
    assert list(everywhere["event"].values()) == pytest.approx(expected, abs=6e-4)
    for level in ("segment", "event"):
        assert list(nothing[level].values()) == pytest.approx([0.5, 10.083, 14.5, 8.361, 0.0], abs=6e-4)


def test_corrected_labels_scored_on_the_2020_file(llp):
    _, audio, visual, older = llp
    table = avvp.scores(audio, visual, older, visual)
    segment, event = table["segment"], table["event"]
    assert [segment[name] for name in ("A", "AV", "Event")] == pytest.approx([99.955, 99.994, 99.957], abs=6e-4)
    assert [event[name] for name in ("A", "AV", "Event")] == pytest.approx([99.950, 99.983, 99.952], abs=6e-4)
    assert segment["V"] == event["V"] == 100.0
