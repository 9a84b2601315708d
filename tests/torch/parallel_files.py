"""Weights written by four ranks are read by any number of ranks; so are PyTorch's checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

import lcmulti_torch as lt
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lcmulti_torch.parallel import load_weights, shard
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh

import lcmulti

WRITERS = 4
MODES = {"one file": False, "one each": True}
LAYERS = {
    "2d": lambda **k: lt.LocallyConnected2d(3, 4, 3, (11, 7), padding=1, **k),
    "no bias": lambda **k: lt.LocallyConnected2d(3, 4, 3, (7, 7), bias=False, **k),
    "transposed": lambda **k: lt.LocallyConnectedTranspose1d(3, 4, 5, 11, stride=2, **k),
}


def folder():
    return Path(os.environ["TEST_FOLDER"])


def made(name):
    torch.manual_seed(3)
    return LAYERS[name]()


def divided(name, axis=0):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return shard(LAYERS[name](device="meta"), mesh, axis)


def check_saved(rank):
    for name in LAYERS:
        layer = shard(made(name), init_device_mesh("cpu", (WRITERS,)))
        transposed = name == "transposed"
        for mode, per_process in MODES.items():
            lcmulti.save_weights(
                folder() / f"{name}, {mode}", layer.weight, layer.bias, spec=layer.spec,
                transposed=transposed, per_process=per_process,
            )  # fmt: skip
    optimizer = torch.optim.AdamW(layer.parameters(), foreach=False)
    layer(torch.ones(2, *layer._sample_shape)).square().sum().backward()
    optimizer.step()
    model, state = get_state_dict(layer, optimizer)
    dcp.save({"model": model, "optimizer": state}, checkpoint_id=folder() / "checkpoint")
    whole = layer.weight.full_tensor()
    moment = optimizer.state[layer.weight]["exp_avg"].full_tensor()
    if not rank:
        torch.save((whole, moment), folder() / "whole")


def check_saved_on_two_axes(rank):
    """Save from a mesh of two dimensions: one holds copies, then both divide the weights."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("one", "other"))
    for label, axis in (("copies", (None, 0)), ("both", (1, 0))):
        layer = shard(made("2d"), mesh, axis)
        for mode, per_process in MODES.items():
            lcmulti.save_weights(
                folder() / f"{label}, {mode}", layer.weight, layer.bias, spec=layer.spec,
                per_process=per_process,
            )  # fmt: skip


def check_a_folder_that_is_not_there(rank):
    layer = shard(made("2d"), init_device_mesh("cpu", (WRITERS,)))
    for per_process in MODES.values():
        try:
            lcmulti.save_weights(
                folder() / "nowhere" / "x", layer.weight, spec=layer.spec, per_process=per_process
            )
        except lcmulti.errors.FileError as caught:
            assert "cannot be written (No such file or directory), on process 0" in str(caught)
        else:
            raise AssertionError("nothing was raised")


def check_read(rank):
    for name in LAYERS:
        right = made(name)
        for mode in MODES:
            layer = load_weights(divided(name), folder() / f"{name}, {mode}")
            for own, parameter in layer.named_parameters():
                assert torch.equal(parameter.full_tensor(), getattr(right, own))
    for label in ("copies", "both"):
        for mode in MODES:
            layer = load_weights(divided("2d", 1), folder() / f"{label}, {mode}")
            assert torch.equal(layer.weight.full_tensor(), made("2d").weight)
            plain = load_weights(LAYERS["2d"](), folder() / f"{label}, {mode}")
            assert torch.equal(plain.weight, made("2d").weight)
    try:
        load_weights(divided("2d"), folder() / "no bias, one file")
    except lcmulti.errors.LcmultiError as caught:
        assert "(7, 7)" in str(caught)
    else:
        raise AssertionError("nothing was raised")


def check_checkpoint_read(rank):
    layer = divided("transposed")
    optimizer = torch.optim.AdamW(layer.parameters(), foreach=False)
    model, state = get_state_dict(layer, optimizer)
    found = {"model": model, "optimizer": state}
    dcp.load(found, checkpoint_id=folder() / "checkpoint")
    set_state_dict(
        layer, optimizer, model_state_dict=found["model"], optim_state_dict=found["optimizer"]
    )
    weight, moment = torch.load(folder() / "whole")
    assert torch.equal(layer.weight.full_tensor(), weight)
    assert torch.equal(optimizer.state[layer.weight]["exp_avg"].full_tensor(), moment)


def checks(ranks):
    if ranks == WRITERS:
        return {
            "files: saved": check_saved,
            "files: saved on two axes": check_saved_on_two_axes,
            "files: no such folder": check_a_folder_that_is_not_there,
        }
    return {
        f"files: read on {ranks}": check_read,
        f"files: checkpoint read on {ranks}": check_checkpoint_read,
    }
