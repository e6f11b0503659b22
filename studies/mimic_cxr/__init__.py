"""MIMIC-CXR: frontal and lateral X-rays of a chest (paper, section 5.4)."""
