"""The ground floor: what every room needs and no room should write again.

`files` writes files that are whole or absent and notices damage, `checks` words the refusal of bad arguments, `random`
says what a seed means, `recomputation` lets activation checkpointing repeat the draws of a generator, `arrays` crosses
between NumPy and torch, `distributed` speaks to the other processes of a run, and `text` aligns tables of words.
Nothing here imports a room, and nothing here imports torch unless the caller has.
"""
