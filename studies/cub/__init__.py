"""CUB: a bird and a sentence about it (paper, section 4.3)."""
