"""The best of 100 learning rates for logistic regression: all are trained at once, with NumPy."""

import numpy as np

import arrayopt as ao

rng = np.random.default_rng(0)
x = rng.standard_normal((600, 20)) * 10 ** rng.uniform(-1, 1, 20)  # features of unequal size
labels = rng.random(600) < 1 / (1 + np.exp(-x @ rng.standard_normal(20)))
train, test = slice(0, 400), slice(400, 600)

rates = np.geomspace(1e-4, 10, 100)
opt = ao.Sweep("adam", lr=rates)
params = opt.tile({"w": np.zeros(20), "b": np.zeros(1)})  # (100, 20) and (100, 1)
state = opt.init(params)

for _ in range(100):
    logits = params["w"] @ x[train].T + params["b"]  # (100, 400): one row per run
    wrong = (1 + np.tanh(logits / 2)) / 2 - labels[train]  # the probability less the label
    grads = {"w": wrong @ x[train] / 400, "b": wrong.mean(axis=1, keepdims=True)}
    params, state = opt.step(params, grads, state)

logits = params["w"] @ x[test].T + params["b"]
losses = (np.logaddexp(0, logits) - labels[test] * logits).mean(axis=1)
best = losses.argmin()
print(f"best of {len(rates)}: lr = {rates[best]:.3g}, loss on other data {losses[best]:.3f}")
print(f"lr = {rates[0]:.3g}: {losses[0]:.3f}, lr = {rates[-1]:.3g}: {losses[-1]:.3f}")
