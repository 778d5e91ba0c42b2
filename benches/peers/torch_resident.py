"""PyTorch as an expert writes it: data in memory, fused SGD; --compile compiles the step, --graph (CUDA) captures an epoch. In bf16,
products are in bfloat16 by autocast, parameters and optimizer in float32."""
import time

import torch
from torch import nn

from common import arguments, mnist, report, versions, widths


def data(folder, split, device):
    images, labels = mnist(folder, split)
    return torch.from_numpy(images).to(device).float() / 255, torch.from_numpy(labels).to(device).long()


def model(layers):
    """Linear layers with ReLU between them."""
    parts = [part for inputs, outputs in zip(layers, layers[1:]) for part in (nn.Linear(inputs, outputs), nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def captured(run):
    """What `run` does on the GPU as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def at_once(run, order, batch):
    """An epoch that is captured: all of its whole batches, which gather their rows, and sum their losses, in one graph; a tail runs as it is."""
    whole = len(order) // batch * batch
    rows, total = order[:whole].clone(), torch.zeros((), device=order.device)

    def batches():
        total.zero_()
        run(rows, total)

    replay = captured(batches)

    def epoch(order):
        rows.copy_(order[:whole])
        replay()
        run(order[whole:], total)
        return total

    return epoch


def main():
    args = arguments("compile", "graph", layers=dict(type=widths),
                     precision=dict(choices=["f32", "tf32", "bf16"], default="f32"))
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high" if args.precision == "tf32" else "highest")
    started = time.perf_counter()
    x, y = data(args.data_dir, "train", args.device)
    net = model(args.layers or [784, args.hidden, 10]).to(args.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)
    initial = [p.detach().clone() for p in net.parameters()]

    def step(xb, yb):
        optimizer.zero_grad(set_to_none=True)
        # Each weight is used once a step: nothing to cache, which a captured step could not do either.
        with torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16", cache_enabled=False):
            loss = criterion(net(xb), yb)
        loss.backward()
        optimizer.step()
        return loss.detach()

    if args.compile:
        step = torch.compile(step)
    for rows in (slice(0, args.batch), slice(0, len(y) % args.batch or args.batch)):
        for _ in range(3):
            step(x[rows], y[rows])  # warm-up: compiles both shapes of a batch, and starts the velocities

    def run(order, total):
        for rows in order.split(args.batch) if len(order) else ():
            total += step(x[rows], y[rows])

    def epoch(order):
        total = torch.zeros((), device=args.device)
        run(order, total)
        return total

    if args.graph:
        epoch = at_once(run, torch.arange(len(y), device=args.device), args.batch)
    with torch.no_grad():
        for p, start in zip(net.parameters(), initial):
            p.copy_(start)
            optimizer.state[p]["momentum_buffer"].zero_()
    if args.device == "cuda":
        torch.cuda.synchronize()
    setup = time.perf_counter() - started

    seconds, losses = [], []
    for _ in range(args.epochs):
        started = time.perf_counter()
        total = epoch(torch.randperm(len(y), device=args.device))
        losses.append(total.item() / -(-len(y) // args.batch))  # waits for the epoch
        seconds.append(time.perf_counter() - started)

    x, y = data(args.data_dir, "t10k", args.device)
    with torch.no_grad():
        accuracy = (net(x).argmax(1) == y).float().mean().item()
    name = "torch" + ("-compile" if args.compile else "") + ("-graph" if args.graph else "")
    report(name, versions(torch, cuda=torch.version.cuda), args, setup, seconds, losses, accuracy)


if __name__ == "__main__":
    main()
