# Annotations to a manifest, and clip lists to files.


rule prepare:
    output:
        # Not deleted first: a folder's new files come behind the clips that the old manifest lists.
        manifest=update(f"{RUN}/{{dataset}}/manifest.parquet"),
    log:
        f"{RUN}/{{dataset}}/logs/prepare.log",
    benchmark:
        f"{RUN}/{{dataset}}/benchmarks/prepare.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory("default"),
        runtime=minutes("default"),
    params:
        annotations=lambda w: (
            f"--annotations {entry(w)['annotations']!r}"
            if "annotations" in entry(w)
            else ""
        ),
        media=lambda w: (
            f"--media {media(w)!r}" if w.dataset in ("demo", "folder") else ""
        ),
        files=lambda w: files_digest(*dataset_of(w)),
    shell:
        "python -m pipeline.prepare --dataset {wildcards.dataset} {params.annotations} {params.media} "
        "--out {output.manifest:q} > {log:q} 2>&1"


rule acquire:
    input:
        manifest=f"{RUN}/{{dataset}}/manifest.parquet",
    output:
        receipt=f"{RUN}/{{dataset}}/receipts/acquire.json",
    log:
        f"{RUN}/{{dataset}}/logs/acquire.log",
    benchmark:
        f"{RUN}/{{dataset}}/benchmarks/acquire.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory("acquire"),
        runtime=minutes("acquire"),
        # The profiles allow one at a time: sites see one address, however many datasets there are.
        downloads=lambda w: (
            1 if entry(w)["acquire"]["source"] in ("youtube", "http") else 0
        ),
    params:
        media=media,
        ledger=lambda w, input: Path(input.manifest).parent / "ledger.jsonl",
        source=lambda w: entry(w)["acquire"]["source"],
        origin=lambda w: (
            f"--from {entry(w)['acquire']['from']!r}"
            if "from" in entry(w)["acquire"]
            else ""
        ),
        options=lambda w: " ".join(
            map(shlex.quote, entry(w)["acquire"].get("options", []))
        ),
    shell:
        "python -m pipeline.acquire --manifest {input.manifest:q} --source {params.source} {params.origin} "
        "{params.options} --media {params.media:q} --ledger '{params.ledger}' --receipt {output.receipt:q} > {log:q} 2>&1"
