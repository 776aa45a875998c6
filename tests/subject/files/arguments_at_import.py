import argparse

import torch.nn as nn

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
args = parser.parse_args()


class Net(nn.Linear):
    def __init__(self):
        super().__init__(3, 4)
