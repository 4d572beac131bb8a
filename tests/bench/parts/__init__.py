"""The parts of the benchmark; each has `measure(workshop)`, which gives figures one by one."""
