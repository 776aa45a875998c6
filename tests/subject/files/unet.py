import torch
import torch.nn as nn


class DoubleConv(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return self.double_conv(x)


class UNet(nn.Module):
    def __init__(self, n_channels=3, n_classes=2):
        super().__init__()
        self.inc, self.down = DoubleConv(n_channels, 8), DoubleConv(8, 16)
        self.bottom = DoubleConv(16, 32)
        self.pool = nn.MaxPool2d(2)
        self.up1, self.dec1 = nn.ConvTranspose2d(32, 16, 2, 2), DoubleConv(32, 16)
        self.up2, self.dec2 = nn.ConvTranspose2d(16, 8, 2, 2), DoubleConv(16, 8)
        self.outc = nn.Conv2d(8, n_classes, 1)

    def forward(self, x):
        a = self.inc(x)
        b = self.down(self.pool(a))
        c = self.bottom(self.pool(b))
        x = self.dec1(torch.cat([b, self.up1(c)], dim=1))
        x = self.dec2(torch.cat([a, self.up2(x)], dim=1))
        return self.outc(x)
