"""The report's parts: one module reads a run folder, one draws, one puts the page together."""
