"""Several processes that train one network: what each has of a batch, and how they agree.

One collective per update averages the flat gradients, instead of DistributedDataParallel around the
networks. Its hooks would have to tell the one graded pass of P or G from the hundreds without
gradients on the way to a fixed point, whose number differs from process to process, and from those
of the log and of `rglib.core.fixed_point.back_propagated`. Here all processes do the same
collectives at the same places of an update, whatever happens in between: they cannot wait for one
another forever.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

Batch = TypeVar("Batch", np.ndarray, Tensor)

# A process whose images have converged waits for one whose images take every iteration. Where one
# has died torchrun ends the others, so that nobody needs a short limit.
PATIENCE = timedelta(hours=6)
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}  # on a GPU flags and states go by the CPU


@dataclass(frozen=True)
class Share:
    """The part of every batch that one of ``count`` processes has, the ``index``-th from 0."""

    index: int = 0
    count: int = 1

    def of(self, batch: Batch) -> Batch:
        """Its images of a batch (count B, ...), an array or a tensor: (B, ...)."""
        images = len(batch) // self.count
        return batch[self.index * images : (self.index + 1) * images]


WHOLE = Share()


class Processes(Protocol):
    """What a trainer asks of the processes that train beside it; all of them ask together."""

    @property
    def share(self) -> Share:
        """The part of every batch that this process has."""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and logs."""

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite each tensor with its mean over the processes: the same bits on all."""

    def means(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The mean over the processes of each number; all have the same names."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on one of them."""

    def gathered(self, tensor: Tensor) -> Tensor:
        """The shares (B, ...) of all processes as one batch (count B, ...), on the CPU."""

    def shared(self, make: Callable[[], Any]) -> Any:
        """What the first process makes, for all; tensors may be on the CPU then."""


@dataclass(frozen=True)
class Alone:
    """One process by itself, which asks nobody."""

    share: Share = WHOLE
    first: bool = True

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Leave them as they are."""

    def means(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The numbers."""
        return dict(numbers)

    def any(self, flag: bool) -> bool:
        """The flag."""
        return flag

    def gathered(self, tensor: Tensor) -> Tensor:
        """The batch."""
        return tensor.cpu()

    def shared(self, make: Callable[[], Any]) -> Any:
        """What is made."""
        return make()


ALONE = Alone()


@dataclass(frozen=True)
class Group:
    """One of several processes, joined by torch.distributed (`Group.join`)."""

    share: Share

    @staticmethod
    def join(device: torch.device) -> Group:
        """Meet the processes that torchrun started with this one, each with a GPU of its own.

        Raises:
            ValueError: there are more processes than GPUs, or torchrun did not start this one.
        """
        if "LOCAL_RANK" not in os.environ:
            raise ValueError("several processes are started by torchrun: see docs/scaling.md")
        if device.type == "cuda":
            local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if local >= gpus:
                here = os.environ["LOCAL_WORLD_SIZE"]
                raise ValueError(f"processes: {here} need a GPU each, but PyTorch sees {gpus}")
            torch.cuda.set_device(local)
        distributed.init_process_group(BACKENDS[device.type], timeout=PATIENCE)
        return Group(Share(distributed.get_rank(), distributed.get_world_size()))

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.share.index == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite each tensor with its mean over the processes, in one collective."""
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        means = (flat / self.share.count).split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def means(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The mean over the processes of each number."""
        values = torch.tensor(list(numbers.values()), dtype=torch.float64)
        distributed.all_reduce(values)
        return dict(zip(numbers, (values / self.share.count).tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on one of them."""
        flags = torch.tensor(int(flag))
        distributed.all_reduce(flags)
        return bool(flags)

    def gathered(self, tensor: Tensor) -> Tensor:
        """The shares of all processes, in the order of their ranks."""
        own = tensor.cpu().contiguous()
        shares = [torch.empty_like(own) for _ in range(self.share.count)]
        distributed.all_gather(shares, own)
        return torch.cat(shares)

    def shared(self, make: Callable[[], Any]) -> Any:
        """What the first process makes, of what checkpoints may hold, its tensors on the CPU."""
        sent = [_packed(make()) if self.first else b""]
        distributed.broadcast_object_list(sent, device=torch.device("cpu"))
        return torch.load(io.BytesIO(sent[0]), map_location="cpu", weights_only=True)


def _packed(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
