"""Tests on real, private engines."""
