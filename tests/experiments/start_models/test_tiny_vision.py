"""The small vision-language model: its folder loads everywhere, and says what it cannot do."""

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.schema import ModelConfig, VisionConfig
from sftrl_ext.experiments.start_models.tiny_vision import IMAGE, build_tiny_qwen_vl
from sftrl_ext.hf_folder import load_processor, load_tokenizer, parameter_count
from tests.backends.tiny_vl import folder, hand, plain_model, processor, prompt


def test_verl_loads_the_processor():
    from verl.utils.tokenizer import hf_processor

    assert type(hf_processor(str(folder()))).__name__ == "Qwen2_5_VLProcessor"


@pytest.mark.parametrize(("width", "height", "tokens"), [(112, 56, 8), (224, 84, 24), (336, 336, 144)])
def test_an_image_keeps_its_size(width, height, tokens):
    ids = prompt([hand("KS 10C 7S AC", width, height)])
    assert ids.count(processor().tokenizer.convert_tokens_to_ids(IMAGE)) == tokens


def test_parameters_and_parts():
    model = plain_model()
    assert parameter_count(folder()) == sum(p.numel() for p in model.parameters())
    assert model.config.text_config.vocab_size == len(load_tokenizer(folder()))


def test_a_name_has_the_same_tokens_wherever_it_stands(tmp_path):
    words = [f"{first}{last}" for first in ("Al", "Bran", "Hol") for last in ("ia", "ker", "vale")]
    corpus = [
        text
        for word in words
        for text in (
            f"2. go on where {word} Books is on your left\nO_1: {word} Books",
            f'{{"current observation": "{word} Books is on your left; intersection"}}',
        )
    ]
    config = ModelConfig(name="t", hidden_size=32, layers=1, vocab_size=400, vision=VisionConfig(16, 1, 2))
    build_tiny_qwen_vl(tmp_path / "m", corpus * 20, config, seed=0)
    tokenizer = load_tokenizer(tmp_path / "m")
    for name in ("Holker Books", "Branvale Grill"):  # read, and never read
        ids = tokenizer(name)["input_ids"]
        for text in corpus[-2:]:
            found = tokenizer(text.replace("Holvale Books", name))["input_ids"]
            assert any(found[start : start + len(ids)] == ids for start in range(len(found)))


def test_a_folder_without_its_image_processor_is_named(tmp_path):
    for file in folder().iterdir():
        if file.name != "processor_config.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(SftrlError, match=f"{tmp_path}: no image processor"):
        load_processor(tmp_path)


def test_videos_are_refused_without_torchvision():
    with pytest.raises(ImportError, match="torchvision"):
        processor().video_processor([1])


def test_sizes_that_do_not_fit(tmp_path):
    config = ModelConfig(name="t", hidden_size=36, heads=3, vision=VisionConfig())
    with pytest.raises(SftrlError, match="model.hidden_size 36 with 3 heads"):
        build_tiny_qwen_vl(tmp_path / "m", ["a"], config, seed=0)
