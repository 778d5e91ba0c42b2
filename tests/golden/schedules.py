#!/usr/bin/env python3
"""Records learning rates of PyTorch's schedulers, stepped once an optimizer step, in float64.

usage: schedules.py > schedules.tsv        needs torch

A row a step, from step 0; a column a case, under its name in CASES. Where PyTorch raises, past the end of a cycle, a cell is
empty. golden.py takes its schedulers from here.
"""
import sys
import warnings

import torch
from torch.optim import lr_scheduler

STEPS = 321
# Arguments as in the metadata of a golden trajectory, see README.md, and the learning rate of the optimizer.
CASES = {
    "constant": (0.1, dict(type="ConstantLR")),
    "constant-warmup": (0.1, dict(type="ConstantLR", warmup_steps=10)),
    "step": (0.1, dict(type="StepLR", step_size=30, gamma=0.5)),
    "step-every": (0.1, dict(type="StepLR", step_size=1, gamma=0.99)),
    "step-warmup": (0.1, dict(type="StepLR", step_size=37, gamma=0.3, warmup_steps=1)),
    "cosine": (0.1, dict(type="CosineAnnealingLR", T_max=100)),
    "cosine-min": (0.1, dict(type="CosineAnnealingLR", T_max=211, eta_min=0.001)),
    "cosine-warmup": (0.03, dict(type="CosineAnnealingLR", T_max=290, eta_min=0.0001, warmup_steps=25)),
    "one-cycle": (0.1, dict(type="OneCycleLR", max_lr=0.5, total_steps=300)),
    "one-cycle-early": (0.1, dict(type="OneCycleLR", max_lr=0.5, total_steps=200, pct_start=0.0)),
    "one-cycle-late": (0.1, dict(type="OneCycleLR", max_lr=0.5, total_steps=200, pct_start=1.0)),
    "one-cycle-warmup": (0.1, dict(type="OneCycleLR", max_lr=0.2, total_steps=257, pct_start=0.45, div_factor=10.0,
                                   final_div_factor=100.0, warmup_steps=20)),
}


def scheduler(optimizer, type, warmup_steps=0, **arguments):
    """PyTorch's scheduler of that name, after a linear warm-up. OneCycleLR without cycle_momentum: the learning rate alone."""
    if type == "OneCycleLR":
        main = lr_scheduler.OneCycleLR(optimizer, cycle_momentum=False, **arguments)
    elif type == "ConstantLR":
        main = lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
    else:
        main = getattr(lr_scheduler, type)(optimizer, **arguments)
    if warmup_steps == 0:
        return main
    # The first steps are fractions 1/(n+1), 2/(n+1), .. n/(n+1) of the learning rate with which the main one begins.
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup_steps + 1), total_iters=warmup_steps)
    return lr_scheduler.SequentialLR(optimizer, [warmup, main], milestones=[warmup_steps])


def record(lr, arguments):
    """The learning rate of each step; None where there is none."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=lr)
    schedule = scheduler(optimizer, **arguments)
    total = arguments.get("total_steps")
    end = STEPS if total is None else total + arguments.get("warmup_steps", 0)
    values = []
    for step in range(STEPS):
        values.append(optimizer.param_groups[0]["lr"] if step < end else None)
        if step + 1 < end:
            optimizer.step()
            schedule.step()
    return values


def main():
    warnings.simplefilter("error")
    print(f"recorded with torch {torch.__version__}", file=sys.stderr)
    columns = [record(*case) for case in CASES.values()]
    print("\t".join(CASES))
    for row in zip(*columns):
        print("\t".join("" if value is None else repr(value) for value in row))


if __name__ == "__main__":
    main()
