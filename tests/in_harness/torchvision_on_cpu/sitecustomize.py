"""Lets torchvision be imported beside a torch for CPUs: its wheel lacks two native operators, which no test needs."""

import torch

for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
