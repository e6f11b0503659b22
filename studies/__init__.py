"""The book's studies: a folder each, with the same furniture, found as anybody's own would be (see pyproject.toml)."""
