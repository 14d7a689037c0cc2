"""Fits a Gaussian mixture to the numeric columns of a table by expectation maximisation, and keeps the best of several
starts as JSON. Standard library only.

    python3 train.py [TABLE.csv] [--model MODEL.json] [--components 3] [--starts 8] [--seed 1]

The table that ships beside it is Fisher's iris data (1936), in the public domain.
"""

import argparse
import csv
import json
import math
import os
import random
import signal
import sys


def read_table(path):
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    header, rows = rows[0], rows[1:]

    def is_number(text):
        try:
            float(text)
        except ValueError:
            return False
        return True

    numeric = [at for at in range(len(header)) if all(is_number(row[at]) for row in rows)]
    classes = [at for at in range(len(header)) if at not in numeric]
    points = [[float(row[at]) for at in numeric] for row in rows]
    labels = [row[classes[0]] if classes else "" for row in rows]
    return [header[at] for at in numeric], header[classes[0]] if classes else None, points, labels


def cholesky(matrix):
    size = len(matrix)
    lower = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i][j] - sum(lower[i][k] * lower[j][k] for k in range(j))
            lower[i][j] = math.sqrt(max(rest, 1e-9)) if i == j else rest / lower[j][j]
    return lower


def log_density(point, mean, lower):
    size = len(point)
    solved = []
    for i in range(size):
        rest = point[i] - mean[i] - sum(lower[i][k] * solved[k] for k in range(i))
        solved.append(rest / lower[i][i])
    log_det = sum(math.log(lower[i][i]) for i in range(size))
    return -0.5 * (size * math.log(2 * math.pi) + sum(value * value for value in solved)) - log_det


def fit(points, components, chance, steps_max=200):
    size, count = len(points[0]), len(points)
    means = [list(point) for point in chance.sample(points, components)]
    spread = [sum((p[i] - sum(q[i] for q in points) / count) ** 2 for p in points) / count for i in range(size)]
    lowers = [cholesky([[spread[i] if i == j else 0.0 for j in range(size)] for i in range(size)])] * components
    weights = [1 / components] * components
    before = -math.inf
    for _ in range(steps_max):
        shares, likelihood = [], 0.0
        for point in points:
            logs = [math.log(w) + log_density(point, m, l) for w, m, l in zip(weights, means, lowers)]
            top = max(logs)
            total = top + math.log(sum(math.exp(value - top) for value in logs))
            likelihood += total
            shares.append([math.exp(value - total) for value in logs])
        new_means, new_lowers, new_weights = [], [], []
        for c in range(components):
            mass = sum(share[c] for share in shares) + 1e-9
            mean = [sum(s[c] * p[i] for s, p in zip(shares, points)) / mass for i in range(size)]
            cov = [
                [
                    sum(s[c] * (p[i] - mean[i]) * (p[j] - mean[j]) for s, p in zip(shares, points)) / mass
                    + (1e-3 if i == j else 0.0)
                    for j in range(size)
                ]
                for i in range(size)
            ]
            new_means.append(mean)
            new_lowers.append(cholesky(cov))
            new_weights.append(mass / count)
        means, lowers, weights = new_means, new_lowers, [w / sum(new_weights) for w in new_weights]
        if likelihood - before < 1e-6:
            break
        before = likelihood
    return likelihood, weights, means, lowers, shares


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", nargs="?", default=os.path.join(here, "iris.csv"))
    parser.add_argument("--model", default="-")
    parser.add_argument("--components", type=int, default=3)
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    columns, class_column, points, labels = read_table(arguments.table)
    chance, best = random.Random(arguments.seed), None

    def write():
        likelihood, weights, means, lowers, shares = best
        names = []
        for c in range(len(weights)):
            votes = {}
            for share, label in zip(shares, labels):
                votes[label] = votes.get(label, 0.0) + share[c]
            names.append(max(votes, key=votes.get))
        model = {
            "columns": columns, "class_column": class_column, "log_likelihood": likelihood,
            "weights": weights, "means": means, "cholesky": lowers, "classes": names,
        }
        with sys.stdout if arguments.model == "-" else open(arguments.model, "w") as file:
            json.dump(model, file, indent=1)
            file.write("\n")

    # `jobmeter run --notice SIGTERM@30s` asks for a checkpoint while there are credits for it.
    def checkpoint(_signal, _frame):
        if best:
            write()
        sys.exit(0 if best else 1)

    signal.signal(signal.SIGTERM, checkpoint)
    for start in range(arguments.starts):
        fitted = fit(points, arguments.components, chance)
        best = fitted if best is None or fitted[0] > best[0] else best
        print(f"start {start + 1} of {arguments.starts}: log likelihood {fitted[0]:.3f}", file=sys.stderr)
    write()


main()
