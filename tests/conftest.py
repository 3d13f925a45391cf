"""One thread per test process: the suite runs in several, and numbers should not depend on how many.

Converted networks are kept apart from the user's.
"""

import os

import pytest
import torch

from extractors import programs

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _programs(tmp_path_factory):
    os.environ[programs.VARIABLE] = str(tmp_path_factory.mktemp("programs"))
