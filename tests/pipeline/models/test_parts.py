"""Blocks and losses against values measured on the public code, and against plain loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from pipeline.models import ave_targets, blocks, link, parsing, table
from pipeline.models.contrast import segment_contrast
from pipeline.models.dg_sct import Adapter
from pipeline.schedules import misfit, rate
from tests.pipeline.models import networks as n

FIRST = torch.tensor([[[1, 0], [0.8, 0.6], [0, 1]]])
SECOND = torch.tensor([[[0.96, 0.28], [0.6, 0.8], [0.28, 0.96]]])


@pytest.mark.parametrize(
    ("bits", "cold", "warm", "each"),
    [
        ((1, 1, 0), 0.761354, 1.439109, (1.098612, 1.098612, 0, 1.098612, 1.185448, 0.086836)),
        ((1, 1, 1), 1.609438, 1.609438, (math.log(5),) * 6),
        ((0, 0, 0), 0.057891, 1.365282, (0, 0.086836, 0, 0.086836, 0.086836, 0.086836)),
        ((1, 0, 0), 0.057891, 1.365282, (0, 0.086836, 0, 0.086836, 0.086836, 0.086836)),
    ],
)
def test_contrast(bits, cold, warm, each):
    event = torch.tensor([bits])
    values = segment_contrast(FIRST, SECOND, event, 0.01)
    assert values[0].tolist() == pytest.approx(each, abs=2e-5)
    assert values.mean().item() == pytest.approx(cold, abs=1e-5)
    assert segment_contrast(FIRST, SECOND, event, 1.0).mean().item() == pytest.approx(warm, abs=1e-5)


def test_contrast_survives_float32_where_exponentials_do_not():
    assert torch.isinf(torch.tensor(1 / 0.01).exp())
    first = F.normalize(torch.randn(3, 10, 16), dim=2).requires_grad_()
    loss = segment_contrast(first, first.detach(), torch.ones(3, 10)).mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(first.grad).all()


def test_dense_attention_is_the_mean_over_all_shifts():
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 5, 8, dtype=torch.float64), torch.randn(2, 3, 4, 8, dtype=torch.float64)
    looped = torch.zeros(2, 3, 5, 4, dtype=torch.float64)
    for shift in range(8):
        weight = 0.5 if shift == 0 else 0.5 / 7
        looped += weight * query.roll(-shift, dims=-1) @ key.transpose(-1, -2) / 8
    torch.testing.assert_close(blocks.dense_scores(query, key), looped, atol=1e-14, rtol=0)


def test_dense_attention_without_the_other_modality_is_ordinary():
    torch.manual_seed(0)
    dense, ordinary = blocks.DenseAttention(8, 2, 0.0), blocks.attention(8, 2, 0.0)
    ordinary.in_proj_weight.data.copy_(dense.into.weight)
    ordinary.out_proj.load_state_dict(dense.out.state_dict())
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(dense(x, x), ordinary(x, x, x)[0])


def test_ave_targets():
    labels = F.one_hot(torch.tensor([[3, 3, 1, 1], [3, 3, 3, 3], [0, 3, 0, 0]]), 4).float()
    assert ave_targets.foreground(labels).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1]]
    assert ave_targets.event_class(labels).tolist() == [1, 0, 0]


def test_a_video_without_an_event_teaches_no_category():
    labels = torch.zeros(2, 3, 4)
    labels[0, 1, 2] = 1
    labels[..., 3] = 1 - labels[..., :3].amax(dim=2)
    logits = torch.tensor([[0.1, 0.2, 0.9], [5.0, 0.0, 0.0]])
    alone = torch.nn.functional.cross_entropy(logits[:1], torch.tensor([2]))
    torch.testing.assert_close(ave_targets.category_loss(logits, labels), alone)
    assert ave_targets.category_loss(logits[1:], labels[1:]) == 0


def test_soft_margin_and_squashed_gate():
    value = ave_targets.soft_margin(torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[1.0, 0, 0]]))
    assert value.item() == pytest.approx(0.648574, abs=1e-6)
    assert torch.nn.MultiLabelSoftMarginLoss()(
        torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[1.0, 0, 0]])
    ).item() == pytest.approx(value.item())
    gate = F.binary_cross_entropy_with_logits(torch.tensor([0.9, 0.1]), torch.tensor([1.0, 0]))
    assert gate.item() == pytest.approx(0.542775, abs=1e-6)


@pytest.mark.parametrize(
    ("mu", "expected"),
    [
        (1.0, (1, 1, 1, 1, 1)),
        (2.0, (1, math.e, math.e, 1.859141, 1)),
        (0.5, (1, 1.648721, 1.648721, 1.324361, 1)),
    ],
)
def test_link_similarity_weight(mu, expected):
    likeness = torch.tensor([-0.2, -0.19, -0.0, 0.5, 1.0])
    assert link.similarity_weight(likeness, torch.tensor(mu)).tolist() == pytest.approx(expected, abs=1e-6)


def test_link_event_overlap():
    audio = torch.tensor([[[1.0, 1, 0], [0, 0, 0]]])
    visual = torch.tensor([[[1.0, 0, 1], [0, 0, 0]]])
    overlap, known = link.event_overlap(audio, visual)
    torch.testing.assert_close(overlap[0], torch.tensor([[1 / 3, 0], [0, 0]]))
    assert known[0].tolist() == [[True, True], [True, False]]


def test_link_without_its_parts_is_valor():
    torch.manual_seed(3)
    shapes, own = n.TINY["valor-plus-plus"]
    plain = table.build("valor-plus-plus", "weak", shapes, 3, **own).eval()
    bare = table.build("link", "weak", shapes, 3, **own, tsam=False, s_loss=False, plsim=False, label_loss="printed")
    bare.eval().load_state_dict(plain.state_dict())
    made = n.batch(plain, shapes, 4, 3)
    expected = plain.losses(plain(**n.inputs(plain, made)), made, 0)
    found = bare.losses(bare(**n.inputs(bare, made)), made, 0)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}
    )


def test_link_reads_all_pseudo_labels_and_learns_from_those_of_the_videos_classes():
    """Section II-D: the labels of the loss are those of VALOR, fired and in the video label."""
    network, made = n.tiny("link", "weak")
    fired = {name: (torch.rand(made[name].shape) > 0.5).float() for name in network.label_inputs}
    valors = {name: torch.zeros_like(values) for name, values in fired.items()}
    for name, values in fired.items():
        for clip, t, c in values.nonzero().tolist():
            if made["video_labels"][clip, c]:
                valors[name][clip, t, c] = 1
    outputs = network(**n.inputs(network, made | fired))
    assert not torch.equal(outputs["audio"], network(**n.inputs(network, made | valors))["audio"])
    found, wanted = (network.losses(outputs, made | labels, 0) for labels in (fired, valors))
    assert {name: value.item() for name, value in found.items()} == {name: v.item() for name, v in wanted.items()}
    expected = F.binary_cross_entropy_with_logits(outputs["audio_logits"], valors["audio_pseudo"])
    assert found["audio"].item() == pytest.approx(expected.item())


def test_meaning_of_labels():
    text = torch.tensor([[1.0, 0], [0, 2]])
    labels = torch.tensor([[[1.0, 1], [0, 1], [0, 0]]])
    assert link.meaning(labels, text).tolist() == [[[0.5, 1], [0, 2], [0, 0]]]


def test_map_pooling_is_the_published_interpolation():
    torch.manual_seed(0)
    project = torch.nn.Linear(6, 5)
    tokens = torch.randn(2, 64, 6)
    grid = tokens.permute(0, 2, 1).reshape(2, 6, 2, 32)
    stretched = F.interpolate(grid, size=(2, 1024), mode="bicubic")
    stretched = project(stretched.permute(0, 2, 3, 1)).mean(dim=1)
    expected = F.adaptive_avg_pool1d(stretched.transpose(1, 2), 10).transpose(1, 2)
    torch.testing.assert_close(parsing.map_pooling(64, 10) @ project(tokens), expected, atol=1e-5, rtol=1e-5)


def test_pooling_weights_over_time_sum_to_one():
    head = parsing.MILHead(8, 3)
    with torch.no_grad():
        head.probability.weight.zero_()
        head.probability.bias.fill_(50.0)  # every segment is sure
    found = head(torch.randn(2, 5, 8), torch.randn(2, 5, 8))
    for name in ("video_audio", "video_visual"):
        torch.testing.assert_close(found[name], torch.ones(2, 3))


def test_a_fresh_adapter_changes_nothing():
    adapter = Adapter(4, 16, 3, 8).eval()
    added, weights = adapter(torch.randn(2, 4, 16), torch.randn(2, 3, 8))
    assert not added.any()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))


def test_top_mean():
    scores = torch.tensor([[[1.0], [5], [3], [2], [4], [0]]])
    assert blocks.top_mean(scores).item() == 3.5
    assert blocks.top_mean(scores[:, :2]).item() == 3.0


def test_valor_learning_rates():
    schedule = {"kind": "warm-up-cosine", "warm_up": 10, "epochs": 60, "last": 3e-6}
    found = [1e6 * rate(schedule, 3e-4, epoch - 1, 0) for epoch in (1, 5, 9, 10, 11, 35, 59, 60)]
    assert found == pytest.approx([30, 150, 270, 300, 299.707, 151.5, 3.293, 3], abs=5e-4)


@pytest.mark.parametrize(
    ("schedule", "epoch", "iteration", "expected"),
    [
        (None, 500, 9999, 1.0),
        ({"kind": "milestones", "epochs": [10, 20, 30], "factor": 0.5}, 9, 0, 1.0),
        ({"kind": "milestones", "epochs": [10, 20, 30], "factor": 0.5}, 20, 0, 0.25),
        ({"kind": "every-epochs", "every": 10, "factor": 0.1}, 29, 0, 0.01),
        ({"kind": "every-iterations", "every": 15000, "factor": 0.1}, 288, 14999, 1.0),
        ({"kind": "every-iterations", "every": 15000, "factor": 0.1}, 288, 15000, 0.1),
    ],
)
def test_schedules(schedule, epoch, iteration, expected):
    assert rate(schedule, 1.0, epoch, iteration) == pytest.approx(expected)


def test_a_cosine_does_not_rise_again():
    schedule = {"kind": "warm-up-cosine", "warm_up": 10, "epochs": 60, "last": 3e-6}
    assert [rate(schedule, 3e-4, epoch - 1, 0) for epoch in (60, 61, 110)] == pytest.approx([3e-6] * 3)


@pytest.mark.parametrize(
    ("schedule", "epochs", "says"),
    [
        (None, 1, ""),
        ({"kind": "milestones", "epochs": [10, 20, 30], "factor": 0.5}, 31, ""),
        ({"kind": "milestones", "epochs": [10, 20, 30], "factor": 0.5}, 20, "after epoch 20, 30: there are 20"),
        ({"kind": "every-epochs", "every": 10, "factor": 0.1}, 11, ""),
        ({"kind": "every-epochs", "every": 10, "factor": 0.1}, 10, "after 10 epochs, there are 10"),
        ({"kind": "every-iterations", "every": 15000, "factor": 0.1}, 1, ""),
        ({"kind": "warm-up-cosine", "warm_up": 10, "epochs": 60, "last": 0}, 60, ""),
        ({"kind": "warm-up-cosine", "warm_up": 10, "epochs": 60, "last": 0}, 20, "falls over 60 epochs, there are 20"),
    ],
)
def test_what_other_numbers_of_epochs_leave_of_a_schedule(schedule, epochs, says):
    found = misfit(schedule, epochs)
    assert says in found
    assert bool(found) == bool(says)


def test_contrast_starts_late():
    network, made = n.tiny("cace-net", "supervised", contrast_from=25)
    terms = []
    for epoch in (24, 25):
        network.begin_epoch(epoch)
        terms.append(set(network.losses(network(**n.inputs(network, made)), made, epoch)))
    assert terms[1] - terms[0] == {"contrast"}


def test_paper_form_of_cace_net_has_no_event_scores():
    network, made = n.tiny("cace-net", "supervised", event_scores=False, shared_attention=True, contrast=False)
    network.begin_epoch(0)
    outputs = network(**n.inputs(network, made))
    assert set(network.losses(outputs, made, 0)) == {"relevance", "category", "gate"}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: table.build("hann", "weak", {}, 3), "Near: han"),
        (lambda: table.build("han", "supervised", {}, 3), "trained weak"),
        (lambda: table.build("avel", "weak", {"visual": (6, 2, 2, 8)}, 3), "more streams: audio"),
        (lambda: table.build("avel", "weak", n.TINY_AVE, 3, depth=3), "no option depth"),
        (lambda: table.build("dmin", "weak", n.TINY_AVE, 3, depth=3), "it knows width, own_weight"),
        (lambda: table.build("han", "weak", n.TINY_LLP, 3, segments=5), "no multiple of 5"),
        (lambda: table.build("cace-net", "supervised", n.TINY_AVE, 3, guide="ear"), "known are both"),
        (lambda: table.build("dg-sct", "supervised", n.TINY_AVE, 3, adapter=True), "needs maps"),
        (lambda: n.tiny("link", "weak")[0].set_text(torch.zeros(3, 9), torch.zeros(3, 5)), "text_audio"),
    ],
)
def test_wrong_requests_are_told(call, words):
    with pytest.raises(ValueError, match=words):
        call()
