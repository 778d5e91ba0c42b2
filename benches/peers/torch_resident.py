"""PyTorch as an expert writes it: data in memory, fused SGD; --compile compiles the step, --graph (CUDA) captures it. In bf16,
products are in bfloat16 by autocast, parameters and optimizer in float32."""
import time

import torch
from torch import nn

from common import arguments, mnist, report, widths


def data(folder, split, device):
    images, labels = mnist(folder, split)
    return torch.from_numpy(images).to(device).float() / 255, torch.from_numpy(labels).to(device).long()


def model(layers):
    """Linear layers with ReLU between them."""
    parts = [part for inputs, outputs in zip(layers, layers[1:]) for part in (nn.Linear(inputs, outputs), nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def captured(step, x, y, batch):
    """The step for whole batches as a CUDA graph over fixed buffers; a tail runs as it is."""
    fixed_x, fixed_y = x[:batch].clone(), y[:batch].clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(fixed_x, fixed_y)

    def replay(xb, yb):
        if len(yb) != batch:
            return step(xb, yb)
        fixed_x.copy_(xb)
        fixed_y.copy_(yb)
        graph.replay()
        return loss

    return replay


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
    if args.graph:
        step = captured(step, x, y, args.batch)
    with torch.no_grad():
        for p, start in zip(net.parameters(), initial):
            p.copy_(start)
            optimizer.state[p]["momentum_buffer"].zero_()
    synchronize = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    synchronize()
    setup = time.perf_counter() - started

    seconds, losses = [], []
    for _ in range(args.epochs):
        started = time.perf_counter()
        order = torch.randperm(len(y), device=args.device)
        total, steps = torch.zeros((), device=args.device), 0
        for rows in order.split(args.batch):
            total += step(x[rows], y[rows])
            steps += 1
        losses.append(total.item() / steps)
        synchronize()
        seconds.append(time.perf_counter() - started)

    x, y = data(args.data_dir, "t10k", args.device)
    with torch.no_grad():
        accuracy = (net(x).argmax(1) == y).float().mean().item()
    name = "torch" + ("-compile" if args.compile else "") + ("-graph" if args.graph else "")
    report(name, torch.__version__, args, setup, seconds, losses, accuracy)


if __name__ == "__main__":
    main()
