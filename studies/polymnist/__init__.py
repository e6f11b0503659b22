"""PolyMNIST: one digit, several photographs (paper, section 4.1)."""
