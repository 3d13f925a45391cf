"""Architectures that no maintained library provides, in the key format of their published checkpoints."""
