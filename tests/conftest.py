"""One thread per test process: the suite runs in several, and numbers should not depend on how many."""

import torch

torch.set_num_threads(1)
