"""What is painted and said in place of the photographs of CUB, which may not be shipped."""
