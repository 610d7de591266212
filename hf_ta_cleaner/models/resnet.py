"""CLIP with a ResNet as its image tower, as a model of transformers.

Importing this module registers the model: the Auto classes and pipelines of transformers then know its type,
`clip_resnet`. `load_model` imports it.

Source: Radford et al. 2021 (arXiv 2103.00020), section 2.4: a ResNet-D with anti-aliased strides and a pooling by
attention. The image tower names its weights as OpenAI's files do, so that they pass from one to the other unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    CLIPTextConfig,
    PreTrainedConfig,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput, CLIPPreTrainedModel, CLIPTextModel


class CLIPResNetVisionConfig(PreTrainedConfig):
    """Sizes of the image tower.

    Attributes:
        stem_width: Channels after the stem; the four stages have 4, 8, 16 and 32 times as many.
        layers: Bottleneck blocks of each stage.
        num_attention_heads: Heads of the attention pool.
        image_size: Side of the square input in pixels, a multiple of 32.
    """

    model_type = "clip_resnet_vision_model"
    base_config_key = "vision_config"

    stem_width: int = 64
    layers: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    num_attention_heads: int = 32
    image_size: int = 224
    num_channels: int = 3
    projection_dim: int = 1024
    initializer_factor: float = 1.0

    @property
    def hidden_size(self) -> int:
        """Channels of the last feature map."""
        return 32 * self.stem_width


class CLIPResNetConfig(PreTrainedConfig):
    """Both towers: a `CLIPResNetVisionConfig` (the default is RN50's) and a `CLIPTextConfig`."""

    model_type = "clip_resnet"
    sub_configs_defaults = {"vision_config": CLIPResNetVisionConfig, "text_config": CLIPTextConfig}

    text_config: dict | CLIPTextConfig | None = None
    vision_config: dict | CLIPResNetVisionConfig | None = None
    projection_dim: int = 1024
    logit_scale_init_value: float = 2.6592
    initializer_factor: float = 1.0


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut. Every stride is an average pooling before a convolution."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, inputs, H, W)` -> `(N, 4 width, H / stride, W / stride)`."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        if self.stride > 1:
            out, x = F.avg_pool2d(out, self.stride), F.avg_pool2d(x, self.stride)
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class AttentionPool(nn.Module):
    """Multi-head attention whose only query is the mean of the feature map.

    The keys and values are that mean and all places of the map, each with its position's embedding.
    """

    def __init__(self, side: int, width: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(side**2 + 1, width))
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, outputs)
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, width, side, side)` -> `(N, outputs)`."""
        places = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1)
        tokens = tokens + self.positional_embedding.to(tokens.dtype)
        query, key, value = (
            project(part).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project, part in ((self.q_proj, tokens[:, :1]), (self.k_proj, tokens), (self.v_proj, tokens))
        )
        return self.c_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(1))


class CLIPResNetPreTrainedModel(CLIPPreTrainedModel):
    """How the weights of a new model are drawn; the text tower's as CLIPModel's."""

    def _init_weights(self, module: nn.Module) -> None:
        """Convolutions as He et al. 2015; a residual branch starts at zero; projections keep the variance."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Bottleneck):
            init.zeros_(module.bn3.weight)
        elif isinstance(module, AttentionPool):
            init.normal_(module.positional_embedding, std=module.positional_embedding.shape[1] ** -0.5)
            for projection in (module.q_proj, module.k_proj, module.v_proj, module.c_proj):
                init.normal_(projection.weight, std=projection.in_features**-0.5)
        elif isinstance(module, CLIPResNetModel):
            init.normal_(module.text_projection.weight, std=module.text_projection.in_features**-0.5)


class CLIPResNetVisionModel(CLIPResNetPreTrainedModel):
    """The image tower: a stem of three convolutions, four stages, the attention pool."""

    config_class = CLIPResNetVisionConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ["Bottleneck", "AttentionPool"]

    def __init__(self, config: CLIPResNetVisionConfig) -> None:
        super().__init__(config)
        width = config.stem_width
        self.conv1 = nn.Conv2d(config.num_channels, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        stages, inputs = [], width
        for i, depth in enumerate(config.layers):
            middle = width * 2**i
            strides = [1 if i == 0 else 2] + [1] * (depth - 1)
            blocks = []
            for stride in strides:
                blocks.append(Bottleneck(inputs, middle, stride))
                inputs = 4 * middle
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.attnpool = AttentionPool(
            config.image_size // 32, config.hidden_size, config.num_attention_heads, config.projection_dim
        )
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """`(N, 3, S, S)` -> `last_hidden_state`, the feature map `(N, (S / 32)^2, C)`, and the embedding `(N, D)`."""
        x = pixel_values.to(self.conv1.weight.dtype)
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(norm(conv(x)))
        x = F.avg_pool2d(x, 2)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return BaseModelOutputWithPooling(
            last_hidden_state=x.flatten(2).transpose(1, 2), pooler_output=self.attnpool(x)
        )


class CLIPResNetModel(CLIPResNetPreTrainedModel):
    """Has the methods and outputs of `CLIPModel`; the image tower projects by its attention pool.

    In training mode the batch norms use, and learn, the statistics of the batch, as in the published code;
    `freeze_batch_norm` keeps those that the model came with.
    """

    config_class = CLIPResNetConfig
    supports_gradient_checkpointing = False  # a batch norm would learn from every batch twice
    _no_split_modules = ["CLIPTextEmbeddings", "CLIPEncoderLayer", "Bottleneck", "AttentionPool"]

    def __init__(self, config: CLIPResNetConfig) -> None:
        super().__init__(config)
        self.text_model = CLIPTextModel._from_config(config.text_config)
        self.vision_model = CLIPResNetVisionModel._from_config(config.vision_config)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
        self.post_init()

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """`(N, 3, S, S)` -> an output whose `pooler_output` is the embedding `(N, D)`, not normalised."""
        return self.vision_model(pixel_values)

    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """`(N, L)` -> an output whose `pooler_output` is the embedding `(N, D)`, not normalised."""
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)
        output.pooler_output = self.text_projection(output.pooler_output)
        return output

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs,
    ) -> CLIPOutput:
        """T texts `(T, L)` and N images `(N, 3, S, S)` -> unit embeddings and the logits `(N, T)` and `(T, N)`.

        With `return_loss` (and T = N) also the contrastive loss, a scalar.
        """
        images = self.get_image_features(pixel_values)
        texts = self.get_text_features(input_ids, attention_mask, position_ids)
        image_embeds, text_embeds = F.normalize(images.pooler_output, dim=-1), F.normalize(texts.pooler_output, dim=-1)
        logits = self.logit_scale.exp() * image_embeds @ text_embeds.T
        loss = None
        if return_loss:
            pairs = torch.arange(len(logits), device=logits.device)
            loss = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        return CLIPOutput(
            loss=loss,
            logits_per_image=logits,
            logits_per_text=logits.T,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=texts,
            vision_model_output=images,
        )


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A batch norm that uses its running statistics in training too, and keeps them. Gain and bias are trained."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, C, H, W)` -> `(N, C, H, W)`."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def freeze_batch_norm(model: nn.Module) -> int:
    """Turns every batch norm of the model into a `FrozenBatchNorm2d`, in place; weights and names stay.

    Returns:
        How many were turned.
    """
    norms = batch_norms(model)
    for norm in norms:
        norm.__class__ = FrozenBatchNorm2d
    return len(norms)


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms of a model that learn their statistics in training."""
    return [module for module in model.modules() if type(module) is nn.BatchNorm2d]


AutoConfig.register(CLIPResNetVisionConfig.model_type, CLIPResNetVisionConfig, exist_ok=True)
AutoConfig.register(CLIPResNetConfig.model_type, CLIPResNetConfig, exist_ok=True)
AutoModel.register(CLIPResNetConfig, CLIPResNetModel, exist_ok=True)
AutoModelForZeroShotImageClassification.register(CLIPResNetConfig, CLIPResNetModel, exist_ok=True)
