# expect: silent
import torch
from torch import nn
from torch.distributions import Categorical


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.actor, self.critic = nn.Linear(4, 32), nn.Linear(32, 3), nn.Linear(32, 1)

    def forward(self, state):
        h = torch.tanh(self.body(state))
        return Categorical(logits=self.actor(h)), self.critic(h).squeeze(-1)


class Corridor:
    def reset(self):
        self.at, self.time = 0.0, 0
        return self.state()

    def state(self):
        return torch.tensor([self.at / 5, self.time / 20, 1.0, 0.5])

    def step(self, action):
        self.at += action - 1
        self.time += 1
        return self.state(), float(self.at > 2), self.time >= 12


def main():
    torch.manual_seed(0)
    policy, world = Policy(), Corridor()
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    for _episode in range(500):
        state, done, logs, values, rewards = world.reset(), False, [], [], []
        while not done:
            chances, value = policy(state)
            action = chances.sample()
            state, reward, done = world.step(action.item())
            logs.append(chances.log_prob(action))
            values.append(value)
            rewards.append(reward)
        returns, total = [], 0.0
        for reward in reversed(rewards):
            total = reward + 0.95 * total
            returns.insert(0, total)
        returns = torch.tensor(returns)
        advantage = returns - torch.stack(values)
        loss = -(torch.stack(logs) * advantage.detach()).mean() + 0.5 * advantage.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()
