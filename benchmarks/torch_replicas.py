"""Ask PyTorch what two processes share of a batch norm layer; for chapter 11.

    python benchmarks/torch_replicas.py [--json bnlib/book/stored/torch_replicas.json]

It needs torch, which `make .venv/.torch` installs. Ten seconds.
"""

import argparse
import json
import os
import socket
import tempfile
from pathlib import Path

import torch
from torch import distributed, multiprocessing, nn

from bnlib.book.experiments import keep

STORED = Path(__file__).parents[1] / "bnlib/book/stored/torch_replicas.json"
SHARES = [[1.0, 3.0], [7.0, 9.0]]  # what each process has of the batch


def ask(broadcast, share):
    """Train on one batch, and then look at it in inference, as one of the processes."""
    x = torch.tensor(share, dtype=torch.float64)[:, None]
    norm = nn.BatchNorm1d(1, momentum=1.0, dtype=torch.float64)
    model = nn.parallel.DistributedDataParallel(
        nn.Sequential(norm), broadcast_buffers=broadcast
    )
    y = model(x)
    y.sum().backward()
    found = {"outputs": y.ravel().tolist(), "after the step": norm.running_mean.item()}
    model.eval()
    model(x)
    return found | {"in the next call": norm.running_mean.item()}


def work(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=len(SHARES))
    found = {
        f"broadcast_buffers={broadcast}": ask(broadcast, SHARES[rank])
        for broadcast in (True, False)
    }
    Path(folder, f"{rank}").write_text(json.dumps(found))
    distributed.destroy_process_group()


def replicas():
    """Return what each process found, by its rank."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        multiprocessing.spawn(work, (port, folder), len(SHARES))
        return [
            json.loads(Path(folder, f"{k}").read_text()) for k in range(len(SHARES))
        ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=STORED, help="store it here")
    options = parser.parse_args()
    keep(
        options.json, __file__, torch=torch.__version__, shares=SHARES, ranks=replicas()
    )


if __name__ == "__main__":
    main()
