"""A study of our own: data, networks, study and figures, found by the entry point in pyproject.toml."""
