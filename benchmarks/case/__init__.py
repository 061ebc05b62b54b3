"""The parts of the case study: each module one experiment, `harness` what they share."""
