"""The report's section on pseudo-labels, from a receipt and a label store."""

import numpy as np

from pipeline import labels
from pipeline.labels import Labelling, LabelStore
from pipeline.pseudolabelling.evaluation import evaluate
from pipeline.reporting.gather import open_run
from pipeline.reporting.pseudolabels import label_reports
from pipeline.run import write_json
from tests.pipeline import store_factory
from tests.pipeline.test_labels import scoring


def test_the_section_shows_scores_by_class_and_over_time(tmp_path):
    made = store_factory.manifest(10)
    made.save(tmp_path / "manifest.parquet")
    own = scoring(made.classes, ("a", "b", "c"))
    labelling = Labelling(own.spec.key, "valor2023", (0.0, 0.0, 0.0), "none", "ours")
    store = labels.create(tmp_path / "labels", made, [(own, np.ones((3, 4)))], [(labelling, own)])
    rng = np.random.default_rng(0)
    key = labelling.spec(own).key
    writers = [store.writer(name, 0) for name in (own.spec.key, key)]
    for row in range(len(made)):
        scores = rng.normal(size=(10, 3)).astype(np.float32)
        for writer, values in zip(writers, (scores, (scores > 0).astype(np.uint8)), strict=True):
            writer.put(row, values, own.spec.grid.segments(10.0))
    for writer in writers:
        writer.commit()
    found = evaluate(made, LabelStore.open(tmp_path / "labels"))
    entry = {
        "teacher": {"name": "clip-l14:valor2023", "key": own.teacher.key, "weights": "sha256:<b>"},
        "scale": 100.0, "origin": "ours", "labels": {"none": key},
    }  # fmt: skip
    receipt = {"stage": "pseudolabel", "modalities": {"visual": entry}, "evaluation": {"none": found}, "curves": {}}
    write_json(tmp_path / "receipts" / "pseudolabel.json", receipt)
    run = open_run(tmp_path)
    (report,) = label_reports(run)
    assert run.notes == []
    assert set(report.figures) == {"Precision and recall by class", "Scores over time against the truth"}
    assert {row["split"] for row in report.rows} == {"train", "val", "test"}
    values = found["test"]["f"]["visual"]
    (row,) = [row for row in report.rows if row["split"] == "test"]
    assert row["labels"] == values["labels"]["segment"]
    assert "clip-l14:valor2023" in [teacher["name"] for teacher in report.teachers]


def test_other_receipts_are_not_pseudo_labels(tmp_path):
    write_json(tmp_path / "receipts" / "other.json", {"stage": "extract"})
    run = open_run(tmp_path)
    assert label_reports(run) == []
