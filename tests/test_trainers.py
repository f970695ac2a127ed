"""Trainers of other projects take the torch classes as they take torch's own: real packages."""

import logging

import pytest
from conftest import package

torch = package("torch")

from arrayopt.backends.torch import CLASSES  # noqa: E402

SEED = [CLASSES[n] for n in ("Adamax", "MADA", "Madam", "LaMAdam", "MAdam", "SimplifiedAdEMAMix")]
each = pytest.mark.parametrize("cls", SEED, ids=lambda cls: cls.__name__)


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    monkeypatch.chdir(tmp_path)


def dataset(n=24):
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=gen)
    return torch.utils.data.TensorDataset(x, x @ torch.randn(4, 2, generator=gen))


def network():
    net = torch.nn.Linear(4, 2)
    gen = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=gen))
    return net


def loss_of(net, x, y):
    return torch.nn.functional.mse_loss(net(x), y)


def plain(cls, epochs, lr=0.01):
    """What a loop of one's own gives."""
    net = network()
    opt = cls(net.parameters(), lr=lr)
    for _ in range(epochs):
        for x, y in torch.utils.data.DataLoader(dataset(), batch_size=8):
            opt.zero_grad()
            loss_of(net, x, y).backward()
            opt.step()
    return net, opt


def assert_same(net, opt, want_net, want_opt):
    for (name, a), b in zip(net.named_parameters(), want_net.parameters(), strict=True):
        assert torch.equal(a, b), name
    got, want = opt.state_dict(), want_opt.state_dict()
    assert got["state"].keys() == want["state"].keys()
    for i, slots in want["state"].items():
        assert slots.keys() == got["state"][i].keys()
        assert all(torch.equal(got["state"][i][k], x) for k, x in slots.items())
    if "shared" in want["param_groups"][0]:
        a, b = got["param_groups"][0]["shared"], want["param_groups"][0]["shared"]
        assert {k: {c: x.item() for c, x in v.items()} for k, v in a.items()} == {
            k: {c: x.item() for c, x in v.items()} for k, v in b.items()
        }


@each
def test_accelerate(cls, tmp_path):
    accelerate = package("accelerate")
    acc = accelerate.Accelerator(cpu=True)

    def prepared():
        net = network()
        loader = torch.utils.data.DataLoader(dataset(), batch_size=8)
        opt = cls(net.parameters(), lr=0.01)
        sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda _: 1.0)
        return acc.prepare(net, opt, loader, sched)

    def epoch(net, opt, loader, sched):
        for x, y in loader:
            with acc.accumulate(net):
                acc.backward(loss_of(net, x, y))
                acc.clip_grad_norm_(net.parameters(), 1e9)
                opt.step()
                sched.step()
                opt.zero_grad()

    run = prepared()
    epoch(*run)
    acc.save_state(tmp_path / "state")
    epoch(*run)
    assert_same(run[0], run[1].optimizer, *plain(cls, 2))
    acc.load_state(tmp_path / "state")  # back to the end of the first epoch
    assert_same(run[0], run[1].optimizer, *plain(cls, 1))
    epoch(*run)
    assert_same(run[0], run[1].optimizer, *plain(cls, 2))
    acc.free_memory()


# Lightning's own: a name that torch 2.13 deprecates; advice about loaders and loggers.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@each
def test_lightning(cls, tmp_path):
    lightning = package("lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch, _):
            return loss_of(self.net, *batch)

        def configure_optimizers(self):
            return cls(self.net.parameters(), lr=0.01)

    def fit(epochs, checkpoint=None):
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        module = Module()
        loader = torch.utils.data.DataLoader(dataset(), batch_size=8)
        trainer.fit(module, loader, ckpt_path=checkpoint)
        return trainer, module

    trainer, module = fit(1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert_same(module.net, trainer.optimizers[0], *plain(cls, 1))
    trainer, module = fit(2, tmp_path / "one.ckpt")
    assert trainer.global_step == 6
    assert_same(module.net, trainer.optimizers[0], *plain(cls, 2))


class Model(torch.nn.Module):
    """As HF's Trainer calls its models."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x, labels):
        return {"loss": loss_of(self.net, x, labels)}


@pytest.mark.parametrize("given", ["instance", "class"])
@each
def test_hf_trainer(cls, given, tmp_path):
    transformers = package("transformers")
    rows = [{"x": x, "labels": y} for x, y in dataset()]

    def train(epochs, resume=None):
        args = transformers.TrainingArguments(
            output_dir=tmp_path,
            num_train_epochs=epochs,
            per_device_train_batch_size=8,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            save_strategy="epoch",
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            train_sampling_strategy="sequential",
        )
        model = Model()
        how = {"optimizers": (cls(model.parameters(), lr=0.01), None)}
        if given == "class":
            how = {"optimizer_cls_and_kwargs": (cls, {"lr": 0.01})}
        trainer = transformers.Trainer(model, args, train_dataset=rows, **how)
        trainer.train(resume_from_checkpoint=resume)
        return trainer, model

    trainer, model = train(2)
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    assert isinstance(optimizer, cls)
    want = plain(cls, 2)
    assert_same(model.net, optimizer, *want)
    trainer, model = train(2, tmp_path / "checkpoint-3")
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    assert_same(model.net, optimizer, *want)
