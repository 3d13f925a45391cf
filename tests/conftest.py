"""One thread per test process: the suite runs in several, and numbers should not depend on how many.

Converted networks are kept apart from the user's.
"""

import os

import pytest
import torch

from extractors import programs
from pipeline.run import same_sums_on_any_number_of_threads

torch.set_num_threads(1)
same_sums_on_any_number_of_threads()  # as every command does, before anything is computed


@pytest.fixture(scope="session", autouse=True)
def _programs(tmp_path_factory):
    os.environ[programs.VARIABLE] = str(tmp_path_factory.mktemp("programs"))
