"""The function of transformers' Swin with less work, over the same module and the same weights.

`SwinForImageClassification` and `SwinForMaskedImageModeling` here have the stock classes' parameters, names, configs
and outputs; only their forward pass is written again. SwinCheX, whose backbone is a Swin, has the same pass. Outputs
and gradients are the stock ones up to rounding. What it leaves out:

- the roll, partition, reverse and roll back of every layer, each a copy: the tokens stay in the order of windows, and
  one gather goes from a layer's order to the next one's (`window_plan`);
- the mask of shifted windows, built in every layer of every pass: here once for a grid;
- the mask and the bias, expanded over the images;
- three projections for queries, keys and values: one;
- padding where there is nothing to pad, and a channels-first copy of each stage's output that is not used.

What the fast pass does not do, the stock one does: hidden states, attention maps, a loss of the model's own, positions
for another image size, and a model with hooks on its inner layers, some of which the fast pass does not call.

B = images, N = tokens of an image, K = tokens in windows (N, and the padding of a grid that windows do not fill),
A = tokens of a window, W = windows of all images, C = channels, H = heads, D = channels of a head, P = a patch's side.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.models.swin import modeling_swin
from transformers.models.swin.modeling_swin import SwinImageClassifierOutput, SwinMaskedImageModelingOutput

from hf_cxr.models.window_attention import window_attention
from hf_cxr.models.window_plan import LayerPlan, Plan
from hf_cxr.systems import swinchex


class PlannedSwin:
    """What both models here share: the plan of their tokens, and whether the fast pass can be taken."""

    def takes_fast_pass(self, **kwargs: Any) -> bool:
        """Whether nothing is asked for that the stock pass alone does; ``kwargs`` are what the caller asks for."""
        config = self.config
        if kwargs or config.output_hidden_states or config.output_attentions or not config.return_dict:
            return False
        return torch.compiler.is_compiling() or not self._has_inner_hooks()

    def plan_of(self, height: int, width: int) -> Plan:
        """The plan for images (height, width) in pixels, made once; its buffers follow the model to another device.

        `torch.compile` cannot trace the making: ask for the plan before compiling, as `use_attention` does.
        """
        if "plans" not in self._modules:  # a stock model that was given this class
            self.plans = nn.ModuleDict()
        name = f"{height}x{width}"
        if name not in self.plans:
            patch, window, depths = self.config.patch_size, self.config.window_size, self.config.depths
            with torch.inference_mode(False):  # gradients may need the buffers later
                self.plans[name] = Plan(-(-height // patch), -(-width // patch), window, depths).to(self.device)
            # DDP would send these constants to every process in every step.
            self._ddp_params_and_buffers_to_ignore = [
                name for name, _ in self.named_buffers() if name.startswith("plans.")
            ]
        return self.plans[name]

    def _has_inner_hooks(self) -> bool:
        """Whether a layer within the backbone has hooks, which the fast pass might not call."""
        return any(
            layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
            for layer in self.swin.modules()
        )


class FastClassifier(PlannedSwin):
    """The pass of a classifier whose backbone, ``swin``, is a Swin; stands before its stock class."""

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> SwinImageClassifierOutput:
        """Logits (B, classes) of normalised images (B, channels, S, S); everything else as the stock class."""
        if not self.takes_fast_pass(**kwargs):
            return super().forward(pixel_values, **kwargs)
        plan = self.plan_of(*pixel_values.shape[2:])
        tokens = encode(self.swin, embed(self.swin.embeddings, pixel_values, plan), plan, training=self.training)
        pooled = tokens.mean(1)  # over all tokens, in whatever order
        return SwinImageClassifierOutput(logits=self.logits_of(pooled))

    def logits_of(self, feature_BD: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of pooled features."""
        return self.classifier(feature_BD)


class SwinForImageClassification(FastClassifier, modeling_swin.SwinForImageClassification):
    """transformers' class with another forward pass. It has the same name, which a saved config.json gives."""


class SwinCheXForImageClassification(FastClassifier, swinchex.SwinCheXForImageClassification):
    """SwinCheX with the fast pass, its own heads behind it, and the same name."""

    logits_of = swinchex.SwinCheXForImageClassification.logits_of


class SwinForMaskedImageModeling(PlannedSwin, modeling_swin.SwinForMaskedImageModeling):
    """transformers' class with another forward pass, and the same name."""

    def forward(
        self, pixel_values: torch.Tensor, bool_masked_pos: torch.Tensor | None = None, **kwargs: Any
    ) -> SwinMaskedImageModelingOutput:
        """Reconstructions (B, channels, S, S) of normalised images whose patches (B, N) bool, row by row, are masked.

        The stock class's own loss is left out: it is a mean over a batch, not over an optimizer step.
        """
        if not self.takes_fast_pass(**kwargs):
            return super().forward(pixel_values, bool_masked_pos, **kwargs)
        plan = self.plan_of(*pixel_values.shape[2:])
        tokens = embed(self.swin.embeddings, pixel_values, plan, bool_masked_pos)
        tokens = plan.last(encode(self.swin, tokens, plan, training=self.training))  # row by row
        side = math.isqrt(tokens.shape[1])
        return SwinMaskedImageModelingOutput(
            reconstruction=self.decoder(tokens.transpose(1, 2).unflatten(2, (side, side)))
        )


FAST = {
    modeling_swin.SwinForImageClassification: SwinForImageClassification,
    modeling_swin.SwinForMaskedImageModeling: SwinForMaskedImageModeling,
    swinchex.SwinCheXForImageClassification: SwinCheXForImageClassification,
}
"""The stock class -> the one with the fast pass."""


def is_swin(model: nn.Module) -> bool:
    """Whether a model is one of the Swins in `FAST`, with either pass."""
    return type(model) in FAST or type(model) in FAST.values()


def give_fast_pass(model: nn.Module) -> None:
    """Let a Swin take the fast pass from now on; its weights stay where they are."""
    model.__class__ = FAST.get(type(model), type(model))
    model.plan_of(model.config.image_size, model.config.image_size)


def give_stock_pass(model: nn.Module) -> None:
    """Let a Swin take the stock pass again."""
    model.__class__ = next((stock for stock, fast in FAST.items() if type(model) is fast), type(model))


def encode(swin: nn.Module, tokens: torch.Tensor, plan: Plan, *, training: bool) -> torch.Tensor:
    """All layers of a backbone and its last norm: tokens (B, N, C) of `embed` to those in the last layer's order."""
    for stage, own in zip(swin.encoder.layers, plan.stages, strict=True):
        for layer, steps in zip(stage.blocks, own.layers, strict=True):
            if layer.gradient_checkpointing and training:
                tokens = layer._gradient_checkpointing_func(partial(run_layer, layer, steps), tokens)
            else:
                tokens = run_layer(layer, steps, tokens)
        if own.merge is not None:
            tokens = own.merge(tokens).unflatten(1, (-1, 4)).flatten(2)  # (B, N / 4, 4 C)
            tokens = stage.downsample.reduction(stage.downsample.norm(tokens))
    return swin.layernorm(tokens)


def embed(embeddings: nn.Module, pixels: torch.Tensor, plan: Plan, masked: torch.Tensor | None = None) -> torch.Tensor:
    """Patches of images (B, channels, S, S) as tokens (B, N, C), in the order of the first layer.

    Patches that are ``masked``, (B, N) bool row by row, are the mask token.
    """
    projection = embeddings.patch_embeddings.projection
    P = projection.kernel_size[0]
    bottom, right = (-side % P for side in pixels.shape[2:])
    if bottom or right:
        pixels = functional.pad(pixels, (0, right, 0, bottom))
    # As a matrix product: the images are copied once, into rows of patches in the wanted order.
    B, channels, *_ = pixels.shape
    high, wide = plan.block
    blocks = pixels.reshape(B, channels, plan.height // high, high, P, plan.width // wide, wide, P)
    rows = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(B, plan.height * plan.width, -1)
    tokens = embeddings.norm(functional.linear(rows, projection.weight.flatten(1), projection.bias))
    if masked is not None:
        share = plan.first(masked[..., None].to(tokens.dtype))  # 1 or 0
        tokens = tokens * (1 - share) + embeddings.mask_token * share
    if embeddings.position_embeddings is not None:
        tokens = tokens + plan.first(embeddings.position_embeddings)
    return embeddings.dropout(tokens)


def run_layer(layer: nn.Module, steps: LayerPlan, tokens: torch.Tensor) -> torch.Tensor:
    """One layer on tokens (B, N, C) in the order of the layer before; they leave in its own."""
    if steps.enter is not None:
        tokens = steps.enter(tokens)
    normed = layer.layernorm_before(tokens)
    if steps.pad is not None:
        normed = steps.pad(normed)
    attended = layer.dropout(attend(layer.attention, normed, steps))
    if steps.crop is not None:
        attended = steps.crop(attended)
    tokens = tokens + layer.drop_path(attended)
    return tokens + layer.dropout(layer.mlp(layer.layernorm_after(tokens)))


def attend(attention: nn.Module, tokens: torch.Tensor, steps: LayerPlan) -> torch.Tensor:
    """Attention within windows of tokens (B, K, C) that lie window by window."""
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight = torch.cat([part.weight for part in parts])
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    qkv = functional.linear(tokens, weight, bias)
    qkv = qkv.view(-1, steps.area, 3, attention.num_attention_heads, attention.head_dim)  # (W, A, 3, H, D)
    positions = attention.relative_position_bias()[0].float()  # (H, A, A)
    dropout = attention.attention_dropout if attention.training else 0.0
    attended = window_attention(qkv, positions, steps.mask, attention.scaling, dropout)
    return attention.o_proj(attended.view(tokens.shape))
