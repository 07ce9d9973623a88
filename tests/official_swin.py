"""The official Swin and SwinV2 written out in float64, for one image and one stage after another: slow, and our own.

From the papers (Liu et al. 2021, arXiv 2103.14030; 2022, arXiv 2111.09883) and the names of the official state_dict.
Windows, shifts and position biases are loops over pairs of patches: nothing is shared with the code that is tested.
"""

import math

import numpy as np
from scipy.special import erf

SIZES = {"image_size": 16, "patch_size": 2, "embed_dim": 4, "depths": [2, 1], "num_heads": [1, 2], "window_size": 4}
MASKED = -100.0


def random_weights(seed=0, *, second=False, sizes=SIZES, absolute=False, qkv_bias=True):
    """A state_dict of the official layout, as float64 arrays; position tables as large as the rest."""
    rng = np.random.default_rng(seed)
    width, patch, stages = sizes["embed_dim"], sizes["patch_size"], len(sizes["depths"])
    shapes = {"patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,)}
    shapes |= norm("patch_embed.norm", width) | norm("norm", width * 2 ** (stages - 1))
    if absolute:
        shapes["absolute_pos_embed"] = (1, (sizes["image_size"] // patch) ** 2, width)
    for stage, (depth, heads) in enumerate(zip(sizes["depths"], sizes["num_heads"], strict=True)):
        d = width * 2**stage
        for block in range(depth):
            own = f"layers.{stage}.blocks.{block}"
            shapes |= norm(f"{own}.norm1", d) | norm(f"{own}.norm2", d) | {f"{own}.attn.qkv.weight": (3 * d, d)}
            shapes |= {f"{own}.attn.proj.weight": (d, d), f"{own}.attn.proj.bias": (d,)}
            shapes |= {f"{own}.mlp.fc1.weight": (4 * d, d), f"{own}.mlp.fc1.bias": (4 * d,)}
            shapes |= {f"{own}.mlp.fc2.weight": (d, 4 * d), f"{own}.mlp.fc2.bias": (d,)}
            if second:
                shapes |= {f"{own}.attn.logit_scale": (heads, 1, 1), f"{own}.attn.cpb_mlp.0.weight": (512, 2)}
                shapes |= {f"{own}.attn.cpb_mlp.0.bias": (512,), f"{own}.attn.cpb_mlp.2.weight": (heads, 512)}
                shapes |= {f"{own}.attn.{name}_bias": (d,) for name in "qv" if qkv_bias}
            else:
                shapes[f"{own}.attn.relative_position_bias_table"] = ((2 * sizes["window_size"] - 1) ** 2, heads)
                shapes |= {f"{own}.attn.qkv.bias": (3 * d,)} if qkv_bias else {}
        if stage < stages - 1:
            shapes |= norm(f"layers.{stage}.downsample.norm", (2 if second else 4) * d)
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * d, 4 * d)
    weights = {name: rng.normal(0, 0.3, shape) for name, shape in shapes.items()}
    for name in weights:
        if "norm" in name and name.endswith("weight"):
            weights[name] += 1
    return weights


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def tables(sizes, pretrained=None):
    """The buffers that the official code saves: position numbers, masks and, with ``pretrained``, coordinates."""
    result = {}
    for stage, depth in enumerate(sizes["depths"]):
        grid = sizes["image_size"] // sizes["patch_size"] // 2**stage
        side = min(sizes["window_size"], grid)
        places = [(row, column) for row in range(side) for column in range(side)]
        index = [[(a - c + side - 1) * (2 * side - 1) + b - d + side - 1 for c, d in places] for a, b in places]
        for block in range(depth):
            own = f"layers.{stage}.blocks.{block}"
            result[f"{own}.attn.relative_position_index"] = np.array(index)
            if block % 2 and grid > side:
                windows, inside = shifted_windows(grid, side, side // 2)
                result[f"{own}.attn_mask"] = np.stack([np.where(same, 0, MASKED) for same in inside])
                assert len(windows) == (grid // side) ** 2
            if pretrained is not None:
                result[f"{own}.attn.relative_coords_table"] = coordinates(side, pretrained[stage])[None]
    return result


def coordinates(side, pretrained):
    """(2 w - 1, 2 w - 1, 2): SwinV2's log-spaced relative coordinates (equation 4), scaled as the official code."""
    steps = np.arange(-(side - 1), side) / ((pretrained or side) - 1) * 8
    logs = np.sign(steps) * np.log2(1 + np.abs(steps)) / math.log2(8)
    return np.stack(np.meshgrid(logs, logs, indexing="ij"), axis=-1)


def shifted_windows(grid, side, shift):
    """By window, its patches as (row, column) before the shift, and which pairs of them were neighbours (w^2, w^2)."""
    windows, inside = [], []
    for top in range(0, grid, side):
        for left in range(0, grid, side):
            moved = [(top + row, left + column) for row in range(side) for column in range(side)]
            windows.append([((row + shift) % grid, (column + shift) % grid) for row, column in moved])
            region = [(row + shift >= grid, column + shift >= grid) for row, column in moved]
            inside.append(np.array([[one == two for two in region] for one in region]))
    return windows, inside


def features(weights, pixels, sizes, pretrained=None):
    """What the classifier would get for normalised pixels (3, S, S): (D,)."""
    second, patch = "layers.0.blocks.0.attn.logit_scale" in weights, sizes["patch_size"]
    grid = sizes["image_size"] // patch
    x = np.empty((grid, grid, sizes["embed_dim"]))
    for row in range(grid):
        for column in range(grid):
            piece = pixels[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            x[row, column] = np.einsum("ocij,cij->o", weights["patch_embed.proj.weight"], piece)
    x = layer_norm(weights, "patch_embed.norm", x + weights["patch_embed.proj.bias"])
    if "absolute_pos_embed" in weights:
        x += weights["absolute_pos_embed"].reshape(x.shape)
    for stage, depth in enumerate(sizes["depths"]):
        for block in range(depth):
            own = f"layers.{stage}.blocks.{block}"
            side = min(sizes["window_size"], len(x))
            shift = side // 2 if block % 2 and len(x) > side else 0
            before = (pretrained or [0] * len(sizes["depths"]))[stage]
            attend = lambda y: attention(weights, f"{own}.attn", y, side, shift, sizes["num_heads"][stage], before)  # noqa: B023, E731
            if second:
                x = x + layer_norm(weights, f"{own}.norm1", attend(x))
                x = x + layer_norm(weights, f"{own}.norm2", mlp(weights, f"{own}.mlp", x))
            else:
                x = x + attend(layer_norm(weights, f"{own}.norm1", x))
                x = x + mlp(weights, f"{own}.mlp", layer_norm(weights, f"{own}.norm2", x))
        if f"layers.{stage}.downsample.reduction.weight" in weights:
            own = f"layers.{stage}.downsample"
            x = np.concatenate([x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]], axis=-1)
            reduction = weights[f"{own}.reduction.weight"].T
            x = (
                layer_norm(weights, f"{own}.norm", x @ reduction)
                if second
                else layer_norm(weights, f"{own}.norm", x) @ reduction
            )
    return layer_norm(weights, "norm", x).mean(axis=(0, 1))


def attention(weights, own, x, side, shift, heads, pretrained):
    width = x.shape[-1]
    second = f"{own}.logit_scale" in weights
    qkv = x @ weights[f"{own}.qkv.weight"].T
    if second and f"{own}.q_bias" in weights:
        qkv += np.concatenate([weights[f"{own}.q_bias"], np.zeros(width), weights[f"{own}.v_bias"]])
    elif f"{own}.qkv.bias" in weights:
        qkv += weights[f"{own}.qkv.bias"]
    result = np.empty_like(x)
    for window, inside in zip(*shifted_windows(len(x), side, shift), strict=True):
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            q, k, v = (np.array([qkv[at][i * width : (i + 1) * width][part] for at in window]) for i in range(3))
            if second:
                q, k = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True) for vectors in (q, k))
                score = q @ k.T * math.exp(min(weights[f"{own}.logit_scale"][head, 0, 0], math.log(100)))
            else:
                score = q @ k.T / math.sqrt(width // heads)
            score += position_bias(weights, own, head, side, pretrained) + np.where(inside, 0, MASKED)
            shares = np.exp(score - score.max(axis=1, keepdims=True))
            for at, mixed in zip(window, shares / shares.sum(axis=1, keepdims=True) @ v, strict=True):
                result[at][part] = mixed
    return result @ weights[f"{own}.proj.weight"].T + weights[f"{own}.proj.bias"]


def position_bias(weights, own, head, side, pretrained):
    """(w^2, w^2): of the difference of two places in a window."""
    if f"{own}.cpb_mlp.0.weight" in weights:
        hidden = (
            coordinates(side, pretrained) @ weights[f"{own}.cpb_mlp.0.weight"].T + weights[f"{own}.cpb_mlp.0.bias"]
        )
        table = 16 / (1 + np.exp(-(np.maximum(hidden, 0) @ weights[f"{own}.cpb_mlp.2.weight"][head])))
    else:
        table = weights[f"{own}.relative_position_bias_table"][:, head].reshape(2 * side - 1, 2 * side - 1)
    places = [(row, column) for row in range(side) for column in range(side)]
    return np.array([[table[a - c + side - 1, b - d + side - 1] for c, d in places] for a, b in places])


def mlp(weights, own, x):
    hidden = x @ weights[f"{own}.fc1.weight"].T + weights[f"{own}.fc1.bias"]
    hidden *= (1 + erf(hidden / math.sqrt(2))) / 2
    return hidden @ weights[f"{own}.fc2.weight"].T + weights[f"{own}.fc2.bias"]


def layer_norm(weights, own, x):
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return x * weights[f"{own}.weight"] + weights[f"{own}.bias"]
