"""Finished waits and builds, and what they amount to."""
