"""torchvision's SqueezeNet, rewritten as a module that PyTorch exports, with bypasses and metaparameters too."""

import numpy as np

from sqz_keras.architecture.layers import bypass_kinds
from tests.weights.readers.mutations import layers_of, oihw


def module(torch, spec, arrays):
    """The module of a spec with these weights; if it has no bypass, their names are torchvision's."""
    nn = torch.nn
    weights = layers_of(arrays)

    def convolution(layer, **options):
        kernel = torch.from_numpy(np.ascontiguousarray(oihw(weights[layer]["kernel"])))
        conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2], **options)
        conv.weight, conv.bias = nn.Parameter(kernel), nn.Parameter(torch.from_numpy(weights[layer]["bias"].copy()))
        return conv

    class Fire(nn.Module):
        def __init__(self, name, bypass):
            super().__init__()
            self.squeeze = convolution(f"{name}_squeeze1x1")
            self.expand1x1 = convolution(f"{name}_expand1x1")
            self.expand3x3 = convolution(f"{name}_expand3x3", padding=1)
            self.bypass = convolution(f"{name}_bypass1x1") if bypass == "convolution" else None
            self.adds = bypass is not None

        def forward(self, x):
            squeezed = self.squeeze(x).relu()
            y = torch.cat([self.expand1x1(squeezed).relu(), self.expand3x3(squeezed).relu()], 1)
            if not self.adds:
                return y
            return y + (x if self.bypass is None else self.bypass(x).relu())

    net = spec.metaparameters
    features = [convolution("conv1", stride=2), nn.ReLU(inplace=True)]
    if 1 in net.pool_after:
        features.append(nn.MaxPool2d(3, 2, ceil_mode=True))
    for fire, bypass in zip(net.fire_modules(), bypass_kinds(net, spec.bypass), strict=True):
        features.append(Fire(fire.name, bypass))
        if fire.number in net.pool_after:
            features.append(nn.MaxPool2d(3, 2, ceil_mode=True))
    root = nn.Module()
    root.features = nn.Sequential(*features)
    root.classifier = nn.Sequential(
        nn.Dropout(0.5),
        convolution("conv10", padding=spec.conv10_padding),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d((1, 1)),
    )
    root.forward = lambda x: torch.flatten(root.classifier(root.features(x)), 1)
    return root.eval()
