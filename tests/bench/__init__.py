"""The benchmarks behind scripts/bench: what lading takes, against what a person would do otherwise.

figures   the numbers and the table they are printed in (pure)
costs     the steps of the lesson, and the table of what each costs (pure)
clock     processes, timed from outside
workshop  a folder that goes away: copies of the project, a store, engines
generated projects of many images, up to date by the record
parts/    one module a part; `inside/` is what runs in containers and child processes
"""
