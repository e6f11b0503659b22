"""What the chapters need that train nothing: their parameters and their figures."""
