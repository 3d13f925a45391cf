from benchmarks import precision


def test_half_precision_is_near_and_not_equal():
    found = precision.one_encoder("clip-tiny", "cpu")
    (half,) = [other for other in found["others"] if (other["backend"], other["precision"]) == ("torch", "bf16")]
    assert 0.99 < half["cosine"] < 1.0
    assert 0.0 < half["difference"] < 0.1
    assert found["neighbours"] < half["cosine"], "seconds cannot be told apart"
    for other in found["others"]:
        if other["precision"] == "fp32":
            assert 0.0 < other["difference"] < 5e-5
    assert set(found["threads"]) == {"torch", "openvino"}
    assert all(0.0 <= value < 5e-5 for value in found["threads"].values())


def test_a_network_left_to_torch_is_marked():
    other = {"backend": "openvino", "precision": "fp32", "refusal": "no", "difference": 0.0, "cosine": 1.0}
    result = {"encoder": "x", "neighbours": 0.5, "others": [other, other | {"refusal": None, "difference": 2e-6}]}
    result["threads"] = {"torch": 3e-7, "openvino": 0.0}
    (line,) = precision.table({"results": [result]}).splitlines()[2:]
    assert line == "| `x` | 0.5000 | left to torch (0.0e+00) | 2.0e-06 | 3.0e-07 | 0 |"
