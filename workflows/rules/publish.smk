# What people look at and take away: exports, the report, the release.


rule export:
    input:
        manifest=f"{RUN}/{{dataset}}/manifest.parquet",
        features=lambda w: extract_receipts(w.dataset),
        labels=lambda w: label_receipts(w.dataset) if w.format == "llp-npy" else [],
        tuned=lambda w: tuned_receipts(w.dataset) if export_features(w) else [],
    output:
        receipt=f"{RUN}/{{dataset}}/receipts/export-{{format}}.json",
    log:
        f"{RUN}/{{dataset}}/logs/export-{{format}}.log",
    benchmark:
        f"{RUN}/{{dataset}}/benchmarks/export-{{format}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory("default"),
        runtime=minutes("default"),
    params:
        store=lambda w, input: Path(input.manifest).parent / "features",
        folder=lambda w, input: Path(input.manifest).parent / "exports" / w.format,
        flags=export_flags,
        labels=lambda w, input: (
            f"--labels '{Path(input.manifest).parent / 'labels'}'"
            if input.labels
            else ""
        ),
    shell:
        "python -m pipeline.export --manifest {input.manifest:q} --store '{params.store}' --format {wildcards.format} "
        "{params.flags} {params.labels} --out '{params.folder}' --overwrite > {log:q} 2>&1 && cp '{params.folder}/export.json' {output.receipt:q}"


rule report:
    input:
        manifest=f"{RUN}/{{dataset}}/manifest.parquet",
        features=lambda w: extract_receipts(w.dataset),
        scores=lambda w: scores(w.dataset),
        exports=lambda w: exports(w.dataset),
        labels=lambda w: label_receipts(w.dataset),
        tunings=lambda w: tunings(w.dataset) + effects(w.dataset),
    output:
        page=f"{RUN}/{{dataset}}/report.html",
    log:
        f"{RUN}/{{dataset}}/logs/report.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory("default"),
        runtime=minutes("default"),
    params:
        folder=lambda w, input: Path(input.manifest).parent,
        media=media,
    shell:
        "python -m pipeline.report --run '{params.folder}' --media {params.media:q} --out {output.page:q} > {log:q} 2>&1"


rule release:
    input:
        manifest=f"{RUN}/{{dataset}}/manifest.parquet",
        features=lambda w: extract_receipts(w.dataset) + tuned_receipts(w.dataset),
    output:
        receipt=f"{RUN}/{{dataset}}/receipts/release.json",
    log:
        f"{RUN}/{{dataset}}/logs/release.log",
    benchmark:
        f"{RUN}/{{dataset}}/benchmarks/release.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory("default"),
        runtime=minutes("default"),
    params:
        run=lambda w, input: Path(input.manifest).parent,
        ledger=lambda w: (
            f"--ledger '{RUN}/{w.dataset}/ledger.jsonl'"
            if "acquire" in entry(w)
            else ""
        ),
    shell:
        "python -m pipeline.release build --manifest {input.manifest:q} --store '{params.run}/features' {params.ledger} "
        "--receipts '{params.run}/receipts/extract' --out '{params.run}/release' --overwrite > {log:q} 2>&1 "
        "&& cp '{params.run}/release/release.json' {output.receipt:q}"
