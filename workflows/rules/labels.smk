# Teachers, pseudo-labels, and encoders tuned to sound.


rule prepare_teacher:
    input:
        # The demo's clips are generated once, with the manifest of the other splits.
        manifest=f"{RUN}/{{dataset}}/manifest.parquet",
    output:
        manifest=f"{RUN}/{{dataset}}/teacher.parquet",
    log:
        f"{RUN}/{{dataset}}/logs/prepare-teacher.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory("default"),
        runtime=minutes("default"),
    params:
        media=media,
    shell:
        "python -m pipeline.prepare --dataset {wildcards.dataset} --splits teacher --media {params.media:q} "
        "--out {output.manifest:q} > {log:q} 2>&1"


rule teach:
    input:
        manifest=f"{RUN}/{{dataset}}/teacher.parquet",
    output:
        receipt=f"{RUN}/{{dataset}}/teachers/teach.json",
    log:
        f"{RUN}/{{dataset}}/logs/teach.log",
    benchmark:
        f"{RUN}/{{dataset}}/benchmarks/teach.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        mem_mb=memory("train"),
        runtime=minutes("train"),
    params:
        media=media,
        folder=lambda w, output: Path(output.receipt).parent,
        encoders=lambda w: ",".join(entry(w)["teach"]["encoders"]),
        seed=lambda w: entry(w)["teach"].get("seed", 0),
    shell:
        "python -m pipeline.teach --manifest {input.manifest:q} --media {params.media:q} --encoders {params.encoders} "
        "--seed {params.seed} --out '{params.folder}' > {log:q} 2>&1"


rule pseudolabel:
    input:
        manifest=f"{RUN}/{{dataset}}/manifest.parquet",
        features=lambda w: extract_receipts(w.dataset),
    output:
        receipt=f"{RUN}/{{dataset}}/receipts/pseudolabel.json",
    log:
        f"{RUN}/{{dataset}}/logs/pseudolabel.log",
    benchmark:
        f"{RUN}/{{dataset}}/benchmarks/pseudolabel.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory("train"),
        runtime=minutes("default"),
    params:
        store=lambda w, input: Path(input.manifest).parent / "features",
        folder=lambda w, input: Path(input.manifest).parent / "labels",
        flags=labelling_flags,
        files=labelling_files,
        job_clips=config["job_clips"],
    shell:
        "python -m pipeline.pseudolabel --manifest {input.manifest:q} --store '{params.store}' {params.flags} "
        "--job-clips {params.job_clips} --out '{params.folder}' --receipt {output.receipt:q} > {log:q} 2>&1"


rule finetune:
    input:
        manifest=f"{RUN}/{{dataset}}/manifest.parquet",
        features=lambda w: extract_receipts(w.dataset),
    output:
        receipt=f"{RUN}/{{dataset}}/finetune/{{name}}-{{seed}}/finetune.json",
    log:
        f"{RUN}/{{dataset}}/logs/finetune/{{name}}-{{seed}}.log",
    benchmark:
        f"{RUN}/{{dataset}}/benchmarks/finetune/{{name}}-{{seed}}.tsv"
    # An extraction, trainings and scores wait for it, while other trainings can run beside it.
    priority: 1
    conda:
        "../../environment.yml"
    threads: lambda w: 1 if w.dataset == "demo" else 2
    resources:
        mem_mb=memory("train"),
        runtime=minutes("train"),
        gpu=1 if config["device"].startswith("cuda") else 0,
    params:
        media=media,
        store=lambda w, input: Path(input.manifest).parent / "features",
        folder=lambda w, output: Path(output.receipt).parent,
        flags=tuning_flags,
        files=tuning_files,
        device=lambda w, threads: config["device"],
    shell:
        "python -m pipeline.finetune --manifest {input.manifest:q} --media {params.media:q} --store '{params.store}' "
        "{params.flags} --seed {wildcards.seed} --device {params.device} --stale restart --out '{params.folder}' "
        "> {log:q} 2>&1"


use rule extract as extract_tuned with:
    input:
        manifest=ancient(f"{RUN}/{{dataset}}/manifest.parquet"),
        tuned=f"{RUN}/{{dataset}}/finetune/{{name}}-{{seed}}/finetune.json",
    output:
        receipt=f"{RUN}/{{dataset}}/receipts/extract-tuned/{{name}}-{{seed}}/{{job}}.json",
    log:
        f"{RUN}/{{dataset}}/logs/extract-tuned/{{name}}-{{seed}}/{{job}}.log",
    benchmark:
        f"{RUN}/{{dataset}}/benchmarks/extract-tuned/{{name}}-{{seed}}/{{job}}.tsv"
    priority: 1
    threads: lambda w: 1 if w.dataset == "demo" else max(1, config["workers"] + 1)
    params:
        encoders=lambda w: tuning(w, w.name)["visual"],
        weights=lambda w: (
            f"--weights '{tuning(w, w.name)['visual']}={tuned_file(w, w.name, w.seed)}'"
        ),
        code=lambda w: code_digest([tuning(w, w.name)["visual"]]),
        checkpoints="",


rule effect:
    input:
        manifest=f"{RUN}/{{dataset}}/manifest.parquet",
        tunings=lambda w: tunings(w.dataset),
        features=lambda w: extract_receipts(w.dataset) + tuned_receipts(w.dataset),
        scores=lambda w: scores(w.dataset),
    output:
        effect=f"{RUN}/{{dataset}}/effect.json",
    log:
        f"{RUN}/{{dataset}}/logs/effect.log",
    benchmark:
        f"{RUN}/{{dataset}}/benchmarks/effect.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory("train"),
        runtime=minutes("default"),
    params:
        store=lambda w, input: Path(input.manifest).parent / "features",
    shell:
        "python -m pipeline.effect --manifest {input.manifest:q} --store '{params.store}' --tuning {input.tunings:q} "
        "--scores {input.scores:q} --out {output.effect:q} > {log:q} 2>&1"
