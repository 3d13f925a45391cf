"""The order of the stages.  Each rule calls one command that also runs by hand; see workflows/config/demo.yaml.

snakemake --workflow-profile workflows/profiles/local --configfile workflows/config/demo.yaml
"""

import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version, validate

min_version("9.5")


configfile: f"{workflow.basedir}/workflows/config/defaults.yaml"


include: "workflows/rules/common.smk"
include: "workflows/rules/clips.smk"
include: "workflows/rules/features.smk"
include: "workflows/rules/labels.smk"
include: "workflows/rules/models.smk"
include: "workflows/rules/publish.smk"


localrules:
    all,
    prepare,
    report,


rule all:
    default_target: True
    input:
        targets(),
