"""A Python sandbox: reads blocks of code from standard input, each ended by an empty line, runs them in one namespace,
and prints what the last expression of each is worth. An error ends the block, not the session.
"""

import ast
import sys
import traceback


def run(code, names):
    tree = ast.parse(code, "<session>")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<session>", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "<session>", "eval"), names)
        if value is not None:
            print(repr(value), flush=True)


def main():
    names, block = {"__name__": "__session__"}, []
    while True:
        line = sys.stdin.readline()
        if line.strip():
            block.append(line)
            continue
        if block:
            try:
                run("".join(block), names)
            except Exception:
                traceback.print_exc(limit=-1)
            block = []
        if not line:
            return


main()
