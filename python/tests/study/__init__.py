"""Tests of what `python/study` compares."""
