import json
from pathlib import Path

import pytest

from benchmarks import passes, tables

ENVIRONMENT = {
    "cpu": "Some CPU",
    "cores": 2,
    "gpu": None,
    "versions": {"torch": "2.14.1", "openvino": "2026.4"},
    "commit": "abc1234",
    "load": [0.25, 1.0, 2.0],
}


def cost(clip_s: float, total_s: float) -> dict:
    return {"start_s": 1.0, "clip_s": clip_s, "clip_cpu_s": 2 * clip_s, "total_s": total_s, "clips": 4}


def report(benchmark: str, settings: dict, results: list) -> dict:
    command = f"python benchmarks/{benchmark}.py "
    return {
        "benchmark": benchmark,
        "command": command,
        "environment": ENVIRONMENT,
        "settings": settings,
        "results": results,
    }


END_TO_END = report(
    "end_to_end",
    {"against": "loop"},
    [
        {
            "workload": "vggish",
            "encoders": ["vggish"],
            "costs": {"theirs": [cost(0.6, 5.0)], "fp32": [cost(0.2, 4.0)]},
            "ratios": {"fp32": {"steady": 3.0, "whole": 1.25, "cpu": 3.0}},
            "rows": {"fp32": {"vggish": {"relative": 2e-4, "cosine": 1.0, "equal": True}}},
        }
    ],
)
MEMORY = report(
    "memory",
    {},
    [
        {
            "unit": "minutes",
            "encoders": ["x"],
            "points": [{"at": 1.0, "peak_bytes": 1 << 30}, {"at": 20.0, "peak_bytes": 9 << 27}],
        }
    ],
)
DECODING = report(
    "decoding",
    {"device_rates": [1000.0]},
    [
        {"size": "640x360", "work": "decode all frames", "pictures": 250, "cpu_s": 0.05},
        {"size": "640x360", "work": "clip-b32", "rows": 10, "pictures": 10, "cpu_s": 0.1, "collect_cpu_s": 0.05},
    ],
)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split("|")]


def test_end_to_end_table():
    line = tables.section(END_TO_END).splitlines()[2]
    assert cells(line) == ["vggish: vggish", "fp32", "0.600", "0.200", "3.00x", "1.25x", "3.00x", "2e-04"]


def test_a_difference_beyond_the_tolerance_shows():
    spoiled = json.loads(json.dumps(END_TO_END))
    spoiled["results"][0]["rows"]["fp32"]["vggish"]["equal"] = False
    assert "too much" in tables.section(spoiled)
    assert "too much" not in tables.section(END_TO_END)


def test_memory_is_told_against_the_smallest():
    lines = tables.section(MEMORY).splitlines()
    assert cells(lines[2]) == ["1 minutes", "1024 MiB", "1.000x"]
    assert cells(lines[3]) == ["20 minutes", "1152 MiB", "1.125x"]


def test_cores_for_a_device():
    # 1000 pictures a second are 100 clips of 10 pictures, each 0.1 s of a core: 10 cores; 5 where the device resizes.
    lines = tables.section(DECODING).splitlines()
    assert cells(lines[-3]) == ["clip-b32, 640x360", "10", "10.0 / 5.0"]


def test_sums_of_passes():
    made = passes.sums([1.0, 3.0], [0.5, 0.75], [1.25, 2.25])
    assert made == [{"bound": 1.5, "separate": 1.25}, {"bound": 3.75, "separate": 3.5}]


def test_the_machine_is_named_without_its_owner():
    assert tables.machine(ENVIRONMENT) == (
        "Some CPU, 2 cores, torch 2.14.1, openvino 2026.4, commit abc1234, load 0.25 when it began"
    )


def test_sections_replace_only_their_own_place():
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    once = tables.filled(page, {"x": "| 1 \\1 |"})
    assert once == "a\n<!-- x -->\n\n| 1 \\1 |\n\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    assert tables.filled(once, {"x": "| 1 \\1 |"}) == once
    with pytest.raises(ValueError, match="0 places"):
        tables.filled(page, {"z": "new"})


def test_every_benchmark_has_its_place_in_the_page(tmp_path: Path):
    places = {"end_to_end", "end_to_end_video_features", *tables.BENCHMARKS}
    page = tmp_path / "performance.md"
    page.write_text(
        tables.filled(tables.PAGE.read_text(encoding="utf-8"), dict.fromkeys(places, "x")), encoding="utf-8"
    )
    file = tmp_path / "end_to_end.json"
    file.write_text(json.dumps(END_TO_END), encoding="utf-8")
    assert tables.main([str(file), "--page", str(page), "--check"]) == 1
    assert tables.main([str(file), "--page", str(page)]) == 0
    assert tables.main([str(file), "--page", str(page), "--check"]) == 0
    assert "| vggish: vggish | fp32 |" in page.read_text(encoding="utf-8")
