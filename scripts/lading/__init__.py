"""lading: from declarations to container images for scientific Python on HPC systems."""
