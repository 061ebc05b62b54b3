"""The parts of the benchmark of linear models: problems, families of penalties, solvers, cells, study, page."""
