"""What users call: the operation, its transpose, its low-rank form, the smoothness penalty."""
