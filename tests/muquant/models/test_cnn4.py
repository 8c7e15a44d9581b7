from muquant.models import build_model


def test_cnn4_is_the_classic_network() -> None:
    model = build_model("cnn4", (1, 28, 28), 10)
    names = [name for name, _ in model.named_children()]
    assert names == ["normalize", "conv1", "conv2", "fc1", "fc2"]
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_children()}
    assert sizes == {
        "normalize": 0,
        "conv1": 9 * 32 + 32,
        "conv2": 9 * 32 * 64 + 64,
        "fc1": 7 * 7 * 64 * 1024 + 1024,
        "fc2": 1024 * 10 + 10,
    }
