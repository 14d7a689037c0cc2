"""Writes rows drawn from a model that train.py has fitted, as CSV. Standard library only.

    python3 generate.py MODEL.json [--rows 1000] [--seed 1]
"""

import argparse
import csv
import json
import random
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with open(arguments.model) as file:
        model = json.load(file)
    chance = random.Random(arguments.seed)
    out = csv.writer(sys.stdout)
    out.writerow(model["columns"] + ([model["class_column"]] if model["class_column"] else []))
    components = range(len(model["weights"]))
    for _ in range(arguments.rows):
        c = chance.choices(components, model["weights"])[0]
        noise = [chance.gauss(0, 1) for _ in model["columns"]]
        mean, lower = model["means"][c], model["cholesky"][c]
        row = [f"{mean[i] + sum(lower[i][k] * noise[k] for k in range(i + 1)):.1f}" for i in range(len(mean))]
        out.writerow(row + ([model["classes"][c]] if model["class_column"] else []))


main()
