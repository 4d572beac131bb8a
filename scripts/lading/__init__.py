"""lading: from declarations to container images for scientific Python on HPC systems.

Plain data are msgspec's structs, frozen and keyword-only: a dataclass takes 27 times as long to
define, and with the hundred of them a third of a run in which nothing is to do. They are
dataclasses where the standard library has to do (lading.checks, lading.archive), and where a field
must not show (lading.conda, lading.store).
"""
