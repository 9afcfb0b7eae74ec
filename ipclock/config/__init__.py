"""Settings: where they stand, and what they mean."""
