"""The rules by which scores become labels, thresholds and their files, and what a label store refuses."""

import itertools
import json

import numpy as np
import pytest

from extractors.spec import FeatureSpec, FrameSampler, Grid
from pipeline.datasets import llp
from pipeline.labels import LabelStore, Scoring
from pipeline.manifest import Clip, Event
from pipeline.metrics import avvp
from pipeline.pseudolabelling import evaluation, rules, thresholds, truth
from pipeline.pseudolabelling.captions import captions
from pipeline.store import StoreError
from tests.pipeline import store_factory


def scoring(classes=("a", "b"), wording=("A photo of a.", "A photo of b."), recipe="valor2023", encoder="clip-l14"):
    spec = FeatureSpec(
        encoder, recipe, "visual", "image_embeds", (), ("l2",), Grid(1.0, 1.0, 10), FrameSampler(), (4,), "float32",
        "fp32", "sha256:" + "ab" * 32,
    )  # fmt: skip
    return Scoring("visual", spec, classes, wording, 100.0)


def test_only_what_is_strictly_greater_fires():
    scores = np.array([[15.0, 15.000001], [14.9, 16.0]], np.float32)
    assert rules.fire(scores, np.array([15.0, 15.0])).tolist() == [[0, 1], [0, 1]]
    assert rules.fire(scores, np.array([15.0, 15.0]), np.array([1, 0])).tolist() == [[0, 0], [0, 0]]
    # 0.1 as float32 is above 0.1: a threshold rounded to float32 first would not let it fire.
    assert rules.fire(np.array([[0.1]], np.float32), np.array([0.1])).tolist() == [[1]]


def test_scores_are_scale_times_cosine():
    rng = np.random.default_rng(0)
    rows, text = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=(3, 8)).astype(np.float32)
    wanted = [[100 * float(a @ b) / (np.sqrt(a @ a) * np.sqrt(b @ b)) for b in text] for a in rows]
    np.testing.assert_allclose(rules.score(rows, text, 100.0), wanted, rtol=1e-5)
    np.testing.assert_array_equal(rules.score(rows, text, 100.0)[2], rules.score(rows[2:3], text, 100.0)[0])
    assert np.isnan(rules.score(np.zeros((1, 8)), text, 1.0)).all()


def test_rows_are_averaged_within_their_second():
    rows = np.arange(34, dtype=np.float32).reshape(17, 2)
    assert rules.pool(rows, 8).tolist() == [rows[:8].mean(0).tolist(), rows[8:16].mean(0).tolist()]


def test_lsld_offers_every_subset_the_whole_first_and_other_last():
    words = ("Dog", "Cat", "Car", "Bus")
    said = [candidate.caption for candidate in rules.candidates(words, (0, 2, 3), "This is a sound of ")]
    assert said == [
        "This is a sound of " + name
        for name in ("Dog and Car and Bus", "Dog", "Car", "Bus", "Dog and Car", "Dog and Bus", "Car and Bus", "other")
    ]
    offered = rules.candidates(words, (0, 2), "")
    cosines = np.array([[0.1, 0.2, 0.3, 0.0], [0.4, 0.4, 0.1, 0.1], [0.0, 0.0, 0.0, 0.9]])
    assert rules.choose(cosines, offered, 4).tolist() == [[0, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_the_curve_holds_the_best_threshold():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=200).round(1).astype(np.float32)  # with ties
    truth = (rng.random(200) < 0.3).astype(int)
    line = thresholds.curve(scores, truth)
    for threshold, precision, recall, f in zip(
        *(line[name] for name in ("threshold", "precision", "recall", "f")), strict=True
    ):
        fired = scores > threshold
        hits = (fired & (truth == 1)).sum()
        assert recall == pytest.approx(hits / truth.sum())
        assert f == pytest.approx(2 * hits / (fired.sum() + truth.sum()))
        assert precision == pytest.approx(hits / fired.sum() if fired.any() else 1.0)
    every = [2 * ((scores > t) & (truth == 1)).sum() / ((scores > t).sum() + truth.sum()) for t in np.r_[-9, scores]]
    found = thresholds.calibrate(scores[:, None], truth[:, None], ["a"])["a"]
    assert found["f"] == pytest.approx(max(every))
    assert found["positives"] == truth.sum()


def test_a_class_that_the_split_never_shows_does_not_fire_there():
    found = thresholds.calibrate(np.array([[1.0], [3.0]]), np.zeros((2, 1)), ["a"])["a"]
    assert found["f"] is None
    assert found["threshold"] == 3.0


def test_thresholds_belong_to_a_teacher_and_to_captions(tmp_path):
    own = scoring()
    path = tmp_path / "thresholds.json"
    made = thresholds.calibrate(np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[0, 1], [1, 0]]), own.classes)
    thresholds.save(path, {"visual": thresholds.entry(own, "val", made)})
    assert thresholds.load(path, own) == ((2.0, 1.0), "calibrated on split val")
    with pytest.raises(ValueError, match="belong to another teacher"):
        thresholds.load(path, scoring(recipe="lsld2023"))
    with pytest.raises(ValueError, match="belong to other captions"):
        thresholds.load(path, scoring(wording=("a", "b")))
    path.write_text(json.dumps({"format": 1}))
    with pytest.raises(ValueError, match="not a file of calibrated thresholds"):
        thresholds.load(path, own)


def test_published_thresholds_are_for_valors_teachers():
    from pipeline.datasets.description import Prompt

    prompts = [Prompt("a", "A.", 15.0, "x", 2.0, "valor2023"), Prompt("b", "B.", 20.0, "y", None, "valor2023")]
    visual = captions(prompts, "visual")
    assert thresholds.published(visual, scoring().teacher) == (15.0, 20.0)
    with pytest.raises(ValueError, match="are for clip-l14:valor2023, the teacher is clip-b16:valor2023"):
        thresholds.published(visual, scoring(encoder="clip-b16").teacher)
    assert thresholds.published(visual, scoring(encoder="clip-b16").teacher, accept=True) == (15.0, 20.0)
    with pytest.raises(ValueError, match="no threshold for 1 of 2 classes"):
        thresholds.published(captions(prompts, "audio"), scoring().teacher)


def test_captions_must_tell_classes_apart():
    from pipeline.datasets.description import Prompt

    prompts = [Prompt("a", "same", 1, "x", 1, "ours"), Prompt("b", "same", 1, " ", 1, "ours")]
    with pytest.raises(ValueError, match="share the visual caption"):
        captions(prompts, "visual")
    with pytest.raises(ValueError, match="'b': no audio caption"):
        captions(prompts, "audio")


def test_keys_follow_weights_captions_and_nothing_else():
    own = scoring()
    assert own.spec.key == scoring().spec.key
    others = [scoring(wording=("A photo of a.", "A photo of c.")), scoring(recipe="default")]
    assert len({own.spec.key, *(other.spec.key for other in others)}) == 3
    assert Scoring.from_dict(own.companion(np.zeros((2, 4))).facts) == own


def test_a_feature_store_is_no_label_store(tmp_path):
    made = store_factory.manifest()
    store_factory.store(tmp_path / "features", made, [store_factory.spec()])
    with pytest.raises(StoreError, match="holds no pseudo-labels"):
        LabelStore.open(tmp_path / "features")


def test_evaluation_counts_as_the_metric_does():
    rng = np.random.default_rng(2)
    true = {name: (rng.random((12, 10, 3)) < 0.4).astype(float) for name in ("audio", "visual")}
    predicted = {
        name: np.where(rng.random((12, 10, 3)) < 0.8, grid, 1 - grid).astype(np.uint8) for name, grid in true.items()
    }
    weak = (true["audio"].any(1) | true["visual"].any(1)).astype(float)
    inside = {name: np.ones((12, 10), bool) for name in true}
    found = evaluation.split_scores(predicted, true, weak, inside, "abc")
    for modality, (c, name) in itertools.product(true, enumerate("abc")):
        p, t = predicted[modality][..., c] > 0, true[modality][..., c] > 0
        entry = found["classes"][modality][name]
        assert entry["precision"] == pytest.approx((p & t).sum() / p.sum())
        assert entry["recall"] == pytest.approx((p & t).sum() / t.sum())
    assert found["table"] == avvp.scores(predicted["audio"], predicted["visual"], true["audio"], true["visual"])
    assert found["f"]["audio"]["labels"]["segment"] > found["f"]["audio"]["chance"]["segment"] + 10
    both = (predicted["audio"] & predicted["visual"]).sum()
    assert found["agreement"]["audio_confirmed"] == pytest.approx(both / predicted["audio"].sum())


def test_truth_follows_the_rows_of_the_key():
    """UnAV-100 has events of fractions of a second, and rows need not be seconds."""
    events = (Event("a", "both", 0.6, 2.5), Event("b", "audio", 1.1, 1.3), Event("b", "visual", 3.0, 4.0))
    clip = Clip("c", "c", None, 4.0, "test", (), events)
    seconds = np.array([[0, 1], [1, 2], [2, 3], [3, 4]], float)
    assert np.argwhere(truth.true_rows(clip, "ab", "audio", seconds)).tolist() == [[1, 0], [1, 1], [2, 0]]
    assert np.argwhere(truth.true_rows(clip, "ab", "visual", seconds)).tolist() == [[1, 0], [2, 0], [3, 1]]
    halves = np.stack([np.arange(8) / 2, np.arange(8) / 2 + 0.5], axis=1)
    assert np.flatnonzero(truth.true_rows(clip, "ab", "visual", halves)[:, 0]).tolist() == [1, 2, 3, 4]


def test_truth_of_whole_seconds_is_the_published_grid():
    rng = np.random.default_rng(0)
    events = []
    for _ in range(12):
        start, end = sorted(rng.choice(11, 2, replace=False).tolist())
        events.append(Event("abc"[rng.integers(3)], ("audio", "visual", "both")[rng.integers(3)], start, end))
    clip = Clip("c", "c", None, 10.0, "test", (), tuple(events))
    empty = [Event("a", "both", float(second), float(second)) for second in (0, 5, 10)]
    nothing = Clip("n", "n", None, 10.0, "test", (), tuple(empty))
    seconds = np.stack([np.arange(10.0), np.arange(1.0, 11.0)], axis=1)
    for modality, grid in zip(("audio", "visual"), llp.dense_grids([clip], "abc"), strict=True):
        np.testing.assert_array_equal(truth.true_rows(clip, "abc", modality, seconds).T, grid[0] > 0)
        assert not truth.true_rows(nothing, "abc", modality, seconds).any(), "two rows touch an event without length"


def test_lsld_prompts_have_a_prefix_for_sound_only():
    """Wording of fyyCS/LSLD@d34c988: three captions of a clip with two labels, and `other`."""
    from pipeline.datasets.description import MANIFESTS, load, read_prompts

    classes = load("llp").classes
    prompts = read_prompts(MANIFESTS / "llp" / "prompts-lsld2023.tsv", classes)
    for modality, prefix in (("visual", ""), ("audio", "This is a sound of ")):
        asked = captions(prompts, modality)
        assert asked.shared_prefix == prefix
        words = [text.removeprefix(prefix) for text in asked.texts]
        own = (classes.index("Speech"), classes.index("Acoustic_guitar"))
        said = [candidate.caption for candidate in rules.candidates(words, own, prefix)]
        assert said == [prefix + name for name in (
            "Speeching and playing the guitar", "Speeching", "playing the guitar", "other",
        )]  # fmt: skip
