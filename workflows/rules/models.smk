# Features to trained models and their scores.


rule train:
    input:
        manifest=f"{RUN}/{{dataset}}/manifest.parquet",
        features=lambda w: extract_receipts(w.dataset),
        others=training_inputs,
    output:
        receipt=f"{RUN}/{{dataset}}/train/{{model}}-{{setting}}{{variant}}-{{seed}}/train.json",
    log:
        f"{RUN}/{{dataset}}/logs/train/{{model}}-{{setting}}{{variant}}-{{seed}}.log",
    benchmark:
        f"{RUN}/{{dataset}}/benchmarks/train/{{model}}-{{setting}}{{variant}}-{{seed}}.tsv"
    conda:
        "../../environment.yml"
    # The demo's networks are too small for two threads; two trainings at once are quicker.
    threads: lambda w: 1 if w.dataset == "demo" else 2
    resources:
        mem_mb=memory("train"),
        runtime=minutes("train"),
        gpu=1 if config["device"].startswith("cuda") else 0,
    params:
        store=lambda w, input: Path(input.manifest).parent / "features",
        folder=lambda w, output: Path(output.receipt).parent,
        flags=training_flags,
        recipe=training_recipe,
        # A function of threads: where a training runs is no reason to run it again.
        device=lambda w, threads: config["device"],
    shell:
        "python -m pipeline.train --manifest {input.manifest:q} --store '{params.store}' --model {wildcards.model} "
        "--setting {wildcards.setting} --seed {wildcards.seed} {params.flags} --device {params.device} "
        "--stale restart --out '{params.folder}' > {log:q} 2>&1"


rule score:
    input:
        manifest=f"{RUN}/{{dataset}}/manifest.parquet",
        train=f"{RUN}/{{dataset}}/train/{{model}}-{{setting}}{{variant}}-{{seed}}/train.json",
    output:
        scores=f"{RUN}/{{dataset}}/scores/{{model}}-{{setting}}{{variant}}-{{seed}}.json",
    log:
        f"{RUN}/{{dataset}}/logs/score/{{model}}-{{setting}}{{variant}}-{{seed}}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory("default"),
        runtime=minutes("default"),
    params:
        predictions=lambda w, input: Path(input.train).parent / "predictions.npz",
    shell:
        "python -m pipeline.score --manifest {input.manifest:q} --predictions '{params.predictions}' "
        "--out {output.scores:q} > {log:q} 2>&1"
