"""The textbook PyTorch script: a Dataset with a transform, a DataLoader, a loop."""
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from common import arguments, mnist, report, versions


class Mnist(Dataset):
    """Images and labels, converted one by one as torchvision's ToTensor does."""

    def __init__(self, folder, split):
        self.images, self.labels = mnist(folder, split)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return torch.from_numpy(self.images[i]).float().div(255), int(self.labels[i])


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    started = time.perf_counter()
    train = DataLoader(Mnist(args.data_dir, "train"), batch_size=args.batch, shuffle=True)
    net = nn.Sequential(nn.Linear(784, args.hidden), nn.ReLU(), nn.Linear(args.hidden, 10)).to(args.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    setup = time.perf_counter() - started

    seconds, losses = [], []
    for _ in range(args.epochs):
        started, total = time.perf_counter(), 0.0
        for x, y in train:
            optimizer.zero_grad()
            loss = criterion(net(x.to(args.device)), y.to(args.device))
            loss.backward()
            optimizer.step()
            total += loss.item()
        seconds.append(time.perf_counter() - started)
        losses.append(total / len(train))

    x, y = (torch.from_numpy(t).to(args.device) for t in mnist(args.data_dir, "t10k"))
    with torch.no_grad():
        accuracy = (net(x.float() / 255).argmax(1) == y).float().mean().item()
    report("torch-dataloader", versions(torch, cuda=torch.version.cuda), args, setup, seconds, losses, accuracy)


if __name__ == "__main__":
    main()
