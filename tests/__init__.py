"""Tests: unit (no engine, seconds), engine (real Docker and Podman), e2e."""
