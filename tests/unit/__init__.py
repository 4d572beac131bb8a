"""Tests without an engine or a network: seconds."""
