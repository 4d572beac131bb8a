"""The project as its users run it: real packages, real engines."""
