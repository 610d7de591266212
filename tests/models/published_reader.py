"""The published layout written out anew: its parameter names, its forward. Plain readers of what is written back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class QuickGELU(nn.Module):
    def forward(self, x):
        return x / (1 + torch.exp(-1.702 * x))


class Block(nn.Module):
    def __init__(self, width, heads, activation):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 3 * width))
        self.mlp.add_module("gelu", activation())
        self.mlp.add_module("c_proj", nn.Linear(3 * width, width))

    def forward(self, x, mask):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, heads, layers, activation):
        super().__init__()
        self.resblocks = nn.ModuleList([Block(width, heads, activation) for _ in range(layers)])

    def forward(self, x, mask=None):
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Vision(nn.Module):
    def __init__(self, side, patch, width, heads, layers, dimensions, activation):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, heads, layers, activation)
        self.proj = nn.Parameter(torch.randn(width, dimensions))

    def forward(self, images):
        x = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class ResNetBlock(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.pool = nn.AvgPool2d(stride)
        if stride > 1 or inputs != 4 * width:
            self.downsample = nn.Sequential()
            self.downsample.add_module("-1", nn.AvgPool2d(stride))
            self.downsample.add_module("0", nn.Conv2d(inputs, 4 * width, 1, bias=False))
            self.downsample.add_module("1", nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.pool(self.bn2(self.conv2(y)).relu())
        y = self.bn3(self.conv3(y))
        return (y + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class ResNetPool(nn.Module):
    def __init__(self, side, width, heads, dimensions):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(side * side + 1, width) / width**0.5)
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, dimensions)
        self.heads = heads

    def forward(self, x):
        x = x.flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x]) + self.positional_embedding[:, None]
        q, k, v, c = self.q_proj, self.k_proj, self.v_proj, self.c_proj
        return F.multi_head_attention_forward(
            x[:1], x, x, x.shape[-1], self.heads, None, torch.cat([q.bias, k.bias, v.bias]), None, None, False, 0.0,
            c.weight, c.bias, training=False, need_weights=False, use_separate_proj_weight=True,
            q_proj_weight=q.weight, k_proj_weight=k.weight, v_proj_weight=v.weight,
        )[0][0]  # fmt: skip


class ResNetVision(nn.Module):
    """OpenAI's ModifiedResNet."""

    def __init__(self, side, layers, width, heads, dimensions):
        super().__init__()
        half = width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        inputs = width
        for i, depth in enumerate(layers):
            stage = nn.Sequential()
            for j in range(depth):
                stage.append(ResNetBlock(inputs, width * 2**i, 2 if i and not j else 1))
                inputs = 4 * width * 2**i
            setattr(self, f"layer{i + 1}", stage)
        self.attnpool = ResNetPool(side // 32, inputs, heads, dimensions)

    def forward(self, x):
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = norm(conv(x)).relu()
        x = F.avg_pool2d(x, 2)
        return self.attnpool(self.layer4(self.layer3(self.layer2(self.layer1(x)))))


class OpenClip(nn.Module):
    """A tiny CLIP; `heads` are those of a ViT and of the text tower."""

    def __init__(self, vocabulary, activation=nn.GELU, side=48, resnet=False, heads=(4, 2)):
        super().__init__()
        if resnet:
            self.visual = ResNetVision(64, (1, 2, 1, 1), 8, 4, 24)
        else:
            self.visual = Vision(side, 8, 64, heads[0], 3, 24, activation)
        self.transformer = Transformer(32, heads[1], 2, activation)
        self.token_embedding = nn.Embedding(vocabulary, 32)
        self.positional_embedding = nn.Parameter(torch.randn(20, 32))
        self.ln_final = nn.LayerNorm(32)
        self.text_projection = nn.Parameter(torch.randn(32, 24))
        self.logit_scale = nn.Parameter(torch.tensor(3.5))
        for name, parameter in self.named_parameters():  # biases start at zero and gains at one: that hides a mix-up
            if parameter.ndim:
                deep = resnet and name.startswith("visual") and parameter.ndim > 1
                nn.init.normal_(parameter.data, std=parameter[0].numel() ** -0.5 if deep else 0.3)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data += 1  # nothing would pass a deep network otherwise
        for name, buffer in self.named_buffers():  # as if it had been trained, some batches long
            if name.endswith("running_mean"):
                nn.init.normal_(buffer, std=0.3)
            elif name.endswith("running_var"):
                nn.init.uniform_(buffer, 0.5, 1.5)
            else:
                buffer.fill_(7)

    def forward(self, images, tokens):
        return self.visual(images), self.text(tokens)

    def text(self, tokens):
        length = tokens.shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1)
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        x = self.ln_final(self.transformer(x, mask))
        return x[torch.arange(len(x)), tokens.argmax(1)] @ self.text_projection


def plain_state(model):
    """Copies of a reader's weights, by their published names."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def model_cfg(vocabulary, *, resnet=False, **more):
    """The sizes of an `OpenClip` as `open_clip_config.json` has them."""
    vision = {"image_size": 48, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8, "mlp_ratio": 3.0}
    if resnet:
        vision = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "head_width": 64, "patch_size": None}
    text = {"context_length": 20, "vocab_size": vocabulary, "width": 32, "heads": 2, "layers": 2, "mlp_ratio": 3.0}
    return {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, **more}
