"""A chest in three dimensions, X-rayed in place of patients, whose images may not be shipped."""
