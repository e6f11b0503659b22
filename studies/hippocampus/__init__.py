"""Hippocampus: the spikes of animals that smell the same odors (paper, section 5.3)."""
