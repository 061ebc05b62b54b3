"""Every process of a data-parallel run: trains the recipes of a file one after the other.

python -m torch.distributed.run --nproc-per-node 2 training_processes.py RECIPES.json
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from obverse._core.files import read_json
from obverse.training import Recipe, run_recipe


def main(path: Path) -> None:
    for fields in read_json(path)["recipes"]:
        run_recipe(Recipe.from_mapping(fields))
        # A launcher may start fewer processes than it was asked for, and processes may fail to find each other.
        assert torch.distributed.get_world_size() == int(os.environ["WORLD_SIZE"]) == 2
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
